"""Dark channel prior with guided filter: the classical reference that needs no training.

He, Sun, Tang, "Single Image Haze Removal Using Dark Channel Prior" (CVPR 2009), with the soft matting of the
transmission replaced by He, Sun, Tang, "Guided Image Filtering" (TPAMI 2013), as its authors suggest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
"""Intensities, float32 or float64."""


@dataclass(frozen=True)
class DarkChannel:
    """The method with its published constants; call it with hazy (H, W, 3) uint8 RGB.

    Attributes:
        patch: Side of the window of the dark channel, pixels.
        omega: Share of the haze removed; the rest keeps distance visible.
        floor: Smallest transmission divided by.
        brightest: Share of pixels, most opaque first, among which the airlight is looked for.
        radius: Radius of the guided filter, pixels.
        eps: Regularisation of the guided filter, for intensities in [0, 1].
    """

    patch: int = 15
    omega: float = 0.95
    floor: float = 0.1
    brightest: float = 0.001
    radius: int = 60
    eps: float = 1e-4

    def __call__(self, pixels: Pixels) -> Pixels:
        """Hazy (H, W, 3) uint8 RGB -> clear, same shape."""
        hazy = pixels.astype(np.float32) / np.float32(255)
        airlight = self._airlight(hazy)
        transmission = 1 - self.omega * self._dark(hazy / airlight)
        guide = hazy @ np.array([0.299, 0.587, 0.114], np.float32)
        transmission = guided_filter(guide, transmission, self.radius, self.eps)
        clear = (hazy - airlight) / np.maximum(transmission, self.floor)[..., None] + airlight
        return (clear.clip(0, 1) * 255).round().astype(np.uint8)

    def _dark(self, image: Array) -> Array:
        """Minimum over channels and window: (H, W, 3) -> (H, W)."""
        window = np.ones((self.patch, self.patch), np.uint8)
        return cv2.erode(image.min(axis=2), window)

    def _airlight(self, hazy: Array) -> Array:
        """Brightest pixel among the most opaque ones (section 4.4 of 2009): (3,), never zero."""
        dark = self._dark(hazy).ravel()
        count = max(1, int(dark.size * self.brightest))
        candidates = hazy.reshape(-1, 3)[np.argpartition(dark, -count)[-count:]]
        brightest: Array = candidates[candidates.sum(axis=1).argmax()]
        return brightest.clip(min=1 / 255)


def guided_filter(guide: Array, source: Array, radius: int, eps: float) -> Array:
    """Smooth ``source`` along the edges of ``guide`` (2013, eq. 5-8); both (H, W) floats."""

    def mean(x: Array) -> Array:
        size = (2 * radius + 1, 2 * radius + 1)
        return cv2.boxFilter(x, cv2.CV_64F, size, borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_source = mean(guide), mean(source)
    variance = mean(guide * guide) - mean_guide**2
    covariance = mean(guide * source) - mean_guide * mean_source
    slope = covariance / (variance + eps)
    offset = mean_source - slope * mean_guide
    return mean(slope) * guide + mean(offset)
