"""Where things were a frame ago: dense optical flow, and pictures moved along it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]
Gray = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_MIN_SIDE = 16


def optical_flow(before: Gray, after: Gray) -> Map:
    """Where each pixel of ``after`` was in ``before``: (h, w) uint8 grays -> (h, w, 2) in pixels, x first.

    Dense inverse search (Kroeger et al., 2016); zero for pictures under 16 pixels.
    """
    if min(after.shape) < _MIN_SIDE:
        return np.zeros((*after.shape, 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = np.zeros((*after.shape, 2), np.float32)
    search.calc(after, before, flow)
    return flow


def move(picture: Map, flow: Map) -> Map:
    """Fetch each pixel from where the flow says it was: (h, w) or (h, w, c) -> the same shape."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    moved: Map = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return moved


def inside(flow: Map) -> Mask:
    """Which pixels come from within the picture."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width)
    y = flow[..., 1] + np.arange(height)[:, None]
    within: Mask = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return within


def gray(picture: Map) -> Gray:
    """Luma of (h, w, 3) RGB in [0, 1] as 8-bit levels (h, w)."""
    luma: Map = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)  # type: ignore[assignment]
    return np.rint(np.clip(luma, 0, 1) * 255).astype(np.uint8)
