"""Files to photos."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from dehaze.errors import PhotoError
from dehaze.photo import exif as exif_tags
from dehaze.photo import ifd, jpeg
from dehaze.photo.colour import ColourTransform, transform_for
from dehaze.photo.damage import DamagedError
from dehaze.photo.decoding import DECODERS, Found, Source, refuse_raw
from dehaze.photo.formats import FORMATS, RAW_SUFFIXES, START_BYTES, recognise
from dehaze.photo.icc import ADOBE_GAMMA, ADOBE_RGB, make_profile
from dehaze.photo.types import Photo, PhotoInfo, Samples

MAX_PIXELS = 500_000_000
"""Pixels a picture may have unless the caller lifts the limit: more is likelier an attack than a photo."""

_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError),
    *(struct.error, zlib.error, cv2.error),
)
"""What decoders raise on damaged files."""

_TEXT = {9, 10, 13, *range(32, 127)}
_MAX_DPI = 65535
_TRANSPOSING = range(5, 9)
_CV_TURNS: dict[int, Callable[[Samples], Samples]] = {
    2: lambda x: cv2.flip(x, 1),
    3: lambda x: cv2.rotate(x, cv2.ROTATE_180),
    4: lambda x: cv2.flip(x, 0),
    5: lambda x: cv2.transpose(x),
    6: lambda x: cv2.rotate(x, cv2.ROTATE_90_CLOCKWISE),
    7: lambda x: cv2.flip(cv2.transpose(x), -1),
    8: lambda x: cv2.rotate(x, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def read(source: Path | str | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo: upright pixels at the file's own depth and in its own colours, and its metadata.

    Args:
        source: A file's path, or a binary stream, which is read to its end.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        PhotoError: There is no such file, it cannot be read, is no picture, of a format we do not read,
            damaged, too large, or HEIC without the extra.
    """
    name, data = _load(source)
    suffix = "" if hasattr(source, "read") else Path(str(source)).suffix.lower()
    format = recognise(data[:START_BYTES])
    if suffix in RAW_SUFFIXES and format in (None, "TIFF"):
        refuse_raw(name)
    if format is None:
        raise PhotoError(f"{name} is not a picture that dehaze can read: {_describe(data)}", _readable())
    try:
        return _finish(format, DECODERS[format](Source(data, name, max_pixels)))
    except PhotoError:
        raise
    except MemoryError as error:
        raise PhotoError(f"{name} is larger than the memory at hand") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(
            f"{name} has more pixels than the decoder of {format} takes", "convert it to PNG or TIFF first"
        ) from error
    except _DAMAGE as error:
        raise PhotoError(
            f"{name} is a damaged {format} file: {_reason(error)}", "fetch or export the file again"
        ) from error


def _load(source: Path | str | BinaryIO) -> tuple[str, bytes]:
    if not isinstance(source, (str, Path)):
        name = "the input stream"
        data = source.read()
    else:
        name = str(source)
        path = Path(source)
        try:
            with path.open("rb") as file:
                data = file.read(START_BYTES)
                if recognise(data) is not None:
                    data += file.read()
        except FileNotFoundError as error:
            raise PhotoError(f"there is no file {name}") from error
        except IsADirectoryError as error:
            raise PhotoError(
                f"{name} is a directory, not a picture", f"clear a whole directory with: dehaze folder {name}"
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PhotoError(f"{name} cannot be read: {reason}") from error
    if not data:
        raise PhotoError(f"{name} is empty: it has no bytes", "fetch or export the file again")
    return name, data


def _finish(format: str, found: Found) -> Photo:
    """Apply the orientation, make the metadata agree, and work out the colours."""
    notices = found.notices
    exif, directory, orientation = _upright_exif(found)
    transposed = orientation in _TRANSPOSING
    samples = found.samples if found.turned else _turn(found.samples, orientation)
    dpi = _credible(found.dpi) or _credible(exif_tags.resolution(directory))
    icc = found.icc
    if not icc and exif_tags.says_adobe_rgb(directory):
        icc = make_profile("Adobe RGB (1998) compatible", ADOBE_RGB, ADOBE_GAMMA)
    colours, alpha, gray = _separate(samples)
    return Photo(
        pixels=colours,
        alpha=alpha,
        gray=gray,
        info=PhotoInfo(
            format=format,
            bit_depth=found.bit_depth,
            dpi=dpi[::-1] if dpi and transposed else dpi,
            exif=exif,
            icc=icc,
            xmp=exif_tags.make_xmp_upright(found.xmp, transposed=transposed),
            xmp_extension=found.xmp_extension,
            photoshop=jpeg.without_thumbnails(found.photoshop),
            comment=found.comment,
            png_chunks=tuple(found.png_text),
            png_colour=tuple(found.png_colour),
            subsampling=found.subsampling,
            mask=found.mask,
            lossless=found.lossless,
        ),
        notices=notices,
        colour=_colour(icc, notices),
    )


def _upright_exif(found: Found) -> tuple[bytes, ifd.Directory, int]:
    """EXIF true of the upright picture, what it was before, and the orientation the file states."""
    exif, directory = found.exif, ifd.Directory()
    orientation = found.orientation or exif_tags.xmp_orientation(found.xmp) or 1
    try:
        directory = exif_tags.first_directory(exif)
        orientation = found.orientation or directory.number(exif_tags.ORIENTATION, 0) or orientation
        if exif:
            exif = exif_tags.make_upright(exif, transposed=orientation in _TRANSPOSING)
    except ValueError:
        exif = b""
        found.notices.append("its EXIF data is damaged and was left out")
    return exif, directory, orientation


def _credible(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """A resolution that every format can state."""
    return dpi if dpi and all(1 <= value <= _MAX_DPI for value in dpi) else None


def _colour(icc: bytes, notices: list[str]) -> ColourTransform | None:
    try:
        return transform_for(icc)
    except ValueError as error:
        notices.append(f"its colours were taken for sRGB, because of {error}")
        return None


def _turn(samples: Samples, orientation: int) -> Samples:
    if orientation not in _CV_TURNS:
        return samples
    turned = _CV_TURNS[orientation](np.ascontiguousarray(samples))
    return turned.reshape(*turned.shape[:2], -1)


def _separate(samples: Samples) -> tuple[Samples, Samples | None, bool]:
    """Split (H, W, C) into contiguous RGB, alpha and whether it is gray."""
    channels = samples.shape[2]
    gray = channels <= 2
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    if gray:
        return cv2.cvtColor(np.ascontiguousarray(samples[..., 0]), cv2.COLOR_GRAY2RGB), alpha, True
    return np.ascontiguousarray(samples[..., :3]), alpha, False


def _describe(data: bytes) -> str:
    start = data[:START_BYTES]
    for magic, what in (
        (b"%PDF", "it is a PDF document"),
        (b"8BPS", "it is a Photoshop document"),
        (b"\xff\x0a", "it is a JPEG XL picture"),
        (b"\0\0\0\x0cJXL ", "it is a JPEG XL picture"),
        (b"\0\0\0\x0cjP  ", "it is a JPEG 2000 picture"),
        (b"PK\x03\x04", "it is a ZIP archive"),
        (b"v/1\x01", "it is an OpenEXR picture"),
    ):
        if start.startswith(magic):
            return what
    if start[4:8] == b"ftyp":
        return "it is a video"
    readable = sum(byte in _TEXT for byte in start)
    if b"\0" not in start and readable > len(start) / 2:
        return "it is text"
    return "its first bytes belong to no format we know"


def _readable() -> str:
    return f"dehaze reads {', '.join(FORMATS)}"


def _reason(error: BaseException) -> str:
    if isinstance(error, DamagedError):
        return str(error)
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return "it is cut short"
    return "its contents make no sense"
