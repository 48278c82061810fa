"""Photos to files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from dehaze.errors import PhotoError, UsageError
from dehaze.parts import write_whole
from dehaze.photo import exif as exif_tags
from dehaze.photo import heic, ifd, jpeg, png, tiff
from dehaze.photo.formats import Format, check_depth, output_format
from dehaze.photo.icc import colour_space
from dehaze.photo.types import Photo, PhotoInfo, Samples, to_8_bit, to_16_bit

QUALITY = {"JPEG": 95, "WEBP": 90, "AVIF": 85, "HEIC": 90}
"""Quality used where none is asked for, on each encoder's own scale of 1 to 100."""

_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65536}
_LARGE_TAG = 4096
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True)
class _Job:
    """One picture ready for an encoder.

    Attributes:
        samples: (H, W, C), uint8 or uint16; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        info: The metadata to write.
        quality: As asked for, or None.
        note: Takes what has to be given up.
    """

    samples: Samples
    info: PhotoInfo
    quality: int | None
    note: Callable[[str], None]

    def save(self, format: str, **options: Any) -> bytes:
        """Encode with Pillow."""
        samples = self.samples[..., 0] if self.samples.shape[2] == 1 else self.samples
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(samples)).save(file, format, **options)
        return file.getvalue()


def write(
    photo: Photo,
    target: Path | str | BinaryIO,
    *,
    format: str | None = None,
    quality: int | None = None,
    metadata: str = "keep",
    bit_depth: str | int = "auto",
) -> None:
    """Write a photo with its metadata; a file appears whole or not at all.

    What had to be given up for the format is added to `photo.notices`. JPEG and BMP hold no transparency:
    the picture is laid over white. Gray photos are written gray, of the pixels' luma.

    Args:
        photo: Its pixels may have been changed since it was read.
        target: A path, whose directory must exist, or a binary stream.
        format: ``same`` as read, ``png``, ``jpg``, ``webp``, ``avif`` or ``tiff``; None follows the path's
            suffix, or for a stream the format that was read.
        quality: 1 to 100 for the lossy formats, instead of `QUALITY`; the others have no use for it. A WebP
            that was read lossless is written lossless unless a quality is given.
        metadata: ``keep``, or ``strip`` to leave out all but colour profile and resolution.
        bit_depth: Bits a sample, 8 or 16; ``auto`` keeps what the pixels have, as far as the format can.

    Raises:
        UsageError: An option is unknown, or asks for what the format cannot do.
        PhotoError: The picture does not fit the format, or the file cannot be written.
    """
    path = Path(target) if isinstance(target, (str, Path)) else None
    chosen = output_format(format, path.suffix if path else None, photo.info.format)
    _check_options(chosen, quality, metadata, bit_depth)
    name = str(path) if path else "the output stream"
    height, width = photo.pixels.shape[:2]
    longest = _LONGEST_SIDE.get(chosen.name)
    if longest and max(width, height) > longest:
        raise PhotoError(
            f"{name} cannot be written: {width} x {height} pixels, and {chosen.name} holds {longest} a side",
            "use --format png or --format tiff",
        )
    job = _prepare(photo, chosen, quality, strip=metadata == "strip", bit_depth=bit_depth)
    try:
        data = _ENCODERS[chosen.name](job)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        raise PhotoError(f"{name} cannot be written as {chosen.name}: {error}") from error
    try:
        if isinstance(target, (str, Path)):
            write_whole(Path(target), data)
        else:
            target.write(data)
    except OSError as error:
        raise PhotoError(f"{name} cannot be written: {error.strerror or error}") from error


def _check_options(chosen: Format, quality: int | None, metadata: str, bit_depth: str | int) -> None:
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality must be 1 to 100, got {quality}")
    if metadata not in ("keep", "strip"):
        raise UsageError(f"unknown metadata choice '{metadata}': expected keep or strip")
    if bit_depth not in ("auto", 8, 16):
        raise UsageError(f"unknown bit depth '{bit_depth}': expected auto, 8 or 16")
    check_depth(bit_depth, chosen)


def _prepare(photo: Photo, chosen: Format, quality: int | None, *, strip: bool, bit_depth: str | int) -> _Job:
    """Bring pixels and metadata to what the format can hold."""
    alpha = photo.alpha
    if photo.info.mask and chosen.name != "TIFF":
        alpha = None
        photo.note(f"its mask channel was left out: {chosen.name} has no place for it")
    gray = photo.gray and chosen.gray and (alpha is None or chosen.gray_alpha)
    samples, info = photo.pixels, photo.info
    if _must_become_srgb(info, chosen, gray=gray):
        samples, info = _in_srgb(photo), replace(info, icc=b"")
    if gray:
        samples = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)[..., None]
    if alpha is not None and not chosen.alpha:
        samples = _over_white(samples, alpha, photo.note, chosen)
    elif alpha is not None:
        samples = np.concatenate([samples, alpha[..., None]], axis=2)
    if bit_depth == 16:
        samples = to_16_bit(samples)
    elif bit_depth == 8 or not chosen.deep:
        if bit_depth == "auto" and samples.dtype == np.uint16:
            photo.note(f"it was reduced to 8 bits a sample: {chosen.name} holds no more")
        samples = to_8_bit(samples)
    if strip:
        info = replace(info, exif=b"", xmp=b"", xmp_extension=(), photoshop=b"", comment=b"", png_chunks=())
    elif info.dpi and not info.exif and chosen.name in ("WEBP", "AVIF", "HEIC"):
        info = replace(info, exif=_stating(info.dpi))
    return _Job(samples, _fitting(info, chosen, photo.note), quality, photo.note)


def _stating(dpi: tuple[float, float]) -> bytes:
    """EXIF of the resolution alone, for formats that have no other place for it."""
    directory = ifd.Directory()
    exif_tags.put_resolution(directory, dpi)
    return ifd.header(directory.order) + ifd.write(directory)


def _must_become_srgb(info: PhotoInfo, chosen: Format, *, gray: bool) -> bool:
    return bool(info.icc) and (not chosen.metadata or (colour_space(info.icc) == "GRAY" and not gray))


def _in_srgb(photo: Photo) -> Samples:
    """Convert the whole picture, strip by strip: the working precision would fill the memory."""
    if photo.colour is None:
        return photo.pixels
    pixels = photo.pixels
    highest = np.iinfo(pixels.dtype).max
    answer = np.empty_like(pixels)
    rows = max(1, _STRIP_PIXELS // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows].astype(np.float32) / np.float32(highest)
        answer[start : start + rows] = np.rint(photo.colour.to_srgb(part) * highest)
    return answer


def _over_white(samples: Samples, alpha: Samples, note: Callable[[str], None], chosen: Format) -> Samples:
    highest = np.iinfo(samples.dtype).max
    if (alpha == highest).all():
        return samples
    note(f"its transparent parts were laid over white: {chosen.name} holds no transparency")
    answer = np.empty_like(samples)
    rows = max(1, _STRIP_PIXELS // samples.shape[1])
    for start in range(0, len(samples), rows):
        opacity = alpha[start : start + rows, :, None].astype(np.float32) / np.float32(highest)
        part = samples[start : start + rows]
        answer[start : start + rows] = np.rint(highest + (part.astype(np.float32) - highest) * opacity)
    return answer


def _fitting(info: PhotoInfo, chosen: Format, note: Callable[[str], None]) -> PhotoInfo:
    """Leave out the metadata that the format has no place for, and say so."""
    kept: dict[str, Any] = {}
    lost = []
    for name, what, places in (
        ("exif", "EXIF", chosen.metadata),
        ("xmp", "XMP", chosen.metadata),
        ("photoshop", "IPTC and Photoshop data", chosen.name in ("JPEG", "TIFF", "PNG")),
        ("xmp_extension", "extended XMP", chosen.name == "JPEG"),
        ("comment", "the JPEG comment", chosen.name == "JPEG"),
        ("png_chunks", "PNG text", chosen.name == "PNG"),
    ):
        if getattr(info, name) and not places:
            kept[name] = type(getattr(info, name))()
            lost.append(what)
    if lost:
        note(f"metadata left out, for which {chosen.name} has no place: {', '.join(lost)}")
    return replace(info, **kept) if kept else info


def _encode_jpeg(job: _Job) -> bytes:
    info = job.info
    exif, xmp = info.exif, info.xmp
    if len(exif) > jpeg.MAX_EXIF:
        exif = _slim(exif)
        job.note("its largest EXIF entries were left out: JPEG holds 64 KB")
    if len(xmp) > jpeg.MAX_XMP:
        xmp = b""
        job.note("its XMP was left out: JPEG holds 64 KB")
    options: dict[str, Any] = {"dpi": info.dpi} if info.dpi else {}
    quality = job.quality or QUALITY["JPEG"]
    data = job.save("JPEG", quality=quality, subsampling=info.subsampling, **options)
    return jpeg.insert(
        data,
        exif=exif,
        icc=info.icc,
        xmp=xmp,
        xmp_extension=info.xmp_extension if xmp else (),
        photoshop=info.photoshop,
        comment=info.comment,
    )


def _slim(exif: bytes) -> bytes:
    """EXIF without its large entries, thumbnails and maker notes mostly."""
    directory = exif_tags.first_directory(exif)
    for part in (directory, *directory.children.values()):
        part.entries = {tag: e for tag, e in part.entries.items() if len(e.data) <= _LARGE_TAG}
    slim = ifd.header(directory.order) + ifd.write(directory)
    return slim if len(slim) <= jpeg.MAX_EXIF else b""


def _encode_png(job: _Job) -> bytes:
    info = job.info
    chunks = png.metadata_chunks(
        icc=info.icc,
        colour=info.png_colour,
        dpi=info.dpi,
        exif=info.exif,
        xmp=info.xmp,
        photoshop=info.photoshop,
        text=info.png_chunks,
    )
    return png.encode(job.samples, chunks)


def _encode_webp(job: _Job) -> bytes:
    info = job.info
    lossless = info.lossless and job.quality is None
    return job.save(
        "WEBP",
        lossless=lossless,
        quality=job.quality or QUALITY["WEBP"],
        # Colours under full transparency are data too.
        exact=True,
        icc_profile=info.icc,
        exif=info.exif,
        xmp=info.xmp,
    )


def _encode_avif(job: _Job) -> bytes:
    info = job.info
    chroma = {} if job.samples.shape[2] == 1 else {"subsampling": "4:4:4"}
    return job.save(
        "AVIF",
        quality=job.quality or QUALITY["AVIF"],
        icc_profile=info.icc,
        # Pillow rewrites EXIF that states an orientation, and moves the maker notes.
        exif=exif_tags.without_orientation(info.exif) if info.exif else b"",
        xmp=info.xmp,
        **chroma,
    )


def _encode_tiff(job: _Job) -> bytes:
    info = job.info
    return tiff.encode(
        job.samples,
        exif_tags.first_directory(info.exif),
        icc=info.icc,
        xmp=info.xmp,
        photoshop=info.photoshop,
        dpi=info.dpi,
        mask=info.mask,
    )


def _encode_bmp(job: _Job) -> bytes:
    return job.save("BMP", **({"dpi": job.info.dpi} if job.info.dpi else {}))


def _encode_heic(job: _Job) -> bytes:
    info = job.info
    quality = job.quality or QUALITY["HEIC"]
    return heic.encode(job.samples, quality=quality, icc=info.icc, exif=info.exif, xmp=info.xmp)


_ENCODERS: dict[str, Callable[[_Job], bytes]] = {
    "JPEG": _encode_jpeg,
    "PNG": _encode_png,
    "WEBP": _encode_webp,
    "AVIF": _encode_avif,
    "TIFF": _encode_tiff,
    "BMP": _encode_bmp,
    "HEIC": _encode_heic,
}
