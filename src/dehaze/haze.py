"""The atmospheric scattering model (eq. 1) and what is drawn at random to make haze with it.

Everything is batched torch that runs where its arguments live. Random numbers come from an explicit
`torch.Generator`, so that a run can be repeated; one on the CPU serves work on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

ITS_AIRLIGHT = (0.7, 1.0)
"""RESIDE ITS draws one gray airlight a picture uniformly from here (Li et al., 2019)."""

ITS_BETA = (0.6, 1.8)
"""RESIDE ITS draws the scattering coefficient uniformly from here, for depth normalised to its maximum."""

SOTS_AIRLIGHT = 1.0
SOTS_BETAS = tuple(0.5 + 0.1 * level for level in range(1, 11))
"""RESIDE SOTS indoor: picture k = 1..10 of a scene has airlight 1 and this beta[k - 1]."""


def transmission(depth: Tensor, beta: Tensor, dmax: Tensor | None = None) -> Tensor:
    """Share of light that crosses the haze: t = exp(-beta d / dmax), RESIDE's normalisation of eq. 1.

    Args:
        depth: (N, 1, H, W), at least 0, in any unit.
        beta: (N,) one scattering coefficient a picture, or (N, 1, H, W) for haze that varies within it.
        dmax: (N,) depth that counts as 1, in the unit of `depth`; None takes each picture's own maximum.
            Pass it when `depth` is a crop: RESIDE normalises by the maximum of the whole frame.

    Returns:
        (N, 1, H, W) in (0, 1].
    """
    if dmax is None:
        dmax = depth.amax(dim=(1, 2, 3))
    scale = dmax.clamp_min(torch.finfo(depth.dtype).tiny).view(-1, 1, 1, 1)
    return torch.exp(-_per_picture(beta) * depth / scale)


def add_haze(clear: Tensor, t: Tensor, airlight: Tensor) -> Tensor:
    """Eq. 1: I = J t + A (1 - t).

    Args:
        clear: (N, 3, H, W) in [0, 1].
        t: (N, 1, H, W) transmission in [0, 1].
        airlight: (N, 1) gray or (N, 3) RGB, or (N, 1 or 3, H, W) where haze is lit unevenly; in [0, 1].

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    light = airlight if airlight.dim() == 4 else airlight[:, :, None, None]
    return light + (clear - light) * t


def sample_its(
    n: int,
    generator: torch.Generator,
    device: torch.device | str,
    white_share: float = 0.0,
    beta: tuple[float, float] = ITS_BETA,
) -> tuple[Tensor, Tensor]:
    """Draw by the rule of RESIDE ITS.

    Args:
        n: How many.
        generator: Source of randomness.
        device: Where the results are wanted.
        white_share: Share of airlights that are 1, SOTS indoor's, instead of drawn; our addition.
        beta: Lowest and highest beta; ITS' unless a network is to learn thinner or thicker haze alone.

    Returns:
        Airlight (N, 1) in [0.7, 1] and beta (N,), for depth normalised to its maximum.
    """
    airlight = _uniform((n, 1), *ITS_AIRLIGHT, generator)
    drawn = _uniform((n,), *beta, generator)
    if white_share:
        white = _uniform((n, 1), 0, 1, generator) < white_share
        airlight = torch.where(white, SOTS_AIRLIGHT, airlight)
    return airlight.to(device, non_blocking=True), drawn.to(device, non_blocking=True)


@dataclass(frozen=True)
class RealHaze:
    """Ranges of haze as cameras meet it outdoors; our choice, not the paper's.

    Attributes:
        brightness: Airlight's brightness, dusk to noon.
        tint: Standard deviation of the airlight's colour temperature (blue against red, as a share).
        blue: Mean of that temperature: haze in shade and distance is slightly blue.
        thin_blue: What is added to that mean for the thinnest haze, less for thicker on beta's log scale and
            nothing for the thickest: what veils far hills on a clear day scatters blue, fog is gray.
        beta: Scattering coefficient, drawn uniformly on a log scale, for depth in [0, 1].
        patchiness: Largest standard deviation of log beta over a picture; each picture draws its own.
        glow: Largest standard deviation of the airlight's brightness over a picture, on a log scale: haze is
            brighter towards the sun, a lamp or a window.
        hidden: Transmission around which a scene counts as hidden: the truth keeps the haze before it.
        nearest: Largest depth of the nearest point: fog from a machine, or a bank of it, stands before
            everything. Most pictures draw far less.
    """

    brightness: tuple[float, float] = (0.45, 1.0)
    tint: float = 0.08
    blue: float = 0.02
    thin_blue: float = 0.08
    beta: tuple[float, float] = (0.2, 6.0)
    patchiness: float = 0.35
    glow: float = 0.1
    nearest: float = 0.6
    hidden: float = 0.05


REAL_HAZE = RealHaze()


def sample_real(
    n: int,
    size: tuple[int, int],
    generator: torch.Generator,
    device: torch.device | str,
    haze: RealHaze = REAL_HAZE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw real haze: tinted airlight, scattering that drifts over the picture, a veil before the scene.

    Args:
        n: Pictures.
        size: Their height and width.
        generator: Source of randomness.
        device: Where the answer goes.
        haze: Ranges to draw from.

    Returns:
        Airlight (N, 3, H, W) in [0, 1], beta (N, 1, H, W) > 0 for depth normalised to [0, 1], and the depth
        (N, 1, 1, 1) of the nearest point, behind which the scene's depth is to be squeezed.
    """
    generator = _beside(generator, torch.device(device))
    brightness = _uniform((n,), *haze.brightness, generator)
    warmth = haze.tint * _normal((n,), generator) + haze.blue
    green = 0.3 * haze.tint * _normal((n,), generator)
    glow = _uniform((n, 1, 1, 1), 0, haze.glow, generator) * smooth_noise(n, size, generator, cells=1)

    low, high = (math.log(b) for b in haze.beta)
    thickness = _uniform((n, 1, 1, 1), low, high, generator)
    warmth = warmth + haze.thin_blue * (high - thickness[:, 0, 0, 0]) / max(high - low, 1e-6)
    colour = torch.stack((1 - warmth, 1 + green, 1 + warmth), 1)
    colour = colour / colour.amax(1, keepdim=True)
    airlight = ((brightness[:, None] * colour)[:, :, None, None] * torch.exp(glow)).clamp(0, 1)

    spread = _uniform((n, 1, 1, 1), 0, haze.patchiness, generator)
    beta = torch.exp(thickness + spread * smooth_noise(n, size, generator))
    nearest = haze.nearest * _uniform((n, 1, 1, 1), 0, 1, generator) ** 2
    return airlight, beta, nearest


def leave_some(clear: Tensor, t: Tensor, airlight: Tensor, kept: float, hidden: float) -> Tensor:
    """The scene with some of its haze left in it, without the haze's colour: what removing it should give.

    A share of the optical depth stays everywhere, and all of it where next to nothing of the scene comes
    through, so that a network leaves dense fog alone instead of guessing what is behind it: the truth's
    transmission is t^kept (1 + hidden) t / (t + hidden), which is 1 without haze. The last factor does
    softly what the lower bound t0 does in He et al. (2011), eq. 16.

    Args:
        clear: (N, 3, H, W) in [0, 1].
        t: (N, 1, H, W) transmission in [0, 1].
        airlight: As for `add_haze`.
        kept: Share of the optical depth that stays, 0 to 1.
        hidden: Transmission at which half of the haze before a scene stays; 0 hides none.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    seen = (1 + hidden) * t / (t + hidden).clamp_min(torch.finfo(t.dtype).tiny)
    return add_haze(clear, t**kept * seen, airlight.mean(1, keepdim=True))


LIGHT = (-0.3, 1.0)
"""Range of `relight` in training, in stops: most photographs are brighter than NYU's frames."""


def relight(clear: Tensor, generator: torch.Generator, stops: tuple[float, float] = LIGHT) -> Tensor:
    """Expose each scene anew before haze is put in front of it, with a soft shoulder: J' = 1 - (1 - J)^k.

    Black stays black and nothing clips, so that bright rooms and snow are among the scenes that haze is
    removed from: k = 2^stops multiplies the darks, and the lights approach white.

    Args:
        clear: (N, 3, H, W) in [0, 1].
        generator: Source of randomness.
        stops: Each picture draws its own from this range, uniformly.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    generator = _beside(generator, clear.device)
    k = torch.exp2(_uniform((clear.shape[0], 1, 1, 1), *stops, generator))
    return 1 - (1 - clear) ** k


@dataclass(frozen=True)
class Variety:
    """How far `vary` bends tones and depth; our choice, not the paper's.

    Attributes:
        tone: Largest power of two of the exponent that all of a picture's values are raised to.
        colour: Standard deviation of each channel's own exponent, as a share.
        depth: As `tone`, for depth.
        drift: Standard deviation of the depth's exponent over a picture, as a share.
    """

    tone: float = 0.6
    colour: float = 0.1
    depth: float = 0.6
    drift: float = 0.15


VARIETY = Variety()


def vary(
    clear: Tensor, depth: Tensor, share: float, generator: torch.Generator, variety: Variety = VARIETY
) -> tuple[Tensor, Tensor]:
    """Make new scenes of known ones: tones, colours and distances bent, edges where they were.

    A network that has seen each scene a thousand times knows its depth by heart; bent, the haze itself has to
    tell. Values are raised to random powers, so that 0 and 1 stay: black, white, and the farthest point.

    Args:
        clear: (N, 3, H, W) in [0, 1].
        depth: (N, 1, H, W) in [0, 1].
        share: Share of the pictures that are bent, drawn for each by itself.
        generator: Source of randomness.
        variety: How far.

    Returns:
        Both, as given in shape and range.
    """
    count, size = len(clear), (clear.shape[-2], clear.shape[-1])
    generator = _beside(generator, clear.device)
    column = (count, 1, 1, 1)
    chosen = _uniform(column, 0, 1, generator) < share
    tone = torch.exp2(_uniform(column, -variety.tone, variety.tone, generator))
    tone = tone * torch.exp(variety.colour * _normal((count, 3, 1, 1), generator))
    bend = torch.exp2(_uniform(column, -variety.depth, variety.depth, generator))
    bend = bend * torch.exp(variety.drift * smooth_noise(count, size, generator, cells=1))
    return torch.where(chosen, clear**tone, clear), torch.where(chosen, depth**bend, depth)


def paint(clear: Tensor, depth: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paint a rectangle in what no room holds: one colour, as pure as can be, or pixels of two at random.

    A network that was shown rooms alone may answer pure green with millions, and all around it too. Half of
    the rectangles stand before the camera, where no haze dulls them.

    Args:
        clear: (N, 3, H, W) in [0, 1].
        depth: (N, 1, H, W) in [0, 1].
        share: Share of the pictures that are painted on, drawn for each by itself.
        generator: Source of randomness.

    Returns:
        Both, as given in shape and range.
    """
    count, _, height, width = clear.shape
    generator = _beside(generator, clear.device)
    column, colour = (count, 1, 1, 1), (count, 3, 1, 1)
    chosen = _uniform(column, 0, 1, generator) < share
    for axis, length in ((2, height), (3, width)):
        side = _uniform(column, 0.1, 1, generator)
        start = _uniform(column, 0, 1, generator) * (1 - side)
        at = (torch.arange(length, device=clear.device) + 0.5) / length
        at = at.view(-1, 1) if axis == 2 else at
        chosen = chosen & (at >= start) & (at < start + side)
    one, other = (_uniform(colour, -0.5, 1.5, generator).clamp(0, 1) for _ in range(2))
    mixed = _uniform(column, 0, 1, generator) < 0.3
    pixels = _uniform((count, 1, height, width), 0, 1, generator) < 0.5
    before = chosen & (_uniform(column, 0, 1, generator) < 0.5)
    painted = torch.where(chosen, torch.where(mixed & pixels, other, one), clear)
    return painted, torch.where(before, 0, depth)


def smooth_noise(n: int, size: tuple[int, int], generator: torch.Generator, *, cells: int = 3) -> Tensor:
    """Cloud-like random fields: three octaves of interpolated noise, each half as strong as the one before.

    Args:
        n: Fields.
        size: Height and width.
        generator: Source of randomness; the fields live on its device.
        cells: Cells of the coarsest octave along each side.

    Returns:
        (N, 1, H, W), each field with mean 0 and standard deviation 1.
    """
    field = torch.zeros((n, 1, *size), device=generator.device)
    for octave in range(3):
        points = cells * 2**octave + 1
        coarse = _normal((n, 1, points, points), generator)
        field += 0.5**octave * functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
    field = field - field.mean((2, 3), keepdim=True)
    return field / field.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-6)


@dataclass(frozen=True)
class Camera:
    """Largest strength of what a camera does to a picture; each picture draws its own from 0 up to it.

    Attributes:
        noise: Standard deviation of the noise at the sensor, for pictures in [0, 1].
        exposure: Gain or loss of exposure, in stops.
        gamma: Bend of the tone curve: the exponent lies within 1 -+ this.
        vignette: Share of light lost in the corners.
        jpeg: Range of JPEG qualities (1 to 100); None leaves the picture uncompressed.
        jpeg_share: Share of pictures that are compressed.
    """

    noise: float = 0.02
    exposure: float = 0.35
    gamma: float = 0.2
    vignette: float = 0.2
    jpeg: tuple[float, float] | None = (35.0, 95.0)
    jpeg_share: float = 0.6


def photograph(
    clear: Tensor, hazy: Tensor, generator: torch.Generator, camera: Camera | None = None
) -> tuple[Tensor, Tensor]:
    """Take both pictures with the same random camera.

    Exposure, tone curve and vignette change both, so the truth stays what this camera would have seen without
    haze. Noise (before the gain, as at a sensor) and JPEG artefacts are on the hazy picture only.

    Args:
        clear: (N, 3, H, W) in [0, 1].
        hazy: The same scene with haze.
        generator: Source of randomness.
        camera: Strengths; None takes the defaults.

    Returns:
        Clear and hazy, as given in shape and range.
    """
    camera = camera or Camera()
    n, device = clear.shape[0], clear.device
    column = (n, 1, 1, 1)
    generator = _beside(generator, device)
    sigma = _uniform(column, 0, camera.noise, generator)
    hazy = hazy + sigma * _normal(tuple(hazy.shape), generator)

    gain = torch.exp2(_uniform(column, -camera.exposure, camera.exposure, generator))
    exponent = _uniform(column, 1 - camera.gamma, 1 + camera.gamma, generator)
    falloff = _uniform(column, 0, camera.vignette, generator)
    light = gain * (1 - falloff * _corner_distance(clear.shape[-2], clear.shape[-1], device))
    clear, hazy = ((p * light).clamp(0, 1) ** exponent for p in (clear, hazy))

    if camera.jpeg is not None:
        quality = _uniform((n,), *camera.jpeg, generator)
        chosen = _uniform(column, 0, 1, generator) < camera.jpeg_share
        hazy = torch.where(chosen, jpeg(hazy, quality), hazy)
    return clear, hazy


_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """Loss of JPEG compression, without its bytes: quantised 8 x 8 cosine transform, colour not subsampled.

    Tables of ITU-T T.81, Annex K, scaled by quality as libjpeg does.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        quality: (N,) from 1 to 100.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    height, width = pictures.shape[-2:]
    padded = functional.pad(pictures, (0, -width % 8, 0, -height % 8), mode="replicate")
    ycc = torch.einsum("ij,njhw->nihw", _constant(_TO_YCC, pictures.dtype, pictures.device), padded * 255)
    ycc[:, 0] -= 128

    n, _, h, w = ycc.shape
    blocks = ycc.view(n, 3, h // 8, 8, w // 8, 8).transpose(3, 4)  # (N, 3, h/8, w/8, 8, 8)
    basis = _cosines(pictures)
    steps = _quantisation(quality.to(pictures)).view(n, 3, 1, 1, 8, 8)
    levels = torch.round(basis @ blocks @ basis.T / steps)
    blocks = basis.T @ (levels * steps) @ basis

    ycc = blocks.transpose(3, 4).reshape(n, 3, h, w)
    ycc[:, 0] += 128
    rgb = torch.einsum("ij,njhw->nihw", _constant(_TO_RGB, pictures.dtype, pictures.device), ycc)
    return (rgb[..., :height, :width] / 255).clamp(0, 1)


def _cosines(like: Tensor) -> Tensor:
    """Orthonormal 8-point cosine transform: (frequency, sample)."""
    index = torch.arange(8, dtype=like.dtype, device=like.device)
    basis = torch.cos(math.pi / 8 * (index[None] + 0.5) * index[:, None]) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _quantisation(quality: Tensor) -> Tensor:
    """Quantiser steps for qualities (N,): (N, 3, 8, 8)."""
    luma = _constant(_LUMA_TABLE, quality.dtype, quality.device)
    chroma = torch.full_like(luma, 99)
    chroma[:4, :4] = _constant(_CHROMA_CORNER, quality.dtype, quality.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1, 1)
    tables = torch.stack((luma, chroma, chroma))
    return ((tables * scale + 50) / 100).floor().clamp(1, 255)


@cache
def _constant(values: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A small table on a device, moved there once: each move would wait for the device. Not to be written."""
    return torch.tensor(values, dtype=dtype, device=device)


def _corner_distance(height: int, width: int, device: torch.device) -> Tensor:
    """Squared distance from the centre, 1 in the corners: (H, W)."""
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None]
    return (x * x + y * y) / 2


def _per_picture(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1) if values.dim() == 1 else values


def _beside(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device where the numbers are wanted, which saves moving whole pictures of noise."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
