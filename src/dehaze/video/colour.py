"""Decoded frames to RGB and back: the right matrix and range, 10 bits kept, nothing shifted.

FFmpeg's numbers for matrix, range, primaries and transfer are those of ITU-T H.273. Converted there and back
with the flags used here, luma is unchanged on average; with FFmpeg's defaults it darkens by one level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import av
import numpy as np
import numpy.typing as npt
from av.codec import Codec, find_best_pix_fmt_of_list
from av.video.reformatter import Interpolation, VideoReformatter

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(H, W, 3) RGB."""

RGB, BT709, UNSPECIFIED, BT601 = 0, 1, 2, 5
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18

_EXACT = int(
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
_DEEP_RGB = "gbrp16le"
"""16-bit RGB by planes: with these flags FFmpeg 8 gets the packed rgb48le wrong."""

_STATES_RANGE = frozenset({"h264", "hevc", "vp9", "av1", "ffv1", "mjpeg"})
"""Codecs whose decoders learn whether the range is full; of others everybody believes that it is limited."""

_FULL_CHROMA = {
    "yuv420p": "yuv444p",
    "yuv422p": "yuv444p",
    "yuv420p10le": "yuv444p10le",
    "yuv422p10le": "yuv444p10le",
}


@dataclass(frozen=True)
class Colour:
    """How a video's numbers mean colours, by the code points of ITU-T H.273.

    Attributes:
        matrix: Between YUV and RGB.
        range: 1 limited, 2 full, 0 not stated.
        primaries: Chromaticities of red, green and blue.
        transfer: The curve between light and numbers.
    """

    matrix: int
    range: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colour:
        """Read a decoded frame's tags."""
        full = frame.format.name.startswith("yuvj")
        return cls(
            int(frame.colorspace),
            FULL if full else int(frame.color_range),
            int(frame.color_primaries),
            int(frame.color_trc),
        )

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer curve is PQ or HLG."""
        return self.transfer in (PQ, HLG)

    def assumed(self, width: int, height: int) -> Colour:
        """The same with a matrix where none is stated: as players guess, BT.709 for HD and BT.601 below."""
        if self.matrix not in (RGB, UNSPECIFIED):
            return self
        return replace(self, matrix=BT709 if width >= 1280 or height > 576 else BT601)


def bits(pix_fmt: str) -> int:
    """Bits a channel of a pixel format (8 for palettes)."""
    form = av.VideoFormat(pix_fmt)
    return 8 if form.has_palette else max((part.bits for part in form.components), default=8)


def has_alpha(pix_fmt: str) -> bool:
    """Whether a pixel format carries transparency."""
    form = av.VideoFormat(pix_fmt)
    return form.has_palette or any(part.is_alpha for part in form.components)


def output_format(codec: Codec, source: str, width: int, height: int) -> str:
    """Choose what an encoder is given: the source's depth and chroma as far as it can hold them.

    RGB, gray and palette sources become 4:2:0 unless the codec is lossless, for players expect that. H.264
    and HEVC have no 4:2:0 of odd width or height; such sizes are encoded with full chroma.
    """
    wanted = source
    form = av.VideoFormat(source)
    chroma = any(part.is_chroma for part in form.components)
    if codec.lossy and (form.is_rgb or form.has_palette or not chroma):
        wanted = "yuv420p" if bits(source) <= 8 else "yuv420p10le"
    if wanted.startswith("yuvj") and codec.name != "mjpeg":
        wanted = wanted.replace("yuvj", "yuv")
    odd = width % 2 or height % 2
    if odd and codec.canonical_name in ("h264", "hevc"):
        wanted = _FULL_CHROMA.get(wanted, wanted)
    known = [form.name for form in codec.video_formats or []]
    if not known or wanted in known:
        return wanted
    best = find_best_pix_fmt_of_list(known, wanted)[0]
    return wanted if best is None else best.name


def output_colour(source: Colour, source_format: str, codec: Codec, width: int, height: int) -> Colour:
    """What the output's numbers mean: the source's colours but where the source is RGB or the output JPEG."""
    if codec.canonical_name == "mjpeg":
        return replace(source, matrix=BT601, range=FULL)
    if av.VideoFormat(source_format).is_rgb or av.VideoFormat(source_format).has_palette:
        return replace(source.assumed(width, height), range=LIMITED)
    if source.range == FULL and codec.canonical_name not in _STATES_RANGE:
        return replace(source, range=LIMITED)
    return source


class Decoder:
    """Turns decoded frames into RGB arrays; one for each thread.

    Args:
        width: Of every frame, in pixels; a frame that differs is resized.
        height: Of every frame.
        colour: What the numbers mean.
        deep: Give 16 bits a channel instead of 8.
    """

    def __init__(self, width: int, height: int, colour: Colour, *, deep: bool) -> None:
        self._width, self._height = width, height
        self._colour = colour.assumed(width, height)
        self._rgb = _rgb_format(deep)
        self._swscale = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Pixels:
        """RGB of a decoded frame: (H, W, 3) uint8, or uint16 if deep."""
        if not frame.format.is_rgb:
            frame.colorspace, frame.color_range = self._colour.matrix, self._colour.range
        size = self._width, self._height
        converted = self._swscale.reformat(frame, *size, self._rgb, interpolation=_EXACT)
        pixels: Pixels = converted.to_ndarray()  # type: ignore[assignment]
        return pixels


class Encoder:
    """Turns RGB arrays into frames to encode; one for each thread.

    Args:
        colour: What the frames' numbers shall mean; also how they are tagged.
        pix_fmt: Pixel format of the frames.
        deep: The arrays have 16 bits a channel instead of 8.
    """

    def __init__(self, colour: Colour, pix_fmt: str, *, deep: bool) -> None:
        self._colour = colour
        self._pix_fmt = pix_fmt
        self._is_rgb = av.VideoFormat(pix_fmt).is_rgb
        self._rgb = _rgb_format(deep)
        self._swscale = VideoReformatter()

    def __call__(self, pixels: Pixels) -> av.VideoFrame:
        """The frame of (H, W, 3) pixels."""
        frame = av.VideoFrame.from_ndarray(pixels, format=self._rgb)
        conversion = self._colour.assumed(frame.width, frame.height)
        converted = self._swscale.reformat(
            frame,
            format=self._pix_fmt,
            dst_colorspace=conversion.matrix,
            dst_color_range=conversion.range,
            interpolation=_EXACT,
        )
        if not self._is_rgb:
            converted.colorspace, converted.color_range = self._colour.matrix, self._colour.range
        converted.color_primaries, converted.color_trc = self._colour.primaries, self._colour.transfer
        return converted


def _rgb_format(deep: bool) -> str:
    return _DEEP_RGB if deep else "rgb24"
