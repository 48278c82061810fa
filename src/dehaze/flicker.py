"""How much a dehazed video flickers: the change of the removed haze along the motion.

What a dehazer takes away is D = I - J, hazy minus dehazed. By the scattering model I = J t + A (1 - t), so
D = (1 - t)(A - J): a property of the scene that moves with it and, as long as things keep their distance,
does not change. Whatever else D does from one frame to the next is the dehazer's own trembling. So the
measure is the mean absolute change of D from frame to frame, in levels of 255, each point followed along the
optical flow of the *input*.

Why not the change of the output itself, the usual warping error (Lai et al., "Learning Blind Video Temporal
Consistency", 2018)? A dehazer raises contrast, and so raises every change that the input has for good
reasons: noise, lighting, motion that the flow misses. That error punishes dehazing; this one takes the
input's own change out, and its reduction to a small copy takes out the noise. The flow depends on the input
alone, so two dehazers of one clip are judged at the same points. Points the flow cannot follow (covered,
uncovered, out of the picture, changed in brightness) and scene cuts are left out.

A dehazer that does nothing has no flicker: read the figure beside PSNR, or compare two runs of one model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dehaze.motion import Map, gray, inside, move, optical_flow

Pixels = npt.NDArray[Any]

_SIDE = 320
"""Long side in pixels of the copies that are compared."""

_SAME = 0.02
"""Change of the input along the motion, of 1, up to which a point counts as the same."""

_RETURN_PIXELS = 1.0
"""How near to its start a point must come when it is followed back."""

_MIN_SHARE = 0.2
"""Share of points that must be followed; below it, the two frames show different scenes."""


def flicker(frames_in: Iterable[Pixels], frames_out: Iterable[Pixels]) -> float:
    """Mean absolute change of the removed haze from frame to frame along the motion.

    Args:
        frames_in: The hazy frames, (H, W, 3) uint8 RGB each.
        frames_out: As many dehazed ones of the same shape.

    Returns:
        Levels of 255 for each frame; 0 is perfectly steady.

    Raises:
        ValueError: Fewer than two frames, numbers or shapes that differ, or no two frames of one scene.
    """
    changes = []
    before: tuple[Map, Map] | None = None
    count = 0
    for hazy, clear in zip(frames_in, frames_out, strict=True):
        if hazy.shape != clear.shape:
            raise ValueError(f"frame {count} is {hazy.shape} before and {clear.shape} after dehazing")
        now = _small(hazy), _small(clear)
        if before is not None:
            change = _change(before, now)
            if change is not None:
                changes.append(change)
        before = now
        count += 1
    if count < 2:
        raise ValueError(f"flicker needs at least two frames, got {count}")
    if not changes:
        raise ValueError("no two successive frames show the same scene")
    return float(np.mean(changes)) * 255


def _small(frame: Pixels) -> Map:
    """A copy in [0, 1] of at most 320 pixels."""
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def _change(before: tuple[Map, Map], now: tuple[Map, Map]) -> float | None:
    """Mean change of the removed haze where the motion is known; None if that is nearly nowhere."""
    flow = optical_flow(gray(before[0]), gray(now[0]))
    back = optical_flow(gray(now[0]), gray(before[0]))
    returned = np.linalg.norm(flow + move(back, flow), axis=2) < _RETURN_PIXELS
    same = np.abs(move(before[0], flow) - now[0]).max(axis=2) < _SAME
    followed = returned & same & inside(flow)
    if followed.mean() < _MIN_SHARE:
        return None
    removed_before = move(before[0] - before[1], flow)
    removed_now = now[0] - now[1]
    return float(np.abs(removed_now - removed_before).mean(axis=2)[followed].mean())
