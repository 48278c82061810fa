"""Plausible depth for clear outdoor photos that come without any, to make haze with.

Not an estimate to measure with: a random draw of what the scene's layout could be. What matters for learning
to remove haze is that depth grows from the foot of the picture to the horizon, that the sky is far, that
objects stand on the ground at one depth, and that depth breaks exactly where the picture has an edge. Our own
construction; a ground plane and upright regions after Hoiem et al., "Automatic photo pop-up" (2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_WORKING_SIDE = 240
"""Long side in pixels at which the layout is worked out; the edges are then refined at full size."""

_SUPERPIXEL = 7
"""Side in working pixels of the cells that grow into superpixels."""


def pseudo_depth(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw a depth map that could belong to an outdoor photo.

    Args:
        photo: (H, W, 3) RGB.
        rng: Source of randomness: each draw gives another layout.

    Returns:
        (H, W) depth, 0 = nearest, 255 = farthest (sky), linear in distance.
    """
    height, width = photo.shape[:2]
    scale = min(1.0, _WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8)

    sky = sky_mask(small)
    labels = _regions(small, detail=float(rng.uniform(0.35, 1.2)))
    nearness = _layout(_describe(labels, small, sky), labels, sky, rng)
    depth = _to_depth(nearness, sky, rng)

    guide = (cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) / np.float32(255)).astype(np.float32)
    depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    radius = max(2, round(max(height, width) / 60))
    for r in (radius, max(1, radius // 2)):
        depth = _guided_filter(guide, depth, r, eps=4e-4)
    return np.clip(np.rint(depth * 255), 0, 255).astype(np.uint8)


def sky_mask(photo: Pixels) -> Mask:
    """Find the sky: smooth, bright or blue, and connected to the upper edge.

    Args:
        photo: (H, W, 3) RGB, at best a few hundred pixels wide.

    Returns:
        (H, W); all false where the upper edge shows no sky.
    """
    height, width = photo.shape[:2]
    lab = _lab(photo)
    lightness, redness, yellowness = (lab[..., i] for i in range(3))
    roughness = cv2.blur(_gradient(lab), (5, 5))
    blue = (yellowness < -6) & (lightness > 25) & (redness < 18)
    pale = (lightness > 62) & (np.hypot(redness, yellowness) < 22)
    smooth = roughness < 9
    candidate = (smooth & (blue | pale)).astype(np.uint8)

    seeds = _touching_top(candidate)
    if seeds.mean() < 0.01 or seeds[: max(1, height // 30)].mean() < 0.1:
        return np.zeros((height, width), bool)
    # Colour of sky drifts towards the horizon: what fits a plane through the seeds' colours belongs to it.
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    design = np.stack((np.ones_like(rows), rows / height, (rows / height) ** 2, columns / width), -1)
    fit, *_ = np.linalg.lstsq(design[seeds], lab[seeds], rcond=None)
    off = np.linalg.norm(lab - design @ fit, axis=-1)
    spread = float(np.median(off[seeds])) + 4
    grown = ((off < 2.5 * spread) | (candidate > 0)) & (roughness < 22)
    grown[int(0.85 * height) :] = False
    opened = cv2.morphologyEx(grown.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    sky = _touching_top(np.asarray(opened, np.uint8))
    # A smooth pale patch down to the foot of the picture is a wall, snow or water.
    if sky[int(0.8 * height) : int(0.85 * height) + 1].mean() > 0.4:
        return np.zeros((height, width), bool)
    clouds = (blue | pale) & _has_below(sky)
    return _touching_top((sky | clouds).astype(np.uint8))


def _touching_top(mask: npt.NDArray[np.uint8]) -> Mask:
    _, labels = cv2.connectedComponents(mask, connectivity=4)
    top = np.unique(labels[:2])
    return np.isin(labels, top[top > 0])


def _has_below(mask: Mask) -> Mask:
    """Pixels that have a pixel of the mask somewhere under them in their column."""
    return np.asarray(np.logical_or.accumulate(mask[::-1])[::-1])


def _lab(photo: Pixels) -> Floats:
    """(H, W, 3) RGB -> CIE L*a*b*, L* in [0, 100]."""
    return np.asarray(cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _gradient(lab: Floats) -> Floats:
    """Strongest change over the three channels, in units of the channel for each pixel: (H, W)."""
    x = np.abs(cv2.Scharr(lab, cv2.CV_32F, 1, 0)).max(-1)
    y = np.abs(cv2.Scharr(lab, cv2.CV_32F, 0, 1)).max(-1)
    return np.asarray(np.hypot(x, y) / 16, np.float32)


def _regions(photo: Pixels, detail: float) -> Labels:
    """Cut a photo into regions along its edges: watershed superpixels, merged while they look alike.

    Args:
        photo: (H, W, 3) RGB.
        detail: Below 1 merges less, above 1 merges more.

    Returns:
        (H, W) region numbers from 0 without gaps.
    """
    smooth = np.asarray(cv2.medianBlur(photo, 5), np.uint8)
    lab = _lab(smooth)
    labels = _superpixels(smooth, _gradient(lab))
    count = int(labels.max()) + 1
    means, sizes = _region_means(labels, lab, count)
    pairs, _ = _neighbours(labels)
    weights = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    return _merge(labels, pairs, weights, sizes, scale=6 * detail)


def _superpixels(photo: Pixels, gradient: Floats) -> Labels:
    """Grow one region from the smoothest pixel of each cell of a grid."""
    height, width = gradient.shape
    markers = np.zeros((height, width), np.int32)
    number = 0
    for top in range(0, height, _SUPERPIXEL):
        for left in range(0, width, _SUPERPIXEL):
            cell = gradient[top : top + _SUPERPIXEL, left : left + _SUPERPIXEL]
            row, column = np.unravel_index(int(cell.argmin()), cell.shape)
            number += 1
            markers[top + row, left + column] = number
    # Watershed leaves lines of -1 between regions, and overwrites a frame of 1 pixel with them.
    framed = cv2.copyMakeBorder(photo, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    labels = cv2.watershed(framed, np.pad(markers, 1))[1:-1, 1:-1].astype(np.float32)
    while (lines := labels < 1).any():
        labels = np.where(lines, cv2.dilate(labels, np.ones((3, 3), np.uint8)), labels)
    _, dense = np.unique(labels, return_inverse=True)
    return dense.reshape(height, width).astype(np.int32)


def _region_means(labels: Labels, values: Floats, count: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count)
    sums = np.stack([np.bincount(flat, values[..., c].ravel(), count) for c in range(values.shape[-1])], 1)
    return (sums / sizes[:, None]).astype(np.float32), sizes


def _neighbours(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs (upper or left, lower or right) of touching regions, and how many pixels of border they share."""
    right = np.stack((labels[:, :-1], labels[:, 1:]), -1).reshape(-1, 2)
    below = np.stack((labels[:-1], labels[1:]), -1).reshape(-1, 2)
    both = np.concatenate((right, below))
    pairs, counts = np.unique(both[both[:, 0] != both[:, 1]], axis=0, return_counts=True)
    return pairs.astype(np.int64), counts


def _merge(
    labels: Labels,
    pairs: npt.NDArray[np.int64],
    weights: npt.NDArray[np.floating],
    sizes: npt.NDArray[np.int64],
    scale: float,
) -> Labels:
    """Join regions across weak borders, weakest first (Felzenszwalb and Huttenlocher, 2004, section 3)."""
    parent = list(range(len(sizes)))
    area = sizes.tolist()
    inner = [0.0] * len(area)
    cell = _SUPERPIXEL**2

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for index in np.argsort(weights, kind="stable"):
        a, b = (root(int(i)) for i in pairs[index])
        if a == b:
            continue
        weight = float(weights[index])
        allowed = min(inner[i] + scale * (40 * cell / area[i]) ** 0.5 / 2 for i in (a, b))
        if weight <= allowed:
            parent[b] = a
            area[a] += area[b]
            inner[a] = weight
    roots = np.array([root(i) for i in range(len(parent))])
    _, dense = np.unique(roots, return_inverse=True)
    return dense[labels].astype(np.int32)


@dataclass(frozen=True)
class _Regions:
    """What the layout is guessed from, one entry a region; positions as shares of height and width.

    Attributes:
        area: Share of the picture.
        top: Where it begins (5th percentile of rows).
        foot: Where it ends (97th percentile of rows).
        centre: Mean column.
        span: Width of its columns.
        colour: Mean L*a*b*.
        sky: Share of it that is sky.
        focus: How sharp its texture is against the picture's, on a log scale around 0.
    """

    area: Floats
    top: Floats
    foot: Floats
    centre: Floats
    span: Floats
    colour: Floats
    sky: Floats
    focus: Floats


def _describe(labels: Labels, photo: Pixels, sky: Mask) -> _Regions:
    height, width = labels.shape
    count = int(labels.max()) + 1
    lab = _lab(photo)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    column = columns / width
    values = np.dstack((lab, column, sky.astype(np.float32), column**2, _gradient(lab)))
    means, sizes = _region_means(labels, values, count)

    # Rows in ascending order within each region, so that percentiles are positions.
    order = np.lexsort((rows.ravel(), labels.ravel()))
    ordered = rows.ravel()[order] / height
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    top = ordered[starts + (0.05 * (sizes - 1)).astype(int)]
    foot = ordered[starts + (0.97 * (sizes - 1)).astype(int)]
    deviation = np.sqrt(np.maximum(means[:, 5] - means[:, 3] ** 2, 0))
    return _Regions(
        area=(sizes / sizes.sum()).astype(np.float32),
        top=top,
        foot=foot,
        centre=means[:, 3],
        span=np.sqrt(12).astype(np.float32) * deviation,
        colour=means[:, :3],
        sky=means[:, 4],
        focus=np.log((means[:, 6] + 0.3) / (np.average(means[:, 6], weights=sizes) + 0.3)),
    )


def _layout(regions: _Regions, labels: Labels, sky: Mask, rng: np.random.Generator) -> Floats:
    """Stand the regions on a ground plane.

    Returns:
        (H, W) nearness: 1 at the camera's feet, 0 at infinity; on the ground it is linear below the horizon.
    """
    height, width = labels.shape
    horizon = _horizon(sky, rng)
    rows = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    columns = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None]
    plane = np.clip((rows - horizon) / (1 - horizon), 0, 1)

    flat = _lies_flat(regions, horizon, bool(sky.any()), rng)
    standing = _standing_nearness(regions, labels, flat, horizon, rng)
    # Without a sky the layout is anyone's guess: trust chance more, and sharpness (what is blurred is far).
    guess = 0.15 if sky.any() else 0.3
    sharp = rng.uniform(0, 0.3 if sky.any() else 0.8)
    standing = standing * np.exp(sharp * regions.focus + guess * rng.normal(size=len(standing)))
    standing = _settle(standing, regions, labels)
    # Walls run off to one side: large upright regions are turned a little, one way for the whole picture.
    slope = rng.normal(0, 0.35) * standing * np.minimum(regions.span, 1)
    upright = standing[labels] + slope[labels] * (columns - regions.centre[labels])
    upright *= 1 + 0.15 * rng.normal() * (rows - 0.5)
    nearness = flat[labels] * plane + (1 - flat[labels]) * upright
    # Keep some of the bare ground plane everywhere, so that no picture is at one depth throughout.
    share = rng.uniform(0, 0.2 if sky.any() else 0.5)
    return np.asarray(np.clip((1 - share) * nearness + share * plane, 0, 1), np.float32)


def _horizon(sky: Mask, rng: np.random.Generator) -> float:
    """Row of the horizon as a share of the height: at or under the lowest sky, else anywhere plausible."""
    if not sky.any():
        return float(rng.uniform(-0.1, 0.45))
    lowest = sky.shape[0] - sky[::-1].argmax(0)
    reach = np.where(sky.any(0), lowest, 0) / sky.shape[0]
    return float(np.clip(np.quantile(reach, 0.9) + rng.uniform(-0.03, 0.12), 0.05, 0.85))


def _lies_flat(regions: _Regions, horizon: float, open_air: bool, rng: np.random.Generator) -> Floats:
    """How much each region is ground (1) rather than upright (0): wide, low, and under the horizon."""
    extent = regions.foot - regions.top
    wide = regions.span / (extent + 0.05)
    below = np.clip((regions.foot - np.maximum(regions.top, horizon)) / (extent + 1e-3), 0, 1)
    score = 1.5 * (wide - 1.3) + 4 * (below - 0.75) + 2 * (regions.foot - 0.8)
    crosses = np.clip((horizon - regions.top) / 0.1, 0, 1)
    score = score - 2 * crosses + rng.normal(0, 0.7, len(score))
    score += rng.normal(0, 0.5) if open_air else rng.normal(-1.5, 1)
    return np.asarray(1 / (1 + np.exp(-2.5 * score)), np.float32)


def _standing_nearness(
    regions: _Regions, labels: Labels, flat: Floats, horizon: float, rng: np.random.Generator
) -> Floats:
    """Nearness of each region if it is upright: where its foot meets the ground, or what it rests on.

    Worked upwards from the foot of the picture, so that what a region rests on is known before it.
    """
    own = np.clip((regions.foot - horizon) / (1 - horizon), 0, 1)
    nearness = np.asarray(own, np.float32)
    pairs, border = _neighbours(labels)
    alike = np.exp(-np.linalg.norm(regions.colour[pairs[:, 0]] - regions.colour[pairs[:, 1]], axis=1) / 12)
    support: list[list[tuple[int, float]]] = [[] for _ in own]
    for (a, b), pixels, likeness in zip(pairs.tolist(), border.tolist(), alike.tolist(), strict=True):
        for upper, lower in ((a, b), (b, a)):
            if regions.foot[lower] > regions.foot[upper] + 0.01 and regions.sky[lower] < 0.5:
                support[upper].append((lower, pixels * (0.15 + likeness) * (1.05 - float(flat[lower]))))
    distance = rng.uniform(0.05, 0.6)
    for region in np.argsort(-regions.foot):
        if not support[region]:
            continue
        numbers, weights = (np.array(v) for v in zip(*support[region], strict=True))
        resting = float((nearness[numbers] * weights).sum() / weights.sum())
        trust = float(weights.sum() / (weights.sum() + 12))
        if own[region] <= 0.02:
            trust = max(trust, 0.5)
            resting *= 1 - distance * float(rng.uniform(0, 1))
        nearness[region] = (1 - trust) * own[region] + trust * max(resting, float(own[region]))
    return nearness


def _settle(nearness: Floats, regions: _Regions, labels: Labels) -> Floats:
    """Draw small regions to what surrounds them: windows and shadows lie on their wall."""
    pairs, border = _neighbours(labels)
    solid = border * (regions.sky[pairs] < 0.5).all(1)
    count = len(nearness)
    for _ in range(2):
        total = np.full(count, 1e-3)
        around = nearness * 1e-3
        for a, b in ((0, 1), (1, 0)):
            weight = solid * regions.area[pairs[:, b]]
            total += np.bincount(pairs[:, a], weight, count)
            around += np.bincount(pairs[:, a], weight * nearness[pairs[:, b]], count)
        own = regions.area / (regions.area + 0.02)
        nearness = np.asarray(own * nearness + (1 - own) * around / total, np.float32)
    return nearness


def _to_depth(nearness: Floats, sky: Mask, rng: np.random.Generator) -> Floats:
    """Turn nearness (a shifted inverse distance) into distance over [0, 1], sky at 1."""
    ratio = float(np.exp(rng.uniform(np.log(0.07), np.log(0.5))))
    low, high = 1 / (1 + ratio), 1 / ratio
    depth = (1 / (nearness + ratio) - low) / (high - low)
    solid = depth[~sky] if not sky.all() else depth
    depth = np.clip(depth / max(float(np.quantile(solid, 0.98)), 0.02), 0, 1)
    if sky.any():
        depth *= rng.uniform(0.55, 1.0)
    else:
        middle = float(np.clip(np.median(depth), 0.02, 0.95))
        depth **= np.log(rng.uniform(0.2, 0.6)) / np.log(middle)
    nearest = rng.uniform(0, 0.12)
    depth = nearest + (1 - nearest) * depth
    return np.asarray(np.where(sky, 1, depth), np.float32)


def _guided_filter(guide: Floats, picture: Floats, radius: int, eps: float) -> Floats:
    """Smooth a picture inside the edges of a gray guide (He, Sun and Tang, 2010)."""
    side = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_p = cv2.blur(guide, side), cv2.blur(picture, side)
    variance = cv2.blur(guide * guide, side) - mean_g * mean_g
    covariance = cv2.blur(guide * picture, side) - mean_g * mean_p
    gain = covariance / (variance + eps)
    offset = mean_p - gain * mean_g
    return (cv2.blur(gain, side) * guide + cv2.blur(offset, side)).astype(np.float32)
