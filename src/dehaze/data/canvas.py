"""A small software renderer: coherent noise, a canvas with a depth buffer, textured faces and trees.

Distances are in metres; x points right, y up, z away from the camera, which looks along z from (0, eye, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.floating]

NEAR = 0.6
"""Nothing closer than this is painted."""

_TABLE = 256


class Noise:
    """Value noise over the plane that never ends, in [-1, 1].

    Args:
        rng: What the noise is drawn from.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._table = rng.uniform(-1, 1, (_TABLE, _TABLE)).astype(np.float32)

    def __call__(self, x: Rows, y: Rows) -> Floats:
        """One octave, with features about 1 in size; x and y have one shape."""
        left, top = np.floor(x), np.floor(y)
        i, j = left.astype(np.int64), top.astype(np.int64)
        u, v = (_ease((a - b).astype(np.float32)) for a, b in ((x, left), (y, top)))
        mask = _TABLE - 1
        i0, i1, j0, j1 = i & mask, (i + 1) & mask, j & mask, (j + 1) & mask
        table = self._table
        above = table[j0, i0] * (1 - u) + table[j0, i1] * u
        below = table[j1, i0] * (1 - u) + table[j1, i1] * u
        return np.asarray(above * (1 - v) + below * v, np.float32)

    def fractal(self, x: Rows, y: Rows, octaves: int, footprint: Rows | float = 0.0) -> Floats:
        """Octaves of halving size and strength.

        Args:
            x: Where.
            y: Where.
            octaves: How many.
            footprint: Size of a pixel in units of x and y: octaves finer than it fade out.
        """
        total = np.zeros(np.broadcast(x, y).shape, np.float32)
        for octave in range(octaves):
            scale = 2.0**octave
            seen = np.clip(2 - 4 * np.asarray(footprint) * scale, 0, 1)
            if not seen.any():
                break
            # Shifted so that the octaves' lattices do not meet at the origin.
            total += 0.5**octave * seen * self(x * scale + 17.3 * octave, y * scale + 41.7 * octave)
        return total


def _ease(t: Floats) -> Floats:
    return t * t * (3 - 2 * t)


def smoothstep(low: float, high: float, x: Rows) -> Floats:
    """0 up to `low`, 1 from `high` on, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def mix(a: Rows | tuple[float, ...], b: Rows | tuple[float, ...], share: Rows) -> Floats:
    """Colours from a (share 0) to b (share 1); `share` lacks the colour axis."""
    share = share[..., None]
    return np.asarray(np.asarray(a) * (1 - share) + np.asarray(b) * share, np.float32)


@dataclass(frozen=True)
class View:
    """A camera that looks along z, its picture shifted rather than tilted.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        focal: Focal length in pixels.
        horizon: Row of the horizon in pixels.
        eye: Height of the camera in metres.
    """

    width: int
    height: int
    focal: float
    horizon: float
    eye: float

    @property
    def centre(self) -> float:
        """Column of the direction of sight."""
        return self.width / 2

    def project(self, x: Rows | float, y: Rows | float, z: Rows | float) -> tuple[Floats, Floats]:
        """Column and row of points."""
        z = np.maximum(z, 1e-3)
        column = self.centre + self.focal * np.asarray(x) / z
        row = self.horizon + self.focal * (self.eye - np.asarray(y)) / z
        return np.asarray(column, np.float32), np.asarray(row, np.float32)


class Canvas:
    """A picture in the making: colours in [0, 1] and each pixel's z.

    Args:
        view: The camera.
        far: z of what nothing is painted over.
    """

    def __init__(self, view: View, far: float) -> None:
        self.view = view
        self.colour: Floats = np.zeros((view.height, view.width, 3), np.float32)
        self.z: Floats = np.full((view.height, view.width), far, np.float32)

    def distance(self) -> Floats:
        """(H, W) metres from the camera along each line of sight."""
        view = self.view
        x = (np.arange(view.width, dtype=np.float32) + 0.5 - view.centre) / view.focal
        y = (np.arange(view.height, dtype=np.float32) + 0.5 - view.horizon) / view.focal
        return np.asarray(self.z * np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2), np.float32)

    def put(self, top: int, left: int, colour: Floats, alpha: Floats, z: Rows | float) -> None:
        """Paint a patch where it is nearer than what is there.

        Args:
            top: Row of its upper left corner; may lie outside.
            left: Column of it.
            colour: (h, w, 3).
            alpha: (h, w) in [0, 1].
            z: (h, w), or one for all.
        """
        height, width = alpha.shape
        y0, x0 = max(0, -top), max(0, -left)
        y1, x1 = min(height, self.view.height - top), min(width, self.view.width - left)
        if y0 >= y1 or x0 >= x1:
            return
        here = np.s_[top + y0 : top + y1, left + x0 : left + x1]
        part = np.s_[y0:y1, x0:x1]
        z = np.broadcast_to(np.asarray(z, np.float32), alpha.shape)[part]
        cover = alpha[part] * (z < self.z[here])
        self.colour[here] += (colour[part] - self.colour[here]) * cover[..., None]
        self.z[here] = np.where(cover > 0.5, z, self.z[here])

    def sprite(self, sprite: Floats, x: float, y: float, z: float, size: float) -> None:
        """Stand a picture (h, w, 4) upright in the scene: foot at (x, y, z), `size` metres high."""
        if z < NEAR:
            return
        high = round(self.view.focal * size / z)
        wide = round(high * sprite.shape[1] / sprite.shape[0])
        column, row = self.view.project(x, y, z)
        left, top = round(float(column) - wide / 2), round(float(row)) - high
        if high < 2 or wide < 1 or left > self.view.width or left + wide < 0 or high > 6 * self.view.height:
            return
        how = cv2.INTER_AREA if high < sprite.shape[0] else cv2.INTER_LINEAR
        patch = np.asarray(cv2.resize(sprite, (wide, high), interpolation=how), np.float32)
        alpha = patch[..., 3]
        # Sprites hold colour times alpha, so that shrinking them mixes no background in.
        colour = np.asarray(patch[..., :3] / np.maximum(alpha, 1e-3)[..., None], np.float32)
        self.put(top, left, colour, alpha, z)

    def face(self, corners: Rows, texture: Floats, shade: float = 1.0) -> None:
        """Paint a flat quadrilateral.

        Args:
            corners: (4, 3) points: upper left, upper right, lower right, lower left.
            texture: (h, w, 3) stretched over it.
            shade: Light that falls on it.
        """
        corners = np.asarray(corners, np.float64)
        if (corners[:, 2] < NEAR).any():
            return
        columns, rows = self.view.project(*corners.T)
        left, top = int(max(0, np.floor(columns.min()))), int(max(0, np.floor(rows.min())))
        right = int(min(self.view.width, np.ceil(columns.max()) + 1))
        bottom = int(min(self.view.height, np.ceil(rows.max()) + 1))
        if left >= right or top >= bottom:
            return
        where = np.stack((columns - left, rows - top), 1).astype(np.float32)
        high, wide = texture.shape[:2]
        source = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, where)
        size = (right - left, bottom - top)
        how = cv2.INTER_LINEAR
        colour = cv2.warpPerspective(
            texture * shade, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE
        )
        alpha = np.zeros(size[::-1], np.uint8)
        points = np.round(where * 16).astype(np.int32)
        cv2.fillConvexPoly(alpha, points, 255, lineType=cv2.LINE_AA, shift=4)
        z = _plane_depth(self.view, corners, np.s_[top:bottom, left:right])
        self.put(top, left, np.asarray(colour, np.float32), (alpha / np.float32(255)).astype(np.float32), z)


def _plane_depth(view: View, corners: Rows, window: tuple[slice, slice]) -> Floats:
    """z of a plane over a window of the picture: 1 / z is linear in row and column."""
    columns, rows = view.project(*corners.T)
    design = np.stack((columns, rows, np.ones_like(rows)), 1)
    a, b, c = np.linalg.lstsq(design, 1 / corners[:, 2], rcond=None)[0]
    y, x = np.mgrid[window].astype(np.float32)
    inverse = a * (x + 0.5) + b * (y + 0.5) + c
    low, high = corners[:, 2].min(), corners[:, 2].max()
    return np.asarray(1 / np.clip(inverse, 1 / high, 1 / low), np.float32)


def conifer(rng: np.random.Generator, light: float, size: int = 360) -> Floats:
    """A spruce: tiers of drooping twigs, brighter on the sunny side.

    Args:
        rng: Source of randomness.
        light: Side the sun is on, -1 left to 1 right.
        size: Height in pixels.

    Returns:
        (size, size / 2, 4) colour times alpha, alpha.
    """
    width = size // 2
    picture = np.zeros((size, width, 4), np.float32)
    trunk = (0.17, 0.13, 0.10, 1.0)
    cv2.line(picture, (width // 2, size), (width // 2, size // 8), trunk, max(2, size // 60), cv2.LINE_AA)
    green = np.array([0.11, 0.22, 0.13]) * rng.uniform(0.8, 1.2) + rng.uniform(-0.02, 0.03, 3)
    reach = width * rng.uniform(0.34, 0.46)
    for _ in range(min(5 * size, size * size // 90)):
        t = rng.beta(1.3, 1.0)
        side = rng.uniform(-1, 1)
        root_y = size * (0.02 + 0.90 * t)
        tier = 1 + 0.16 * np.sin(t * 42 + rng.normal(0, 0.4))
        length = reach * (0.06 + 0.94 * t) * tier * abs(side) ** 0.6
        x = width / 2 + np.sign(side) * length * rng.uniform(0.0, 1.0)
        y = root_y + 0.32 * abs(x - width / 2) + rng.normal(0, size / 120)
        droop = size / 38 * rng.uniform(0.5, 1.3)
        lit = (
            0.62 + 0.55 * light * (x - width / 2) / (reach + 1) + 0.25 * np.sin(t * 42) + rng.normal(0, 0.16)
        )
        colour = np.clip(green * np.clip(lit, 0.25, 1.7), 0, 1)
        tip = (round(x + np.sign(side) * droop * 0.9), round(y + droop))
        cv2.line(
            picture, (round(x), round(y)), tip, (*colour.tolist(), 1.0), 1 + int(size > 400), cv2.LINE_AA
        )
    return picture


def broadleaf(rng: np.random.Generator, light: float, size: int = 360) -> Floats:
    """A round-crowned tree: clumps of leaves over a branching trunk; see `conifer`."""
    width = int(size * 0.9)
    picture = np.zeros((size, width, 4), np.float32)
    bark = tuple(float(v) for v in np.array([0.24, 0.19, 0.15]) * rng.uniform(0.7, 1.1))
    foot, fork = np.array([width / 2, size]), np.array([width / 2 + rng.normal(0, 4), size * 0.68])
    cv2.line(picture, _point(foot), _point(fork), (*bark, 1.0), max(2, size // 40), cv2.LINE_AA)
    clumps = []
    for _ in range(int(rng.integers(14, 22))):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 1.0) ** 0.6
        spot = np.array([width / 2, size * 0.36]) + radius * np.array(
            [width * 0.32 * np.cos(angle), size * 0.24 * np.sin(angle)]
        )
        clumps.append((spot, size * rng.uniform(0.07, 0.13)))
        cv2.line(picture, _point(fork), _point(spot), (*bark, 1.0), max(1, size // 90), cv2.LINE_AA)
    hue = rng.choice(3, p=[0.6, 0.25, 0.15])
    leaf = np.array([[0.24, 0.36, 0.12], [0.36, 0.40, 0.13], [0.50, 0.34, 0.12]])[hue] * rng.uniform(
        0.8, 1.15
    )
    for order in range(3):
        for spot, radius in clumps:
            for _ in range(size // 4):
                angle, away = rng.uniform(0, 2 * np.pi), rng.beta(1.6, 1.6)
                offset = away * np.array([np.cos(angle), np.sin(angle)])
                x, y = spot + radius * offset * 1.15
                lit = (
                    0.55 + 0.2 * order - 0.28 * offset[1] + 0.25 * light * offset[0] - 0.5 * (y / size - 0.35)
                )
                colour = np.clip(leaf * np.clip(lit + rng.normal(0, 0.14), 0.25, 1.8), 0, 1)
                dot = max(1, round(size / 190 * rng.uniform(0.6, 1.6)))
                cv2.circle(picture, (round(x), round(y)), dot, (*colour.tolist(), 1.0), -1, cv2.LINE_AA)
    return picture


def _point(p: Rows) -> tuple[int, int]:
    return round(float(p[0])), round(float(p[1]))
