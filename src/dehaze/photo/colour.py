"""From a photo's own colour space to sRGB, which the networks were trained on, and back."""

from __future__ import annotations

import io
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from dehaze.photo.icc import SRGB, MatrixProfile, colour_space, linear_to_srgb, parse_matrix, srgb_to_linear

Colours = npt.NDArray[np.float32]

_NOTICEABLE = 1 / 255
"""A profile whose colours differ from sRGB's by less than this everywhere counts as sRGB."""


class ColourTransform(Protocol):
    """A colour space that is not sRGB."""

    def to_srgb(self, colours: Colours, *, clip: bool = True) -> Colours:
        """Convert (h, w, 3) float32 in [0, 1] of this space to sRGB.

        Args:
            colours: In the file's colour space.
            clip: Limit the answer to [0, 1]. Without it colours that sRGB cannot show lie outside, where
                the transform allows it, and come back whole through `from_srgb`.
        """

    def from_srgb(self, colours: Colours) -> Colours:
        """Convert (h, w, 3) float32 sRGB, best in [0, 1], to this space, in [0, 1]."""


class MatrixTransform:
    """The exact transform for profiles of tone curves and a matrix; relative colorimetric."""

    def __init__(self, profile: MatrixProfile) -> None:
        self._curves = profile.curves
        matrix = np.eye(3)
        if profile.matrix is not None:
            matrix = np.linalg.inv(np.array(SRGB).T) @ profile.matrix
            # Profiles round D50 differently; white must stay white, or every gray gets a tint.
            matrix = matrix / matrix.sum(axis=1, keepdims=True)
        self._matrix: npt.NDArray[np.float64] = matrix

    def to_srgb(self, colours: Colours, *, clip: bool = True) -> Colours:
        """See `ColourTransform`."""
        grid = np.linspace(0, 1, len(self._curves[0]))
        linear = self._each_channel(colours, [(grid, curve) for curve in self._curves])
        linear = linear @ self._matrix.T
        srgb = linear_to_srgb(linear.clip(0, 1) if clip else linear)
        return srgb.astype(np.float32)

    def from_srgb(self, colours: Colours) -> Colours:
        """See `ColourTransform`."""
        grid = np.linspace(0, 1, len(self._curves[0]))
        linear = srgb_to_linear(colours.astype(np.float64)) @ self._inverse.T
        return self._each_channel(linear, [(curve, grid) for curve in self._curves]).astype(np.float32)

    @cached_property
    def _inverse(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self._matrix), np.float64)

    @staticmethod
    def _each_channel(
        colours: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        curves: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    ) -> npt.NDArray[np.float64]:
        channels = [np.interp(colours[..., i], *curve) for i, curve in enumerate(curves)]
        return np.stack(channels, axis=-1)


class TableTransform:
    """The transform for profiles made of tables, by LittleCMS at 8 bits a channel."""

    def __init__(self, icc: bytes) -> None:
        profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        intent, exact = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.NOOPTIMIZE
        self._to = ImageCms.buildTransform(profile, srgb, "RGB", "RGB", intent, exact)
        self._from = ImageCms.buildTransform(srgb, profile, "RGB", "RGB", intent, exact)

    def to_srgb(self, colours: Colours, *, clip: bool = True) -> Colours:
        """See `ColourTransform`; the answer is always within [0, 1]."""
        del clip
        return self._apply(self._to, colours)

    def from_srgb(self, colours: Colours) -> Colours:
        """See `ColourTransform`."""
        return self._apply(self._from, colours)

    @staticmethod
    def _apply(transform: ImageCms.ImageCmsTransform, colours: Colours) -> Colours:
        levels = np.rint(colours.clip(0, 1) * 255).astype(np.uint8)
        answer = ImageCms.applyTransform(Image.fromarray(levels), transform)
        assert answer is not None
        return np.asarray(answer, np.float32) / np.float32(255)


def transform_for(icc: bytes) -> ColourTransform | None:
    """Make the transform of an RGB or gray profile; None without a profile or if it is sRGB in effect.

    Raises:
        ValueError: The profile is damaged or of a kind that holds no RGB or gray colours.
    """
    if not icc:
        return None
    profile = parse_matrix(icc)
    if profile is not None:
        transform: ColourTransform = MatrixTransform(profile)
    elif colour_space(icc) == "RGB":
        try:
            transform = TableTransform(icc)
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError(f"damaged ICC profile: {error}") from error
    else:
        raise ValueError(f"an ICC profile for {colour_space(icc) or 'no known'} colours")
    return None if _is_srgb(transform, gray=colour_space(icc) == "GRAY") else transform


def to_srgb_picture(image: Image.Image, icc: bytes) -> tuple[Image.Image, bool]:
    """Convert a CMYK or Lab picture to sRGB by its profile; without a usable one, by Pillow's simple rule.

    Returns:
        The picture, and whether it was converted by its profile (Lab needs none: it counts as one).
    """
    if image.mode != "LAB" and colour_space(icc) != image.mode:
        return image.convert("RGB"), False
    try:
        lab = image.mode == "LAB"
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB") if lab else io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
            flags=ImageCms.Flags.HIGHRESPRECALC,
        )
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB"), False
    assert converted is not None
    return converted, True


def _is_srgb(transform: ColourTransform, *, gray: bool) -> bool:
    steps = np.linspace(0, 1, 9, dtype=np.float32)
    if gray:
        colours = np.repeat(steps[:, None, None], 3, axis=2)
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 1, 3)
    return bool(np.abs(transform.to_srgb(colours) - colours).max() < _NOTICEABLE)
