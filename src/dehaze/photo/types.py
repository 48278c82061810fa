"""What a photo is once it is read: upright pixels, and all that came with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dehaze.photo.colour import ColourTransform

Samples = npt.NDArray[Any]
"""uint8 or uint16, (H, W) or (H, W, C)."""


@dataclass(frozen=True)
class PhotoInfo:
    """What a file said besides its pixels, already true of the upright picture.

    Attributes:
        format: Container: JPEG, PNG, WEBP, AVIF, TIFF, BMP, GIF or HEIC.
        bit_depth: Bits a sample in the file.
        dpi: Horizontal and vertical pixels an inch.
        exif: A TIFF structure without the leading ``Exif\\0\\0``; orientation 1, no thumbnail; everything
            else at its old place, so that maker notes stay readable.
        icc: Colour profile of the pixels.
        xmp: The XMP packet.
        xmp_extension: JPEG's extended XMP, one segment each.
        photoshop: Photoshop image resources (they hold IPTC captions and copyright), without thumbnails.
        comment: JPEG comment.
        png_chunks: (type, content) of PNG's text chunks.
        png_colour: (type, content) of PNG's colour chunks other than the profile.
        subsampling: JPEG chroma: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
        mask: A TIFF's alpha is a stored mask, such as a saved selection, and not transparency.
        lossless: The file's compression lost nothing (known for WebP).
    """

    format: str = "PNG"
    bit_depth: int = 8
    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    xmp_extension: tuple[bytes, ...] = ()
    photoshop: bytes = b""
    comment: bytes = b""
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    subsampling: int = 0
    mask: bool = False
    lossless: bool = False


@dataclass
class Photo:
    """A photo in memory.

    Attributes:
        pixels: (H, W, 3) uint8 or uint16 RGB, upright, contiguous, in the file's own colour space.
        alpha: (H, W) of the same dtype, not multiplied into the pixels; None if opaque by format.
        gray: The file is gray, and is written gray: the three channels were equal when read.
        info: Metadata.
        notices: What a user should know that was done on the way in or out, one sentence each.
        colour: How to reach sRGB from the file's colour space; None if the file is sRGB already.
    """

    pixels: Samples
    alpha: Samples | None = None
    gray: bool = False
    info: PhotoInfo = field(default_factory=PhotoInfo)
    notices: list[str] = field(default_factory=list)
    colour: ColourTransform | None = None

    def note(self, notice: str) -> None:
        """Add a notice, once."""
        if notice not in self.notices:
            self.notices.append(notice)


def to_8_bit(samples: Samples) -> Samples:
    """Round uint16 samples of any shape to uint8; uint8 is returned as it is."""
    if samples.dtype == np.uint8:
        return samples
    rounded = samples.astype(np.uint32)
    rounded += 128
    rounded //= 257
    return rounded.astype(np.uint8)


def to_16_bit(samples: Samples) -> Samples:
    """Spread uint8 samples of any shape over uint16; uint16 is returned as it is."""
    return samples if samples.dtype == np.uint16 else samples.astype(np.uint16) * 257
