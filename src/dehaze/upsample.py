"""Local affine transfer: what a network did to a small working copy, done to the full-resolution pixels.

Haze removal is locally affine, J = a I + b, with a and b smooth but for depth edges. They are fitted in small
windows of the working copy with the copy itself as guide, enlarged, and applied to every pixel: He and Sun,
"Fast Guided Filter", 2015. One deviation: where windows overlap, He and Sun average their coefficients
plainly; here a window counts by how well its line fits. Windows across a depth edge fit badly and lose their
say, which keeps edges free of halos (truth as answer, from 155 to 620 pixels, same ridge: 44.8 against 42.5
dB, on the 16 development pairs of SOTS indoor on which the constants below were chosen).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""(H, W, 3) uint8, uint16, or float32 in [0, 1]."""

Map = npt.NDArray[np.float32]

RADIUS = 1
"""Windows are 3 x 3 pixels of the working copy, the best for answers without error. Wider ones average a
network's errors out and blur its edges; which is best is for its checkpoint to say (docs/experiments.md)."""

EPS = 1e-6
"""Ridge of the fit, as a variance of the guide: contrast under a quarter of an 8-bit level counts as flat."""

NOISE_SHARE = 0.5
"""Ridge added for the picture's noise, as a share of its variance: less gain where contrast drowns in noise.
On the same pairs with noise of 4 levels: +1.3 dB; without noise: 0.02 dB lost."""

RESIDUAL_FLOOR = 1e-5
"""Variance added to a window's residual before it becomes a weight: better fits than this are all alike."""

ANSWER_RANGE = (-0.5, 1.5)
"""An answer beyond this is none: before colours that it never saw a network may answer in the millions."""

FALLBACK_RADIUS = 12
"""Pixels of the working copy: this far around where a network has no answer the picture stays as it is, and
over twice as much the answer fades in. What it answers nearby is spoilt, too (docs/experiments.md, 33)."""

PATCHES, PATCH = 12, 24
"""Noise is measured in 12 x 12 patches of 24 x 24 pixels."""

_STRIP_ROWS = 64
_BLOCK_VALUES = 1 << 17
"""Values computed at a time: three such float32 arrays stay in a core's second-level cache."""


_DEPTHS = {"uint8": cv2.CV_8U, "uint16": cv2.CV_16U, "float32": cv2.CV_32F}


@dataclass(frozen=True)
class LocalAffine:
    """Coefficients of J = gain I + offset at the working resolution.

    Attributes:
        gain: (h, w, 3), for pixels of any scale.
        offset: (h, w, 3), for pixels in [0, 1].
    """

    gain: Map
    offset: Map


def white(dtype: np.dtype[Any]) -> float:
    """Value of full intensity in pixels of a type: 255, 65535, or 1 for floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def noise_variance(pixels: Pixels) -> float:
    """Variance of the noise in a picture, for pixels in [0, 1]; texture hardly counts.

    The smooth parts of a picture tell: diagonal differences of 2 x 2 pixels of green, in patches spread over
    the picture, of which the one at the lowest tenth is taken. Clipped or flat pictures have none.

    Args:
        pixels: (H, W, 3) uint8, uint16, or float32 in [0, 1].
    """
    height, width = pixels.shape[:2]
    side = min(PATCH, height, width) // 2 * 2
    if side == 0:
        return 0.0
    top = np.linspace(0, height - side, PATCHES).astype(int)
    left = np.linspace(0, width - side, PATCHES).astype(int)
    patches = np.lib.stride_tricks.sliding_window_view(pixels[..., 1], (side, side))[top[:, None], left]
    quads = patches.astype(np.float32).reshape(*patches.shape[:2], side // 2, 2, side // 2, 2)
    diagonal = quads[..., 0, :, 0] + quads[..., 1, :, 1] - quads[..., 0, :, 1] - quads[..., 1, :, 0]
    # Four normal values make twice the deviation, and the mean |x| of a normal one is sqrt(2 / pi) of that.
    deviation = np.abs(diagonal).mean((-1, -2)) * np.sqrt(np.pi / 2) / 2 / white(pixels.dtype)
    ordered = np.sort(deviation, axis=None)  # np.quantile would import numpy.ma: 9 ms of a short run
    return float(np.interp(0.1 * (ordered.size - 1), np.arange(ordered.size), ordered)) ** 2


def no_answer(answer: Map) -> npt.NDArray[np.bool_]:
    """Where a network's answer is none: (h, w, 3) of any size of values -> (h, w), see `ANSWER_RANGE`."""
    low, high = ANSWER_RANGE
    beyond: npt.NDArray[np.bool_] = np.any((answer < low) | (answer > high), axis=2)
    return beyond


def restrain(answer: Map, picture: Map, wild: npt.NDArray[np.bool_]) -> Map:
    """Take a network's answer, and the picture itself where there is none and around that.

    Args:
        answer: (h, w, 3), of any size of values.
        picture: (h, w, 3) in [0, 1], what the network was given.
        wild: (h, w), where there is no answer: see `no_answer`.

    Returns:
        (h, w, 3) within `ANSWER_RANGE`.
    """
    held: Map = np.clip(answer, *ANSWER_RANGE)
    side = 4 * FALLBACK_RADIUS + 1
    around = np.asarray(cv2.dilate(wild.astype(np.float64), np.ones((side, side), np.uint8)), np.float64)
    share = _box(around, FALLBACK_RADIUS)[..., None].astype(np.float32)
    return held + share * (picture - held)


def fit(
    guide: Map, answer: Map, *, radius: int = RADIUS, eps: float = EPS, noise: float = 0.0
) -> LocalAffine:
    """Fit the local affine map that turns the hazy working copy into the network's answer.

    Args:
        guide: (h, w, 3) hazy working copy in [0, 1].
        answer: (h, w, 3) what the network made of it.
        radius: Windows are (2 radius + 1) pixels wide and high.
        eps: Ridge added to the guide's variance; larger values flatten faint contrast.
        noise: Variance of the noise in the full-resolution picture, see `noise_variance`.

    Raises:
        ValueError: The shapes differ.
    """
    if guide.shape != answer.shape:
        raise ValueError(f"guide and answer differ in shape: {guide.shape} and {answer.shape}")
    # In float64: a variance below the ridge is the small difference of two large numbers.
    x, y = guide.astype(np.float64), answer.astype(np.float64)
    mean_x, mean_y = _box(x, radius), _box(y, radius)
    variance = np.maximum(_box(x * x, radius) - mean_x * mean_x, 0)
    covariance = _box(x * y, radius) - mean_x * mean_y
    spread = np.maximum(_box(y * y, radius) - mean_y * mean_y, 0)
    gain = covariance / (variance + eps + NOISE_SHARE * noise)
    offset = mean_y - gain * mean_x
    residual = np.maximum(spread - gain * (2 * covariance - gain * variance), 0)
    weight = 1 / (residual + RESIDUAL_FLOOR)
    total = _box(weight, radius)
    gain, offset = (_box(weight * part, radius) / total for part in (gain, offset))
    return LocalAffine(gain.astype(np.float32), offset.astype(np.float32))


def mean(one: LocalAffine, other: LocalAffine) -> LocalAffine:
    """Average two maps of one picture; where their sizes differ, the smaller is enlarged bilinearly.

    Args:
        one: (h, w, 3).
        other: Of the same shape of picture, not smaller in one direction and larger in the other.
    """
    height, width = max(one.gain.shape[:2], other.gain.shape[:2])

    def of(a: Map, b: Map) -> Map:
        wide = (cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in (a, b))
        return np.asarray(sum(wide) / np.float32(2), np.float32).reshape(height, width, -1)

    return LocalAffine(of(one.gain, other.gain), of(one.offset, other.offset))


def apply(
    pixels: Pixels, affine: LocalAffine, *, strength: float = 1.0, strip_rows: int = _STRIP_ROWS
) -> Pixels:
    """Apply a low-resolution affine map to full-resolution pixels.

    Gain and offset are enlarged bilinearly (pixel centres at half integers, as `cv2.INTER_AREA` shrinks).
    Memory beyond input and output does not grow with height; the result does not depend on ``strip_rows``.

    Args:
        pixels: (H, W, 3) uint8, uint16, or float32 in [0, 1].
        affine: The map, usually smaller than the pixels.
        strength: 1 for the whole effect, 0 for the input itself.
        strip_rows: Rows to enlarge the maps for at a time.

    Returns:
        Dehazed pixels of the same shape and type, clamped to the type's range and rounded.
    """
    height, width = pixels.shape[:2]
    depth, peak = _DEPTHS[pixels.dtype.name], white(pixels.dtype)
    gain = np.ascontiguousarray(1 + np.float32(strength) * (affine.gain - 1))
    offset = np.ascontiguousarray(np.float32(strength * peak) * affine.offset)
    rows, fractions = _vertical(height, gain.shape[0])
    source = np.ascontiguousarray(pixels).reshape(height, width * 3)
    target = np.empty_like(source)
    for start in range(0, height, strip_rows):
        stop = min(start + strip_rows, height)
        first = int(rows[start])
        last = min(int(rows[stop - 1]) + 2, gain.shape[0])
        wide_gain, wide_offset = (_widen(part[first:last], width) for part in (gain, offset))
        for begin, end in _blocks(rows, start, stop, width * 3):
            row, t = int(rows[begin]) - first, fractions[begin:end]
            product = cv2.multiply(source[begin:end], _lerp(wide_gain, row, t), dtype=cv2.CV_32F)
            cv2.add(product, _lerp(wide_offset, row, t), dst=target[begin:end], dtype=depth)
        if depth == cv2.CV_32F:
            np.clip(target[start:stop], 0, 1, out=target[start:stop])
    return target.reshape(pixels.shape)


def _box(x: npt.NDArray[np.float64], radius: int) -> npt.NDArray[np.float64]:
    side = 2 * radius + 1
    mean: npt.NDArray[np.float64] = cv2.boxFilter(x, -1, (side, side), borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return mean


def _vertical(height: int, low: int) -> tuple[npt.NDArray[np.int64], Map]:
    """For each of ``height`` rows: the low-resolution row above its centre, and how far below that it is."""
    centre = np.clip((np.arange(height) + 0.5) * (low / height) - 0.5, 0, low - 1)
    row = np.minimum(centre.astype(np.int64), max(low - 2, 0))
    return row, (centre - row).astype(np.float32)


def _widen(part: Map, width: int) -> Map:
    """Enlarge rows sideways only: (r, w, 3) -> (r, 3 width)."""
    wide: Map = cv2.resize(part, (width, len(part)), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return wide.reshape(len(part), width * 3)


def _blocks(rows: npt.NDArray[np.int64], start: int, stop: int, values: int) -> Iterator[tuple[int, int]]:
    """Cut rows ``start:stop`` into runs that share their low-resolution row and fit the cache."""
    limit = max(_BLOCK_VALUES // values, 1)
    while start < stop:
        run = int(np.searchsorted(rows, rows[start], side="right"))
        end = min(run, start + limit, stop)
        yield start, end
        start = end


def _lerp(wide: Map, row: int, t: Map) -> Map:
    """Interpolate between one row and the next at the fractions t (n,) -> (n, 3 width)."""
    above = wide[row]
    below = wide[min(row + 1, len(wide) - 1)]
    result: Map = np.multiply(t[:, None], below - above)
    result += above
    return result
