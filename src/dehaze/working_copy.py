"""Working copies: a picture reduced to the size at which a network looks at it.

The mean of a cell's pixels is what reducing usually gives. But haze changes dark things most, so the least of
each channel in a cell tells most of the haze before it (as the dark channel of He et al., "Single Image Haze
Removal Using Dark Channel Prior", 2011), and the mean hides it among its neighbours. Either way eq. 1 holds
in the copy wherever the transmission does not change within a cell.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dehaze.limits import Reduction
from dehaze.upsample import Map, Pixels, white

PLACES = 4
"""A cell is looked at in 4 x 4 places for its minimum; where it has more pixels, in means of some of them."""


def reduce(pixels: Pixels, height: int, width: int, reduction: Reduction = "mean") -> Map:
    """Make a working copy.

    Args:
        pixels: (H, W, 3) uint8, uint16, or float32 in [0, 1].
        height: Rows of the copy, at most H.
        width: Columns of the copy, at most W.
        reduction: What stands for a cell: the ``mean`` of its pixels, or each channel's ``minimum``.

    Returns:
        (height, width, 3) in [0, 1].
    """
    if reduction == "mean":
        return shrink(pixels, height, width)
    seen = _laid_out(places(pixels, height, width), height, width)
    rows = seen.reshape(height, PLACES, -1).min(axis=1)
    least: Map = rows.reshape(height, width, PLACES, 3).min(axis=2)
    return least


def shrink(pixels: Pixels, height: int, width: int) -> Map:
    """Average pixels down, as `cv2.INTER_AREA` does but without rounding to integers.

    Rows are read once, a few at a time, so no float copy of the whole picture is ever made.

    Args:
        pixels: (H, W, C) uint8, uint16, or float32 in [0, 1]; C up to 4.
        height: Rows of the copy, at most H.
        width: Columns of the copy, at most W.

    Returns:
        (height, width, C) in [0, 1].
    """
    rows, columns, channels = pixels.shape
    source = pixels.reshape(rows, columns * channels)
    step = rows / height
    narrow = np.empty((height, columns * channels), np.float32)
    for i in range(height):
        begin, end = i * step, (i + 1) * step
        first, last = int(begin), min(int(np.ceil(end - 1e-6)), rows)
        share = np.ones(last - first, np.float32)
        share[0] -= begin - first
        share[-1] -= max(last - end, 0)
        np.matmul(share, source[first:last].astype(np.float32, copy=False), out=narrow[i])
    narrow *= np.float32(1 / (step * white(pixels.dtype)))
    size = (width, height)
    copy = cv2.resize(narrow.reshape(height, columns, channels), size, interpolation=cv2.INTER_AREA)
    return np.asarray(copy, np.float32).reshape(height, width, channels)


def places(pixels: Pixels, height: int, width: int) -> Map:
    """Average pixels down to the places at which the cells of a working copy are looked at.

    Args:
        pixels: (H, W, C) uint8, uint16, or float32 in [0, 1]; C up to 4.
        height: Rows of cells, at most H.
        width: Columns of cells, at most W.

    Returns:
        (rows, columns, C) in [0, 1], at most `PLACES` times as many of either as there are of cells.
    """
    rows, columns = min(PLACES * height, pixels.shape[0]), min(PLACES * width, pixels.shape[1])
    if (rows, columns) == pixels.shape[:2]:
        return np.asarray(pixels, np.float32) / np.float32(white(pixels.dtype))
    return shrink(pixels, rows, columns)


def cells(seen: Map, height: int, width: int) -> Map:
    """Sort places by the cell they belong to.

    Args:
        seen: (rows, columns, C): see `places`.
        height: Rows of cells.
        width: Columns of cells.

    Returns:
        (height, width, places, C), `PLACES` squared places to a cell.
    """
    laid = _laid_out(seen, height, width).reshape(height, PLACES, width, PLACES, -1)
    return laid.transpose(0, 2, 1, 3, 4).reshape(height, width, PLACES**2, -1)


def _laid_out(seen: Map, height: int, width: int) -> Map:
    """`PLACES` rows and columns to a cell: where there are fewer, the nearest stand for those missing."""
    rows, columns = PLACES * height, PLACES * width
    if seen.shape[:2] == (rows, columns):
        return seen
    return seen[_nearest(seen.shape[0], rows)][:, _nearest(seen.shape[1], columns)]


def _nearest(have: int, want: int) -> npt.NDArray[np.int64]:
    """For each of `want` places the one of `have` pixels that its centre lies in."""
    return (2 * np.arange(want) + 1) * have // (2 * want)
