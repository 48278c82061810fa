"""Steady over time: smooth what the network says about haze, not the picture.

The network looks at each frame by itself, so its local affine coefficients tremble though the haze does not.
They are averaged over time, each point along its motion, and only as far as the picture there is still the
same: averaging the frames themselves would blur, averaging coefficients of other things would ghost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dehaze.motion import Gray, Map, gray, inside, move, optical_flow
from dehaze.upsample import LocalAffine

DEFAULT_SECONDS = 0.5
"""Time constant of the average."""

_TOLERANCE = 0.03
"""Change of the guide, of 1, at which the past counts for 1/e."""

_CUT = 0.35
"""Mean trust in the past below which the frame is taken for the first of a new scene."""

_FLOW_SIDE = 320


@dataclass(frozen=True)
class _Past:
    guide: Map
    affine: LocalAffine
    age: Map
    time: float


class Steadier:
    """Averages the coefficients of successive frames.

    Each frame's coefficients count by exp(-age / seconds); where fewer frames are known than that, all count
    alike. The past is moved along the optical flow, and counts less where the moved guide differs from the
    new one; at a scene cut it does not count at all.

    Args:
        seconds: Time constant; 0 leaves the coefficients as they are.
    """

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        self._seconds = seconds
        self._past: _Past | None = None

    def __call__(self, affine: LocalAffine, guide: Map, time: float) -> LocalAffine:
        """The steadied coefficients of the next frame.

        Args:
            affine: What the network says of this frame, (h, w, 3) each.
            guide: (h, w, 3) the hazy frame at the same size, in [0, 1].
            time: When the frame is shown, in seconds.
        """
        if self._seconds <= 0:
            return affine
        past = self._past
        if past is None or past.guide.shape != guide.shape:
            return self._begin(affine, guide, time)
        moved = _follow(past, guide)
        trust = _trust(moved.guide, guide)
        if float(trust.mean()) < _CUT:
            return self._begin(affine, guide, time)
        fade = math.exp(-max(time - past.time, 0) / self._seconds)
        # A running mean of all that is known, until it is as long as the fading one: 1 + fade + fade^2 + ...
        known = moved.age * fade * trust
        weight = (known / (known + 1))[..., None]
        mixed = LocalAffine(
            affine.gain + weight * (moved.affine.gain - affine.gain),
            affine.offset + weight * (moved.affine.offset - affine.offset),
        )
        self._past = _Past(guide, mixed, known + 1, time)
        return mixed

    def _begin(self, affine: LocalAffine, guide: Map, time: float) -> LocalAffine:
        self._past = _Past(guide, affine, np.ones(guide.shape[:2], np.float32), time)
        return affine


def _follow(past: _Past, guide: Map) -> _Past:
    """The past as it would look if nothing but motion had happened since."""
    flow = _flow(past.guide, guide)
    return _Past(
        move(past.guide, flow),
        LocalAffine(move(past.affine.gain, flow), move(past.affine.offset, flow)),
        move(past.age, flow) * inside(flow),
        past.time,
    )


def _flow(before: Map, after: Map) -> Map:
    height, width = after.shape[:2]
    scale = min(1.0, _FLOW_SIDE / max(height, width))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    flow = optical_flow(_reduced(before, small), _reduced(after, small))
    if scale == 1:
        return flow
    factors = np.array([width / small[0], height / small[1]], np.float32)
    return cv2.resize(flow, (width, height)) * factors


def _reduced(guide: Map, size: tuple[int, int]) -> Gray:
    return gray(cv2.resize(guide, size, interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]


def _trust(moved: Map, guide: Map) -> Map:
    """How far the past can be believed, (h, w) in [0, 1]: 1 where nothing but motion happened."""
    change = np.abs(moved - guide).max(axis=2)
    trust: Map = np.exp(-np.square(change / np.float32(_TOLERANCE)))
    return trust
