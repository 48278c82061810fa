"""Run a picture through a function tile by tile, with blended overlaps, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

MIN_TILE = 64
_MARGIN = 16
"""Pixels at a tile's inner border that are thrown away: there the network saw padding, not the picture."""

Map = npt.NDArray[np.float32]
Span = tuple[int, int]


def tiled(
    run: Callable[[npt.NDArray[Any]], Map], pixels: npt.NDArray[Any], tile: int
) -> Iterator[tuple[int, Map]]:
    """Run tiles of a picture and join their answers into finished bands of rows.

    Equal to running the whole where an answer depends on no more than 16 pixels around it.

    Args:
        run: Answers a tile (h, w, 3) with (h, w, 3) float32.
        pixels: (H, W, 3), of any type that ``run`` takes.
        tile: Side of a tile in pixels, at least `MIN_TILE`.

    Yields:
        The first row of each band and the band (n, W, 3), top to bottom.
    """
    height, width = pixels.shape[:2]
    down, across = _spans(height, tile), _spans(width, tile)
    fade_down, fade_across = _fades(down, height), _fades(across, width)
    carried: Map = np.zeros((0, width, 3), np.float32)
    for i, ((top, bottom), fade) in enumerate(zip(down, fade_down, strict=True)):
        band = np.zeros((bottom - top, width, 3), np.float32)
        band[: len(carried)] = carried
        for (left, right), side in zip(across, fade_across, strict=True):
            answer = run(pixels[top:bottom, left:right])
            band[:, left:right] += answer * (fade[:, None] * side[None, :])[..., None]
        finished = (down[i + 1][0] if i + 1 < len(down) else bottom) - top
        yield top, band[:finished]
        carried = band[finished:]


def _spans(size: int, tile: int) -> list[Span]:
    """Cover 0..size by spans of at most ``tile`` that overlap by 48 pixels or more."""
    if size <= tile:
        return [(0, size)]
    overlap = min(tile // 4 * 3, 64)
    count = -(-(size - overlap) // (tile - overlap))
    starts = [round(i * (size - tile) / (count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def _fades(spans: list[Span], size: int) -> list[Map]:
    """One weight for each position of each span; at every position they sum to 1."""
    weights = [_ramp(span, size) for span in spans]
    total = np.zeros(size)
    for (start, stop), weight in zip(spans, weights, strict=True):
        total[start:stop] += weight
    return [
        (weight / total[start:stop]).astype(np.float32)
        for (start, stop), weight in zip(spans, weights, strict=True)
    ]


def _ramp(span: Span, size: int) -> npt.NDArray[np.float64]:
    """Zero in the margin of inner borders, then rising by one a pixel up to half an overlap."""
    start, stop = span
    position = np.arange(stop - start) + 0.5
    before = position - _MARGIN if start > 0 else np.full_like(position, np.inf)
    after = position[::-1] - _MARGIN if stop < size else np.full_like(position, np.inf)
    return np.clip(np.minimum(before, after), 0, 32)
