"""Procedural outdoor scenes with exact depth: roads through hills and forest, and streets.

They let everything that needs hazy pictures and their truth be tried without a download.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from dehaze.data.canvas import Canvas, Floats, Noise, Rows, View, broadleaf, conifer, mix, smoothstep

Pixels = npt.NDArray[np.uint8]
Kind = Literal["road", "street", "meadow"]
KINDS: tuple[Kind, ...] = ("road", "street", "meadow")

REACH = 150.0
"""Depth saturates over this many metres, so that foreground and mountains both have contrast in haze."""

_FAR = 30_000.0
_SLICES = 500


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        clear: (H, W, 3) uint8 RGB without haze.
        depth: (H, W) float32 in (0, 1]: 1 - exp(-distance / REACH), the sky at 1.
    """

    clear: Pixels
    depth: Floats


def render(
    rng: np.random.Generator,
    size: tuple[int, int] = (460, 620),
    *,
    kind: Kind | None = None,
    textures: Sequence[Pixels] = (),
    supersample: int = 1,
) -> Scene:
    """Make up a scene and render it.

    Args:
        rng: Source of randomness; equal states give equal scenes.
        size: Height and width.
        kind: What to show; None draws one.
        textures: (H, W, 3) RGB photos whose parts cover walls and tint the ground.
        supersample: Rays a pixel along each side.

    Returns:
        The scene; depth is the mean over each pixel's rays.
    """
    kind = kind or KINDS[int(rng.integers(len(KINDS)))]
    plan = _plan(kind, rng, size[0] * supersample, size[1] * supersample)
    return _picture(_paint(plan, textures), size)


def example(
    size: tuple[int, int] = (640, 960), *, supersample: int = 2, betas: Sequence[float] = (2.1,)
) -> tuple[Pixels, ...]:
    """The mountain road in fog that the documentation shows.

    Args:
        size: Height and width.
        supersample: Rays a pixel along each side.
        betas: Scattering coefficient of each hazy picture, for depth as in `Scene`.

    Returns:
        The hazy pictures and, last, the clear one: (H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng(24)
    height, width = (side * supersample for side in size)
    plan = replace(
        _plan("road", rng, height, width),
        view=View(width, height, focal=1.05 * width, horizon=0.47 * height, eye=2.1),
        bend=((11.0, 1 / 48, 0.9), (4.0, 1 / 33, 2.0)),
        road=3.1,
        hills=7.0,
        peaks=900.0,
        grass=(0.36, 0.42, 0.18),
        zenith=(0.26, 0.47, 0.77),
        clouds=-0.05,
        slope=0.02,
        nearest=19.0,
    )
    scene = _picture(_paint(plan, ()), size)
    light = np.array([0.83, 0.86, 0.88]) * 255
    shares = [np.exp(-beta * scene.depth)[..., None] for beta in betas]
    hazy = [np.asarray(np.rint(scene.clear * t + light * (1 - t)), np.uint8) for t in shares]
    return *hazy, scene.clear


def _paint(plan: _Plan, textures: Sequence[Pixels]) -> Canvas:
    canvas = Canvas(plan.view, _FAR)
    land = _Land(plan)
    _paint_sky(canvas, plan)
    _paint_land(canvas, plan, land, textures)
    _paint_things(canvas, plan, land, textures)
    return canvas


def _picture(canvas: Canvas, size: tuple[int, int]) -> Scene:
    colour = np.clip(canvas.colour, 0, 1)
    depth = 1 - np.exp(-canvas.distance() / REACH)
    if depth.shape != size:
        colour = np.asarray(cv2.resize(colour, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
        depth = np.asarray(cv2.resize(depth, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
    return Scene(np.asarray(np.rint(colour * 255), np.uint8), np.asarray(depth, np.float32))


@dataclass(frozen=True)
class _Plan:
    """Everything that is drawn at random for the layout of one scene.

    Attributes:
        kind: What it shows.
        rng: For what is drawn while painting.
        view: The camera.
        noise: Shared by all textures.
        sun: Unit vector towards the sun.
        bend: Amplitudes in metres and wave numbers of the road's curve.
        road: Half the road's width in metres; 0 for none.
        hills: Height of hills beside the road in metres.
        peaks: Height of distant mountains in metres.
        grass: Colour of the ground's vegetation.
        zenith: Colour of the sky overhead.
        clouds: Share of the sky under cloud.
        slope: How much the land rises ahead.
        nearest: z of the nearest tree in metres.
    """

    kind: Kind
    rng: np.random.Generator
    view: View
    noise: Noise
    sun: tuple[float, float, float]
    bend: tuple[tuple[float, float, float], ...]
    road: float
    hills: float
    peaks: float
    grass: tuple[float, float, float]
    zenith: tuple[float, float, float]
    clouds: float
    slope: float
    nearest: float

    def centre(self, z: Rows) -> Floats:
        """x of the road's middle."""
        x = np.zeros_like(z)
        for amplitude, wave, phase in self.bend:
            x = x + amplitude * (
                np.sin(wave * z + phase) - np.sin(phase) - wave * z * np.cos(phase) / (1 + z / 40)
            )
        return np.asarray(x, np.float32)


def _plan(kind: Kind, rng: np.random.Generator, height: int, width: int) -> _Plan:
    street = kind == "street"
    azimuth, altitude = rng.uniform(-2.6, -0.5), rng.uniform(0.45, 0.9)
    sun = (np.sin(azimuth) * np.cos(altitude), np.sin(altitude), np.cos(azimuth) * np.cos(altitude))
    bend = (
        ()
        if street
        else tuple(
            (rng.uniform(2, 9) * rng.choice((-1, 1)), 1 / rng.uniform(35, 90), rng.uniform(0, 6.28))
            for _ in range(2)
        )
    )
    view = View(
        width,
        height,
        focal=width * rng.uniform(0.75, 1.1),
        horizon=height * rng.uniform(0.42, 0.56),
        eye=rng.uniform(1.5, 3.0),
    )
    grasses = ((0.30, 0.40, 0.16), (0.42, 0.43, 0.20), (0.52, 0.47, 0.27))
    return _Plan(
        kind=kind,
        rng=rng,
        view=view,
        noise=Noise(rng),
        sun=(float(sun[0]), float(sun[1]), float(sun[2])),
        bend=bend,
        road={"road": rng.uniform(2.8, 4.0), "street": rng.uniform(3.5, 6.0), "meadow": 0.0}[kind],
        hills=0.0 if street else rng.uniform(2, 14),
        peaks=rng.uniform(0, 100) if street else rng.uniform(300, 1300),
        grass=grasses[int(rng.integers(len(grasses)))],
        zenith=(
            0.24 + rng.uniform(-0.06, 0.12),
            0.45 + rng.uniform(-0.06, 0.08),
            0.76 + rng.uniform(-0.1, 0.08),
        ),
        clouds=rng.uniform(-0.3, 0.5),
        slope=0.0 if street else rng.uniform(-0.01, 0.03),
        nearest=rng.uniform(9, 16),
    )


class _Land:
    """The ground: its height everywhere, and which point of it each pixel sees.

    Attributes:
        x: (H, W) metres, 0 where the sky is.
        z: (H, W) metres, 0 where the sky is.
        seen: (H, W) whether it is ground.
        normal: (H, W, 3) unit normals.
    """

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        view = plan.view
        z = np.geomspace(0.8, 12_000, _SLICES).astype(np.float32)
        columns = (np.arange(view.width, dtype=np.float32) + 0.5 - view.centre) / view.focal
        y = self.height(z[:, None] * columns, np.broadcast_to(z[:, None], (_SLICES, view.width)))
        rows = view.horizon + view.focal * (view.eye - y) / z[:, None]
        self.z = _first_hit(rows, z, view.height)
        self.seen = self.z > 0
        self.x = np.asarray(self.z * columns, np.float32)
        self.normal = self._normals()

    def height(self, x: Rows, z: Rows) -> Floats:
        """y of the ground, shaped: flat along the road, hills beside it, peaks far away."""
        plan, noise = self._plan, self._plan.noise
        off = np.abs(x - plan.centre(z))
        beside = smoothstep(plan.road + 1.5, plan.road + 45, off)
        y = plan.slope * z * np.exp(-z / 500)
        y = y + plan.hills * beside * (0.55 + noise.fractal(x / 60, z / 60, 4, z / 400))
        y = y + 0.12 * smoothstep(plan.road + 0.5, plan.road + 4, off) * noise.fractal(
            x / 3, z / 3, 3, z / 200
        )
        if plan.peaks:
            far = smoothstep(300, 4500, z)
            ridge = 1.05 - np.sqrt(noise.fractal(x / 2300 + 5, z / 2300, 2) ** 2 + 0.0025)
            crags = noise.fractal(x / 520, z / 520, 5, z / 400_000)
            y = y + plan.peaks * far * (np.maximum(ridge, 0) ** 1.6 + 0.16 * crags * ridge)
        return np.asarray(y, np.float32)

    def _normals(self) -> Floats:
        step = np.maximum(0.15, self.z / 250)
        here = self.height(self.x, self.z)
        right = (self.height(self.x + step, self.z) - here) / step
        ahead = (self.height(self.x, self.z + step) - here) / step
        normal = np.dstack((-right, np.ones_like(right), -ahead))
        return np.asarray(normal / np.linalg.norm(normal, axis=-1, keepdims=True), np.float32)


def _first_hit(rows: Floats, z: Floats, height: int) -> Floats:
    """For each pixel the z where the line of sight meets the ground; 0 where it meets none.

    Args:
        rows: (slices, W) row at which each column sees the ground of each slice.
        z: (slices,) ascending.
        height: Of the picture.
    """
    horizon = np.minimum.accumulate(rows, axis=0)
    wanted = np.arange(height, dtype=np.float32) + 0.5
    result = np.zeros((height, rows.shape[1]), np.float32)
    for column in range(rows.shape[1]):
        falling = horizon[:, column]
        # From the far end the running minimum ascends, as np.interp and searchsorted want it.
        after = len(z) - np.searchsorted(falling[::-1], wanted, side="right")
        hit = after < len(z)
        k = np.clip(after, 1, len(z) - 1)
        upper, lower = falling[k], falling[k - 1]
        share = np.clip((lower - wanted) / np.maximum(lower - upper, 1e-6), 0, 1)
        # Just above a crest the slice before is hidden behind it: nothing lies between the two.
        share[rows[k - 1, column] > lower + 1e-3] = 1
        inverse = (1 - share) / z[k - 1] + share / z[k]
        result[:, column] = np.where(hit, 1 / inverse, 0)
    return result


def _paint_sky(canvas: Canvas, plan: _Plan) -> None:
    view = plan.view
    up = (view.horizon - np.arange(view.height, dtype=np.float32)[:, None] - 0.5) / view.focal
    across = (np.arange(view.width, dtype=np.float32)[None] + 0.5 - view.centre) / view.focal
    up = np.broadcast_to(np.maximum(up, 0), canvas.z.shape)
    pale = (0.80, 0.87, 0.93)
    sky = mix(pale, plan.zenith, 1 - np.exp(-3.2 * up))
    # Clouds lie in a layer overhead: their picture shrinks towards the horizon.
    stretch = 1 / (up + 0.12)
    x, z = across * stretch, stretch * 1.6
    density = plan.noise.fractal(x * 1.3, z * 1.3, 6, stretch * 6 / view.focal)
    lit = plan.noise.fractal((x + 0.12) * 1.3, (z - 0.1) * 1.3, 4, stretch * 6 / view.focal)
    cover = smoothstep(0.1, 0.75, density + plan.clouds) * smoothstep(0.0, 0.15, up) * 0.92
    white = mix((0.78, 0.81, 0.86), (1.0, 0.99, 0.97), np.clip(0.75 + 0.6 * (density - lit), 0, 1))
    canvas.colour[:] = mix_maps(sky, white, cover)


def mix_maps(a: Floats, b: Floats, share: Floats) -> Floats:
    """Colour maps from a (share 0) to b (share 1)."""
    return a + (b - a) * share[..., None]


def _paint_land(canvas: Canvas, plan: _Plan, land: _Land, textures: Sequence[Pixels]) -> None:
    noise, x, z = plan.noise, land.x, land.z
    footprint = z / plan.view.focal
    off = np.abs(x - plan.centre(z))
    height = land.height(x, z)
    steep = 1 - land.normal[..., 1]

    blades = noise.fractal(x * 5, z * 2.5, 4, footprint * 5)
    patches = noise.fractal(x / 14, z / 14, 5, footprint / 14)
    dry = tuple(min(1.0, c * k) for c, k in zip(plan.grass, (1.45, 1.2, 1.25), strict=True))
    ground = mix(plan.grass, dry, np.clip(0.5 + 0.7 * patches, 0, 1)) * (1 + 0.28 * blades)[..., None]
    trees = noise.fractal(x / 26, z / 26, 6, footprint / 60)
    forest = mix((0.10, 0.17, 0.10), (0.20, 0.28, 0.14), np.clip(0.5 + trees, 0, 1))
    wooded = smoothstep(140, 420, z) * smoothstep(-0.5, 0.2, noise.fractal(x / 300, z / 300, 3) + 0.35)
    ground = mix_maps(ground, forest, wooded)
    crags = noise.fractal(x / 90, z / 90, 6, footprint / 200)
    rock = mix((0.33, 0.32, 0.33), (0.52, 0.50, 0.48), np.clip(0.5 + crags, 0, 1))
    bare = smoothstep(0.10, 0.32, steep + 0.08 * crags + 0.12 * smoothstep(250, 600, height)) * smoothstep(
        60, 300, z
    )
    ground = mix_maps(ground, rock, bare)
    snow = smoothstep(0.45, 0.62, height / (plan.peaks + 250) + 0.12 * crags) * (
        1 - smoothstep(0.35, 0.6, steep)
    )
    ground = mix_maps(ground, np.full_like(ground, 0.95), snow * smoothstep(800, 1500, z))
    if textures:
        ground = ground * _drape(plan, x, z, textures)
    if plan.road:
        ground = _pave(ground, plan, x, z, off, footprint)

    light = np.clip(land.normal @ np.asarray(plan.sun, np.float32), 0, None)
    colour = ground * (
        np.asarray((0.42, 0.46, 0.54)) + 0.80 * light[..., None] * np.asarray((1.0, 0.95, 0.86))
    )
    colour = np.asarray(colour * _shadow(plan, x, z)[..., None], np.float32)
    canvas.put(0, 0, colour, land.seen.astype(np.float32), land.z)


def _drape(plan: _Plan, x: Floats, z: Floats, textures: Sequence[Pixels]) -> Floats:
    """A photo laid on the ground, mirrored into a seamless pattern; mean 1."""
    whole = textures[int(plan.rng.integers(len(textures)))].astype(np.float32) / 255
    photo = np.asarray(cv2.resize(whole, (256, 256), interpolation=cv2.INTER_AREA), np.float32)
    scale = 256 / plan.rng.uniform(2, 8)
    u, v = (np.abs((a * scale) % 510 - 255).astype(np.float32) for a in (x, z))
    fade = np.clip(z / 60, 0, 1)[..., None]
    mean = photo.mean((0, 1)) + 0.02
    return np.asarray(
        1 + (cv2.remap(photo, u, v, cv2.INTER_LINEAR) / mean - 1) * (1 - fade) * 0.7, np.float32
    )


def _pave(ground: Floats, plan: _Plan, x: Floats, z: Floats, off: Floats, footprint: Floats) -> Floats:
    """Lay the road: shoulder, asphalt, edge lines and a dashed middle."""
    noise = plan.noise
    soft = footprint * 0.8 + 0.02
    near = 1 - smoothstep(250, 420, z)  # no road climbs the mountains

    def inside(edge: float, wobble: Rows | float = 0.0) -> Floats:
        return np.asarray(near * np.clip((edge + wobble - off) / soft + 0.5, 0, 1), np.float32)

    grit = noise.fractal(x * 14, z * 8, 4, footprint * 14)
    ragged = 0.25 * noise.fractal(x * 1.5, z * 0.8, 3, footprint)
    shoulder = np.asarray((0.47, 0.44, 0.39)) * (1 + 0.25 * grit)[..., None]
    ground = mix_maps(ground, shoulder.astype(np.float32), inside(plan.road + 0.7, ragged))
    worn = noise.fractal(x / 1.2, z / 9, 4, footprint)
    asphalt = np.asarray((0.30, 0.30, 0.315)) * (1 + 0.16 * grit + 0.14 * worn)[..., None]
    ground = mix_maps(ground, asphalt.astype(np.float32), inside(plan.road))
    fresh = np.clip(0.9 + 0.25 * worn, 0.4, 1)
    edge = inside(plan.road - 0.25) - inside(plan.road - 0.40)
    dash = smoothstep(-0.06, 0.06, np.sin(z * 2 * np.pi / 9)) if plan.kind == "road" else np.ones_like(z)
    middle = inside(0.07) * dash
    paint = np.full_like(ground, 0.86)
    return mix_maps(ground, paint, np.clip(edge + middle, 0, 1) * fresh * np.minimum(1, 0.12 / soft))


def _shadow(plan: _Plan, x: Floats, z: Floats) -> Floats:
    """Large soft shadows of clouds and of trees out of sight, as a factor."""
    dapple = plan.noise.fractal(x / 30 + 9, z / 45, 3, z / plan.view.focal / 30)
    return 1 - 0.32 * smoothstep(0.15, 0.6, dapple) * np.clip(1.2 - z / 3000, 0.3, 1)


def _paint_things(canvas: Canvas, plan: _Plan, land: _Land, textures: Sequence[Pixels]) -> None:
    """Buildings, rails, posts and trees, the far ones first."""
    if plan.kind == "street":
        _paint_houses(canvas, plan, textures)
    trees = _plant(plan)
    shelf = _sprites(plan)
    _paint_shadows(canvas, plan, land, trees)
    feet = land.height(*np.array([tree[:2] for tree in trees]).reshape(-1, 2).T)
    for (x, z, size, which), foot in zip(trees, feet.tolist(), strict=True):
        canvas.sprite(shelf[which], x, foot - 0.15, z, size)
    if plan.kind == "road":
        _paint_rail(canvas, plan, land)


def _sprites(plan: _Plan) -> list[Floats]:
    """Four kinds of conifers, then four of broad-leaved trees."""
    side = -1.0 if plan.sun[0] < 0 else 1.0
    side *= 0.9
    size = int(np.clip(plan.view.height * 0.6, 48, 720))
    return [make(plan.rng, side, size) for make in (conifer, broadleaf) for _ in range(4)]


def _plant(plan: _Plan) -> list[tuple[float, float, float, int]]:
    """Where trees stand: (x, z, height, which), far ones first."""
    rng = plan.rng
    street = plan.kind == "street"
    count = 40 if street else int(rng.integers(150, 420))
    share = rng.uniform(0, 0.25) if street else rng.uniform(0.3, 1.0)
    clear_by = {"road": plan.road + 3.0, "street": plan.road + 1.6, "meadow": 4.0}[plan.kind]
    found = []
    for _ in range(count):
        z = float(np.exp(rng.uniform(np.log(plan.nearest), np.log(120 if street else 420))))
        spread = 1.5 if street else 8 + 0.55 * z
        side = rng.choice((-1, 1))
        x = float(plan.centre(np.array([z]))[0] + side * (clear_by + spread * rng.beta(1, 1.6)))
        grove = float(plan.noise.fractal(np.array([x / 25]), np.array([z / 40]), 2)[0])
        if not street and grove < -0.25:
            continue
        is_conifer = rng.uniform() < share
        size = float(rng.uniform(7, 16) if is_conifer else rng.uniform(5, 10))
        found.append((x, z, size, int(rng.integers(4)) + (0 if is_conifer else 4)))
    return sorted(found, key=lambda tree: -tree[1])


def _paint_shadows(
    canvas: Canvas, plan: _Plan, land: _Land, trees: list[tuple[float, float, float, int]]
) -> None:
    """Lay the trees' shadows on the ground; where they overlap it gets no darker."""
    dark = np.zeros_like(land.z)
    ground = np.abs(canvas.z - land.z) < 1e-3
    flat = np.hypot(plan.sun[0], plan.sun[2]) + 1e-6
    away = (-plan.sun[0] / flat, -plan.sun[2] / flat)
    for x, z, size, _ in trees:
        length = size * min(0.9, 0.4 * flat / plan.sun[1])
        middle_x, middle_z = x + away[0] * length * 0.7, z + away[1] * length * 0.7
        if not 2 < middle_z < 150:
            continue
        here = _window(plan.view, middle_x, middle_z, length)
        dx, dz = land.x[here] - middle_x, land.z[here] - middle_z
        along = (away[0] * dx + away[1] * dz) / length
        across = (away[1] * dx - away[0] * dz) / (size * 0.22)
        strength = 1 - smoothstep(0.3, 1.15, np.hypot(along, across))
        dark[here] = np.maximum(dark[here], strength)
    canvas.colour *= (1 - 0.48 * dark * ground)[..., None]


def _window(view: View, x: float, z: float, reach: float) -> tuple[slice, slice]:
    """Part of the picture that can show ground within `reach` metres of (x, z)."""
    near = max(z - reach, 1.0)
    wide = view.focal * reach / near
    column = float(view.project(x, 0.0, z)[0])
    above, below = (float(view.project(x, h, d)[1]) for h, d in ((20.0, z + reach), (-20.0, near)))
    rows = slice(max(0, int(above)), max(0, min(view.height, int(below))))
    return rows, slice(max(0, int(column - 2 * wide)), max(0, min(view.width, int(column + 2 * wide))))


def _paint_rail(canvas: Canvas, plan: _Plan, land: _Land) -> None:
    """A crash barrier on the outside of the bend, and reflector posts along both sides."""
    rng = plan.rng
    outside = -float(np.sign(plan.centre(np.array([60.0]))[0])) or 1.0
    steel = (
        np.full((8, 4, 3), 0.58, np.float32)
        * np.array([1, 1.15, 0.75, 0.95, 1.2, 1.1, 0.7, 0.85])[:, None, None]
    )
    steel = steel.astype(np.float32) * np.asarray((0.97, 1.0, 1.03), np.float32)
    stations = np.concatenate((np.arange(3, 40, 1.0), np.arange(40, 180, 4.0)))[::-1].astype(np.float32)
    start = rng.uniform(6, 14)
    for far, near in pairwise(stations):
        if near < start:
            break
        ends = np.array([far, near])
        x = plan.centre(ends) + outside * (plan.road + 1.1)
        y = land.height(x, ends)
        if int(near) % 4 == 0:
            canvas.face(_upright(x[1], y[1], near + 0.05, 0.12, 0.72), steel[:1] * 0.7)
        order = (0, 1) if outside < 0 else (1, 0)
        top = [(x[i], y[i] + 0.78, ends[i]) for i in order]
        foot = [(x[i], y[i] + 0.47, ends[i]) for i in order[::-1]]
        canvas.face(np.array([*top, *foot]), steel)
    post = np.full((20, 4, 3), 0.92, np.float32)
    post[3:7] = 0.12
    for z in np.arange(168.0, 5.0, -12.0):
        for side in (-1, 1):
            x = plan.centre(np.array([z])) + side * (plan.road + 0.75)
            y = land.height(x, np.array([z]))
            canvas.face(_upright(float(x[0]), float(y[0]), z, 0.12, 1.0), post)


def _upright(x: float, y: float, z: float, width: float, height: float) -> Rows:
    """Corners of a rectangle that faces the camera."""
    left, right = x - width / 2, x + width / 2
    return np.array([(left, y + height, z), (right, y + height, z), (right, y, z), (left, y, z)])


def _paint_houses(canvas: Canvas, plan: _Plan, textures: Sequence[Pixels]) -> None:
    """Two rows of houses along the street, the far ones first."""
    rng = plan.rng
    houses = []
    for side in (-1, 1):
        z = rng.uniform(3, 12)
        setback = rng.uniform(2.5, 6)
        while z < 260:
            length = rng.uniform(8, 22)
            inner = side * (plan.road + setback + rng.uniform(0, 1.5))
            houses.append((z, z + length, inner, inner + side * rng.uniform(8, 14), rng.uniform(5, 22)))
            z += length + rng.choice((0.0, rng.uniform(1, 12)))
    for near, far, inner, outer, height in sorted(houses, key=lambda h: -h[0]):
        wall = _facade(plan, far - near, height, textures)
        gable = _facade(plan, abs(outer - inner), height, textures)
        lit = [0.60 + 0.45 * max(0.0, d) for d in (-np.sign(inner) * plan.sun[0], -plan.sun[2])]
        order = (near, far) if inner < 0 else (far, near)
        along = [
            (inner, height, order[0]),
            (inner, height, order[1]),
            (inner, -0.2, order[1]),
            (inner, -0.2, order[0]),
        ]
        left, right = sorted((inner, outer))
        facing = [(left, height, near), (right, height, near), (right, -0.2, near), (left, -0.2, near)]
        canvas.face(np.array(facing), gable, lit[1])
        canvas.face(np.array(along), wall, lit[0])


def _facade(plan: _Plan, length: float, height: float, textures: Sequence[Pixels]) -> Floats:
    """A wall with storeys of windows."""
    rng = plan.rng
    scale = int(np.clip(plan.view.height / 18, 4, 24))
    high, wide = round(height * scale), round(length * scale)
    plaster = np.array([0.62, 0.56, 0.48]) * rng.uniform(0.6, 1.35) + rng.uniform(-0.08, 0.08, 3)
    if textures and rng.uniform() < 0.6:
        photo = textures[int(rng.integers(len(textures)))].astype(np.float32) / 255
        wall = np.asarray(cv2.resize(photo, (wide, high), interpolation=cv2.INTER_LINEAR), np.float32)
        return np.clip(wall, 0.03, 1)
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32) / scale
    grain = plan.noise.fractal(x * 0.7 + rng.uniform(0, 99), y * 0.7, 5)
    wall = np.asarray(plaster * (1 + 0.12 * grain)[..., None], np.float32)
    if rng.uniform() < 0.4:
        courses = (np.sin(y * 2 * np.pi / 0.25) > 0.85) | (
            np.sin((x + 0.25 * np.floor(y / 0.25)) * 2 * np.pi / 0.5) > 0.95
        )
        wall *= np.where(courses, 0.82, 1)[..., None]
    storey, bay = rng.uniform(2.9, 3.5), rng.uniform(1.9, 3.2)
    u = (x - (length % bay) / 2) % bay / bay
    v = (height - y) % storey / storey
    inside = (x > (length % bay) / 2) & (x < length - (length % bay) / 2) & (y > 0.5)
    frame = inside & (np.abs(u - 0.5) < 0.29) & (v > 0.27) & (v < 0.83)
    pane = inside & (np.abs(u - 0.5) < 0.25) & (v > 0.30) & (v < 0.80) & (np.abs(u - 0.5) > 0.015)
    wall[frame] = np.clip(plaster * 1.35, 0, 0.95)
    column, row = np.floor(x / bay).astype(int), np.floor((height - y) / storey).astype(int)
    mirror = rng.uniform(0.1, 0.45, (row.max() + 1, column.max() + 1))[row, column]
    glass = mirror[..., None] * np.array([0.75, 0.9, 1.05]) * (0.7 + 0.6 * v)[..., None]
    wall[pane] = glass[pane]
    ledge = (v > 0.235) & (v < 0.27) & inside & (np.abs(u - 0.5) < 0.33)
    wall[ledge] = plaster * 0.7
    wall[y < 0.35] = plaster * 0.55
    return np.clip(wall, 0, 1)
