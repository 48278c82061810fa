"""Each format's bytes to samples and metadata, as the file stores them."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import cv2
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from dehaze.errors import PhotoError
from dehaze.photo import exif as exif_tags
from dehaze.photo import heic, ifd, jpeg, png, tiff
from dehaze.photo.colour import to_srgb_picture
from dehaze.photo.damage import DamagedError
from dehaze.photo.icc import DISPLAY_P3, make_profile
from dehaze.photo.types import Samples, to_8_bit

_P3_PRIMARIES, _SRGB_LIKE_TRANSFERS, _HDR_TRANSFERS = 12, {1, 2, 6, 13, 14, 15}, {16: "PQ", 18: "HLG"}


@dataclass
class Found:
    """A decoded file before its orientation is applied.

    Attributes:
        samples: (H, W, C); C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        orientation: EXIF's code; None leaves it to EXIF and XMP.
        turned: The samples are upright already; the metadata are not.
    """

    samples: Samples
    bit_depth: int = 8
    orientation: int | None = None
    turned: bool = False
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    xmp_extension: tuple[bytes, ...] = ()
    photoshop: bytes = b""
    comment: bytes = b""
    png_text: list[png.Chunk] = field(default_factory=list)
    png_colour: list[png.Chunk] = field(default_factory=list)
    subsampling: int = 0
    mask: bool = False
    lossless: bool = False
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Bytes to decode, and what to call them in messages."""

    data: bytes
    name: str
    max_pixels: int

    def check_size(self, width: int, height: int) -> None:
        """Refuse pictures over the limit before anything is decoded."""
        if width < 1 or height < 1:
            raise DamagedError("it has no pixels")
        if width * height > self.max_pixels:
            raise PhotoError(
                f"{self.name} is {width} x {height} pixels ({_megapixels(width * height)}), "
                f"over the limit of {_megapixels(self.max_pixels)}",
                f"if you trust the file, lift the limit with --max-pixels {width * height}",
            )


def refuse_raw(name: str) -> NoReturn:
    """Say that a camera raw file is none of our formats."""
    raise PhotoError(
        f"{name} is a camera raw file, which dehaze cannot develop", "export it as a 16-bit TIFF first"
    )


def _decode_jpeg(source: Source) -> Found:
    parts = jpeg.split(source.data)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(parts.picture))
    source.check_size(*image.size)
    notices = ["only the first of the pictures in the file was used"] if parts.several else []
    subsampling = JpegImagePlugin.get_sampling(image)
    found = _from_pillow(image, parts.icc, notices)
    found.exif, found.xmp, found.xmp_extension = parts.exif, parts.xmp, parts.xmp_extension
    found.photoshop, found.comment, found.dpi = parts.photoshop, parts.comment, parts.dpi
    found.subsampling = max(subsampling, 0)
    return found


def _decode_png(source: Source) -> Found:
    parts = png.split(source.data)
    source.check_size(*parts.size)
    notices = _frames(parts.frames)
    if parts.bit_depth == 16:
        found = Found(_decode_deep_png(parts), bit_depth=16, icc=parts.icc, notices=notices)
    else:
        found = _from_pillow(PngImagePlugin.PngImageFile(io.BytesIO(parts.picture)), parts.icc, notices)
        found.bit_depth = parts.bit_depth
    found.exif, found.xmp, found.dpi = exif_tags.bare(parts.exif), parts.xmp, parts.dpi
    found.photoshop = parts.photoshop or _as_photoshop(parts.iptc)
    found.png_text, found.png_colour = parts.text, parts.colour
    for kind, content in parts.colour:
        if kind == b"cICP" and len(content) == 4:
            _apply_code_points(found, content[0], content[1])
    return found


def _decode_deep_png(parts: png.Split) -> Samples:
    samples = cv2.imdecode(np.frombuffer(parts.picture, np.uint8), cv2.IMREAD_UNCHANGED)
    width, height = parts.size
    if samples is None or samples.dtype != np.uint16 or samples.shape[:2] != (height, width):
        raise DamagedError("its pixels are damaged")
    samples = samples.reshape(height, width, -1)
    gray = parts.colour_type in (0, 4)
    if samples.shape[2] >= 3:
        code = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        samples = cv2.cvtColor(samples, code)
    if gray and samples.shape[2] == 4:
        samples = samples[..., [0, 3]]
    elif parts.transparent:
        key = np.frombuffer(parts.transparent, ">u2")[: samples.shape[2]]
        opaque = (samples != key).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, opaque * np.uint16(65535)], axis=2)
    return np.asarray(samples)


def _decode_webp(source: Source) -> Found:
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(source.data))
    source.check_size(*image.size)
    info = image.info
    found = _from_pillow(image, info.get("icc_profile", b""), _frames(image.n_frames))
    found.exif, found.xmp = exif_tags.bare(info.get("exif", b"")), info.get("xmp", b"")
    found.lossless = _webp_is_lossless(source.data)
    return found


def _webp_is_lossless(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8L", b"VP8 "):
            return bool(name == b"VP8L")
        at += 8 + size + size % 2
    return False


def _decode_avif(source: Source) -> Found:
    with warnings.catch_warnings():
        # The plugin parses EXIF as it opens, and complains of any damage.
        warnings.simplefilter("ignore")
        image = AvifImagePlugin.AvifImageFile(io.BytesIO(source.data))
    source.check_size(*image.size)
    info = image.info
    found = _from_pillow(image, info.get("icc_profile") or b"", _frames(image.n_frames))
    found.exif, found.xmp = exif_tags.bare(info.get("exif") or b""), info.get("xmp") or b""
    # The plugin states the container's own rotation as EXIF orientation.
    found.bit_depth = _avif_depth(source.data)
    if found.bit_depth > 8:
        found.notices.append(f"its {found.bit_depth} bits a sample were reduced to 8")
    at = source.data.find(b"colrnclx")
    if at >= 0 and not found.icc and len(source.data) >= at + 12:
        _apply_code_points(found, *struct.unpack_from(">HH", source.data, at + 8))
    return found


def _avif_depth(data: bytes) -> int:
    """Depth from the AV1 configuration box: high_bitdepth and twelve_bit of its third byte."""
    at = data.find(b"av1C")
    if at < 0 or at + 7 > len(data):
        return 8
    flags = data[at + 6]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _decode_tiff(source: Source) -> Found:
    page, count = tiff.pages(source.data)
    if tiff.DNG_VERSION in page.entries or page.number(tiff.SUBFILE, 0) & 1:
        refuse_raw(source.name)
    source.check_size(page.number(tiff.WIDTH, 0), page.number(tiff.HEIGHT, 0))
    tiff.check_complete(source.data, page)
    notices = ["only the first of its pages was used"] if count > 1 else []
    if tiff.LAYERS in page.entries:
        notices.append("its Photoshop layers were left out: the flattened picture was used")
    found = _decode_tiff_page(source, page, notices)
    found.bit_depth = tiff.depth(page)
    found.orientation = page.number(exif_tags.ORIENTATION, 0) or None
    found.exif, found.xmp = tiff.metadata(page), tiff.blob(page, tiff.XMP)
    found.photoshop = tiff.blob(page, tiff.PHOTOSHOP) or _as_photoshop(tiff.blob(page, tiff.IPTC))
    found.dpi = exif_tags.resolution(page)
    return found


def _decode_tiff_page(source: Source, page: ifd.Directory, notices: list[str]) -> Found:
    icc = tiff.blob(page, tiff.ICC)
    photometric = page.number(tiff.PHOTOMETRIC, tiff.BLACK_IS_ZERO)
    if tiff.is_plain(page):
        samples = tiff.decode(source.data, page)
        if photometric == tiff.CMYK:
            return _from_cmyk(samples, icc, notices)
        samples, mask = _known_channels(samples, page, notices)
        return Found(samples, icc=icc, mask=mask, notices=notices)
    depth, formats = tiff.depth(page), set(page.numbers(tiff.SAMPLE_FORMAT))
    if depth > 8 or not formats <= {1}:
        kind = "bit floating point" if 3 in formats else "bit"
        raise PhotoError(
            f"{source.name} has {depth}-{kind} samples of a kind that dehaze cannot read",
            "export it as a TIFF of 8 or 16 bits a sample",
        )
    return _from_pillow(tiff.open_page(tiff.pixels_only(source.data, page)), icc, notices)


def _known_channels(samples: Samples, page: ifd.Directory, notices: list[str]) -> tuple[Samples, bool]:
    """Keep colours and the first channel beyond, not multiplied; tell whether that is a mask, not alpha."""
    colours = 3 if page.number(tiff.PHOTOMETRIC, tiff.BLACK_IS_ZERO) == tiff.RGB else 1
    if samples.shape[2] < colours:
        raise DamagedError("its header is damaged")
    if samples.shape[2] > colours + 1:
        notices.append("its extra channels after the first, which are not colours, were left out")
        samples = samples[..., : colours + 1]
    meaning = page.number(tiff.EXTRA_SAMPLES, 0)
    if samples.shape[2] > colours and meaning == tiff.ASSOCIATED:
        samples = _divided_by_alpha(samples)
    return samples, samples.shape[2] > colours and meaning not in (tiff.ASSOCIATED, tiff.UNASSOCIATED)


def _divided_by_alpha(samples: Samples) -> Samples:
    highest = np.iinfo(samples.dtype).max
    alpha = samples[..., -1:].astype(np.float32)
    straight = np.rint(samples[..., :-1] * (highest / np.maximum(alpha, 1))).clip(0, highest)
    return np.concatenate([straight.astype(samples.dtype), samples[..., -1:]], axis=2)


def _from_cmyk(samples: Samples, icc: bytes, notices: list[str]) -> Found:
    if samples.shape[2] < 4:
        raise DamagedError("its header is damaged")
    if samples.shape[2] > 4:
        notices.append("its extra channels, which are not colours, were left out")
    if samples.dtype == np.uint16:
        notices.append("its 16 bits a sample were reduced to 8")
    height, width = samples.shape[:2]
    image = Image.frombytes("CMYK", (width, height), to_8_bit(samples[..., :4]).tobytes())
    return _from_pillow(image, icc, notices)


def _as_photoshop(iptc: bytes) -> bytes:
    """Wrap bare IPTC data in an image resource, its usual home."""
    if not iptc:
        return b""
    return b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def _decode_bmp(source: Source) -> Found:
    image = BmpImagePlugin.BmpImageFile(io.BytesIO(source.data))
    source.check_size(*image.size)
    found = _from_pillow(image, b"", [])
    found.dpi = image.info.get("dpi")
    return found


def _decode_gif(source: Source) -> Found:
    image = GifImagePlugin.GifImageFile(io.BytesIO(source.data))
    source.check_size(*image.size)
    notices = _frames(image.n_frames)
    image.seek(0)
    return _from_pillow(image, b"", notices)


def _decode_heic(source: Source) -> Found:
    try:
        image, count = heic.open_file(source.data)
    except PhotoError as error:
        raise PhotoError(
            f"{source.name} is a HEIC picture, which needs an extra that is not installed", error.hint
        ) from error
    source.check_size(*image.size)
    info = image.info
    found = Found(
        heic.decode(image),
        bit_depth=info["bit_depth"],
        turned=True,
        exif=exif_tags.bare(info.get("exif") or b""),
        icc=info.get("icc_profile") or b"",
        xmp=info.get("xmp") or b"",
        notices=["only the main picture of the file was used"] if count > 1 else [],
    )
    points = info.get("nclx_profile")
    if points and not found.icc:
        _apply_code_points(found, points["color_primaries"], points["transfer_characteristics"])
    return found


def _apply_code_points(found: Found, primaries: int, transfer: int) -> None:
    """Take the colour space from ITU-T H.273 code points, for files that have no profile."""
    if transfer in _HDR_TRANSFERS:
        found.notices.append(
            f"it is an HDR picture ({_HDR_TRANSFERS[transfer]}), and was treated as an SDR one"
        )
    elif primaries == _P3_PRIMARIES and transfer in _SRGB_LIKE_TRANSFERS and not found.icc:
        found.icc = make_profile("Display P3 compatible", DISPLAY_P3, None)


def _from_pillow(image: Image.Image, icc: bytes, notices: list[str]) -> Found:
    """Decode with Pillow to 8-bit samples; CMYK and Lab become sRGB."""
    mode = image.mode
    if mode in ("CMYK", "LAB", "YCbCr"):
        if mode != "YCbCr":
            image, by_profile = to_srgb_picture(image, icc)
            usable = " that can be used" if icc else ""
            by = "its own profile" if by_profile else f"a simple rule, for want of a profile{usable}"
            notices.append(f"it was converted from {mode} to sRGB by {by}, and is written as RGB")
            icc = b""
        else:
            image = image.convert("RGB")
    elif mode in ("P", "PA") and image.palette is None:
        raise DamagedError("its palette is missing")
    elif mode in ("P", "PA") or "transparency" in image.info:
        alpha = image.has_transparency_data
        image = image.convert({False: "RGB", True: "LA" if mode in ("1", "L") else "RGBA"}[alpha])
    elif mode == "1":
        image = image.convert("L")
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    samples = np.array(image)
    return Found(samples.reshape(*samples.shape[:2], -1), icc=icc, notices=notices)


def _frames(count: int) -> list[str]:
    return [f"only the first of its {count} frames was used"] if count > 1 else []


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f} MP" if pixels >= 1e6 else f"{pixels:,} pixels"


DECODERS: dict[str, Callable[[Source], Found]] = {
    "JPEG": _decode_jpeg,
    "PNG": _decode_png,
    "WEBP": _decode_webp,
    "AVIF": _decode_avif,
    "TIFF": _decode_tiff,
    "BMP": _decode_bmp,
    "GIF": _decode_gif,
    "HEIC": _decode_heic,
}
"""By `PhotoInfo.format`. They raise `PhotoError`, or anything at all that a decoder raises on damage."""
