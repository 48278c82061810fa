"""Colours of video: decoded by the formula of BT.601, 709 and 2020, and not shifted on the way back."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.codec import Codec

from dehaze.video.colour import (
    BT601,
    BT709,
    FULL,
    LIMITED,
    RGB,
    UNSPECIFIED,
    Colour,
    Decoder,
    Encoder,
    bits,
    has_alpha,
    output_colour,
    output_format,
)

BT2020 = 9
WEIGHTS = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}
"""Shares of red and blue in luma, from the recommendations."""


def colour(matrix: int = BT709, range: int = LIMITED) -> Colour:
    return Colour(matrix, range, 1, 1)


def flat_frame(levels: tuple[int, int, int], pix_fmt: str, meaning: Colour) -> av.VideoFrame:
    frame = av.VideoFrame(64, 48, pix_fmt)
    for plane, level in zip(frame.planes, levels, strict=True):
        dtype = np.uint8 if bits(pix_fmt) == 8 else np.uint16
        plane.update(np.full(plane.buffer_size // dtype().itemsize, level, dtype).tobytes())
    frame.colorspace, frame.color_range = meaning.matrix, meaning.range
    return frame


def by_the_book(levels: tuple[int, int, int], depth: int, meaning: Colour) -> np.ndarray:
    """RGB in [0, 1] of Y'CbCr levels (ITU-R BT.709-6, 3.3 to 3.5, and its siblings)."""
    unit = 2 ** (depth - 8)
    y, cb, cr = levels
    if meaning.range == FULL:
        luma, blue, red = (
            y / (256 * unit - 1),
            (cb - 128 * unit) / (256 * unit - 1),
            (cr - 128 * unit) / (256 * unit - 1),
        )
    else:
        luma, blue, red = (
            (y - 16 * unit) / (219 * unit),
            (cb - 128 * unit) / (224 * unit),
            (cr - 128 * unit) / (224 * unit),
        )
    kr, kb = WEIGHTS[meaning.matrix]
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    return np.array([r, (luma - kr * r - kb * b) / (1 - kr - kb), b])


@pytest.mark.parametrize("range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_frames_mean_what_the_standards_say_both_ways(pix_fmt: str, matrix: int, range: int) -> None:
    depth = bits(pix_fmt)
    levels = tuple(level * 2 ** (depth - 8) for level in (120, 110, 140))
    meaning, deep = colour(matrix, range), depth > 8
    frame = flat_frame(levels, pix_fmt, meaning)  # type: ignore[arg-type]
    pixels = Decoder(64, 48, meaning, deep=deep)(frame)
    assert pixels.dtype == (np.uint16 if deep else np.uint8)
    seen = pixels[20, 20] / (65535 if deep else 255)
    # FFmpeg widens 10 bits to 16 by a shift, which makes white 65280.
    tolerance = 0.5 / 255 + (1 / 255 if deep else 0) + 1e-3
    np.testing.assert_allclose(seen, by_the_book(levels, depth, meaning), atol=tolerance)  # type: ignore[arg-type]
    back = Encoder(meaning, pix_fmt, deep=deep)(pixels)
    dtype = np.uint16 if deep else np.uint8
    returned = [int(np.frombuffer(plane, dtype)[0]) for plane in back.planes]
    assert np.abs(np.array(returned) - levels).max() <= 1
    assert (back.colorspace, back.color_range) == (matrix, range)
    assert (back.color_primaries, back.color_trc) == (1, 1)


def test_luma_is_not_shifted_on_the_way() -> None:
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(128, 40, (48, 64, 1)) + rng.normal(0, 5, (48, 64, 3)), 0, 255).astype(
        np.uint8
    )
    encode, decode = Encoder(colour(), "yuv444p", deep=False), Decoder(64, 48, colour(), deep=False)
    once = encode(pixels)
    luma = np.frombuffer(once.planes[0], np.uint8).astype(int)
    twice = np.frombuffer(encode(decode(once)).planes[0], np.uint8).astype(int)
    assert abs((twice - luma).mean()) < 0.05
    assert np.abs(twice - luma).max() <= 2


def test_a_frame_of_another_size_is_fitted() -> None:
    frame = flat_frame((120, 128, 128), "yuv420p", colour())
    assert Decoder(32, 40, colour(), deep=False)(frame).shape == (40, 32, 3)


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(720, 576, BT601), (720, 480, BT601), (1280, 720, BT709), (608, 1080, BT709), (1280, 534, BT709)],
)
def test_an_unstated_matrix_is_guessed_as_players_do(width: int, height: int, matrix: int) -> None:
    assert colour(UNSPECIFIED).assumed(width, height).matrix == matrix
    assert colour(BT2020).assumed(width, height).matrix == BT2020


@pytest.mark.parametrize(
    ("codec", "source", "size", "wanted"),
    [
        ("libx264", "yuv420p", (64, 48), "yuv420p"),
        ("libx264", "yuvj420p", (64, 48), "yuv420p"),
        ("libx264", "yuv422p10le", (64, 48), "yuv422p10le"),
        ("libx264", "yuv420p12le", (64, 48), "yuv420p10le"),
        ("libx264", "rgb24", (64, 48), "yuv420p"),
        ("libx264", "rgb48le", (64, 48), "yuv420p10le"),
        ("libx264", "pal8", (64, 48), "yuv420p"),
        ("libx264", "gray", (64, 48), "yuv420p"),
        ("libx264", "yuv420p", (65, 48), "yuv444p"),
        ("libx265", "yuv420p10le", (64, 49), "yuv444p10le"),
        ("libvpx-vp9", "yuv420p", (65, 49), "yuv420p"),
        ("libvpx-vp9", "yuv420p10le", (64, 48), "yuv420p"),
        ("prores_ks", "yuv420p", (64, 48), "yuv422p10le"),
        ("ffv1", "yuv420p10le", (65, 49), "yuv420p10le"),
        ("png", "yuv420p10le", (64, 48), "rgb48be"),
        ("png", "rgb24", (64, 48), "rgb24"),
    ],
)
def test_the_encoder_gets_the_depth_and_chroma_of_the_source(
    codec: str, source: str, size: tuple[int, int], wanted: str
) -> None:
    assert output_format(Codec(codec, "w"), source, *size) == wanted


def test_output_colours() -> None:
    h264, prores, mjpeg = (Codec(name, "w") for name in ("libx264", "prores_ks", "mjpeg"))
    full = colour(BT709, FULL)
    assert output_colour(full, "yuv420p", h264, 64, 48) == full
    assert output_colour(full, "yuv420p", prores, 64, 48).range == LIMITED
    assert output_colour(colour(), "yuv420p", mjpeg, 64, 48) == colour(BT601, FULL)
    from_rgb = output_colour(colour(RGB, FULL), "rgb24", h264, 1920, 1080)
    assert from_rgb == colour(BT709, LIMITED)


def test_what_a_format_holds() -> None:
    assert [bits(name) for name in ("yuv420p", "yuv420p10le", "rgb48le", "pal8")] == [8, 10, 16, 8]
    assert [has_alpha(name) for name in ("yuv420p", "yuva420p", "rgba", "pal8")] == [False, True, True, True]
    assert [Colour(9, 1, 9, transfer).is_hdr for transfer in (1, 14, 16, 18)] == [False, False, True, True]
