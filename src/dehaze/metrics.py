"""PSNR and SSIM by one convention, equal to scikit-image's to 1e-4.

RGB, each picture on its own and then averaged, answers clamped and rounded to 8 bits. SSIM follows Wang et
al. (2004): Gaussian window, sigma 1.5, 11 taps, border of 5 pixels left out, mean over channels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

CONVENTION = (
    "RGB, per image then averaged, answers clamped and rounded to 8 bits; SSIM: Gaussian sigma 1.5, 11 x 11"
)
"""Printed beside every figure."""

PSNR_CAP = 100.0
"""Where means are taken, a picture equal to its truth counts as this many dB."""

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2

Pixels = npt.NDArray[np.uint8]


def psnr(answer: Pixels, truth: Pixels) -> float:
    """Peak signal-to-noise ratio in dB of two (H, W, C) uint8 pictures; infinite if they are equal.

    Raises:
        ValueError: The shapes differ.
    """
    _same_shape(answer, truth)
    error = float(np.mean((answer.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(answer: Pixels, truth: Pixels) -> float:
    """Structural similarity of two (H, W) or (H, W, C) uint8 pictures of at least 11 x 11 pixels.

    Raises:
        ValueError: The shapes differ or a side is under 11 pixels.
    """
    _same_shape(answer, truth)
    if min(answer.shape[:2]) < 2 * _RADIUS + 1:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got {answer.shape[1]} x {answer.shape[0]}")
    x, y = answer.astype(np.float64) / 255, truth.astype(np.float64) / 255
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    )
    return float(similarity[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())


def luma(pixels: Pixels) -> Pixels:
    """Y of BT.601 in studio range, the super-resolution literature's: (H, W, 3) -> (H, W, 1) uint8."""
    y = 16 + pixels.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255
    rounded: Pixels = y.round().astype(np.uint8)[..., None]
    return rounded


def _blur(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = 2 * _RADIUS + 1
    blurred = cv2.GaussianBlur(x, (size, size), _SIGMA, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float64).reshape(x.shape)


def _same_shape(answer: Pixels, truth: Pixels) -> None:
    if answer.shape != truth.shape:
        raise ValueError(f"pictures differ in shape: {answer.shape} and {truth.shape}")
