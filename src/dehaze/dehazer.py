"""A network made ready for pictures: working resolution, colours, tiling; pixels in, pixels out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from dehaze import weights
from dehaze.errors import DehazeError, UsageError
from dehaze.limits import Limits
from dehaze.machine import available_cpus, available_memory
from dehaze.runtimes import Precision, prepare
from dehaze.tiling import MIN_TILE, tiled
from dehaze.upsample import (
    LocalAffine,
    Map,
    Pixels,
    apply,
    fit,
    mean,
    no_answer,
    noise_variance,
    restrain,
    white,
)
from dehaze.weights import Arrays, Exported, Header
from dehaze.weights.checkpoint import check_dehazes
from dehaze.working_copy import reduce

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dehaze.weights.hub import Progress

FALLBACK_WORKING_SIZE = 1280
"""Long side on ``auto`` for a network that was not trained for a size of its own."""

FEW_PICTURES = 10
"""Up to so many, NumPy is done first: PyTorch computes faster, but takes more than a second to import."""

AUTO_TILE = 768
_BYTES_PER_PIXEL = 1024
"""What the largest network (the paper's student, float32) needs at its peak for one pixel, rounded up."""


class Colour(Protocol):
    """Into sRGB, which networks were trained in, and back; both on (h, w, 3) float32."""

    def to_srgb(self, pixels: Map, /, *, clip: bool = True) -> Map:
        """From the file's own colour space; without `clip`, colours that sRGB lacks lie outside [0, 1]."""
        ...

    def from_srgb(self, pixels: Map, /) -> Map:
        """To the file's own colour space."""
        ...


@dataclass(frozen=True)
class Info:
    """What a `Dehazer` runs, and how.

    Attributes:
        name: The model's name, from its checkpoint.
        architecture: Key of `dehaze.models.ARCHITECTURES`.
        parameters: Number of learned values.
        working_size: Long side in pixels the network was trained for; None if any.
        device: Where it computes, as `torch.device` writes it.
        precision: ``fp32``, ``bf16`` or ``fp16``: never ``auto``.
        limits: What the network asks of its input.
    """

    name: str
    architecture: str
    parameters: int
    working_size: int | None
    device: str
    precision: str
    limits: Limits


class Dehazer:
    """Removes haze from pictures of any size.

    The network looks at a working copy; what it did there is transferred to every pixel
    (`dehaze.upsample`). A picture no larger than the working copy gets the network's own answer.
    Where the checkpoint asks for a second look, the network looks once more, at a mirrored copy of another
    size, and the mean of both is transferred: self-ensemble, as in Timofte et al., "Seven Ways to Improve
    Example-Based Single Image Super Resolution", 2016.

    Args:
        model: A dehazing network from `dehaze.models`, copied, so the caller's stays as it is; or an exported
            one or one as arrays, which are run without PyTorch.
        header: Its checkpoint's header.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; for an exported network and for
            arrays ``auto`` is the CPU.
        precision: ``auto`` is fp32 but on CUDA, where it is fp16 if the network allows; the other kinds
            compute in fp32.
        resolution: Long side of the working copy in pixels, looked at once; ``auto`` for the size the network
            was trained for (1280 if it states none), ``full`` to run it on every pixel.
        tile: Side in pixels of the tiles that ``full`` cuts the picture into; ``off`` for never, ``auto`` for
            tiles only where the whole does not fit in memory.

    Attributes:
        info: What runs, and how.
        warnings: Sentences a user should read; grows when a picture gives rise to another.

    Raises:
        UsageError: The device is not there, the combination is not possible, or the network does not dehaze.
        ModelError: The network is an exported one that cannot be run.
    """

    def __init__(
        self,
        model: nn.Module | Exported | Arrays,
        header: Header,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        resolution: Literal["auto", "full"] | int = "auto",
        tile: Literal["auto", "off"] | int = "auto",
    ) -> None:
        limits: Limits = model.limits  # type: ignore[assignment]
        check_dehazes(header)
        resolution, tile = _number(resolution), _number(tile)
        _check_size("resolution", resolution, ("auto", "full"), 1)
        _check_size("tile", tile, ("auto", "off"), MIN_TILE)
        self._network = prepare(model, header.name, device=device, precision=precision)
        self._resolution, self._tile = resolution, tile
        self._transfer_radius, self._reduction = header.transfer_radius, header.reduction
        self._second_look = header.second_look if resolution == "auto" else None
        self.info = Info(
            header.name,
            header.architecture,
            self._network.parameters,
            header.working_size,
            self._network.device,
            self._network.precision,
            limits,
        )
        self.warnings: list[str] = []
        if isinstance(tile, int) and resolution != "full":
            self._warn("a tile size has an effect only at full resolution: add --resolution full")
        if isinstance(tile, int) and resolution == "full":
            self._warn_of_tiles()
        if cv2.getNumThreads() > available_cpus():
            cv2.setNumThreads(available_cpus())

    def __call__(self, pixels: Pixels, *, strength: float = 1.0, colour: Colour | None = None) -> Pixels:
        """Remove the haze from one picture.

        Args:
            pixels: (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1], in the colour space of ``colour``.
            strength: 1 for the network's answer, 0 for the input; in between they are mixed.
            colour: How to get to sRGB and back; None if the pixels are sRGB.

        Returns:
            The dehazed picture: same shape, same type, clamped to its range and rounded.

        Raises:
            UsageError: The pixels have another shape or type, or the strength is outside 0..1.
        """
        _check_pixels(pixels)
        if not 0 <= strength <= 1:
            raise UsageError(f"strength is {strength}; expected a number from 0 to 1")
        if strength == 0:
            return pixels.copy()
        if self.working_shape(*pixels.shape[:2]) != pixels.shape[:2]:
            return apply(pixels, self.estimate(pixels, colour=colour), strength=strength)
        return self._directly(pixels, strength, colour)

    def estimate(self, pixels: Pixels, *, colour: Colour | None = None) -> LocalAffine:
        """Fit the local affine map that dehazes a picture, at the working resolution.

        At or below the working size the map is that of the whole picture, and close to the network's answer
        but not equal to it.

        Args:
            pixels: As for calling the dehazer.
            colour: As for calling the dehazer; the map is one of the pixels' own colour space.

        Raises:
            UsageError: The pixels have another shape or type.
        """
        _check_pixels(pixels)
        noise = noise_variance(pixels)
        first, *second = self.looks(*pixels.shape[:2])
        affine = self._look(pixels, first, colour, noise)
        for shape in second:
            affine = mean(affine, self._look(pixels, shape, colour, noise, mirrored=True))
        return affine

    def _look(
        self,
        pixels: Pixels,
        shape: tuple[int, int],
        colour: Colour | None,
        noise: float,
        *,
        mirrored: bool = False,
    ) -> LocalAffine:
        guide = reduce(pixels, *shape, self._reduction)
        turn = slice(None, None, -1 if mirrored else 1)
        answer = self._answer(np.ascontiguousarray(guide[:, turn]), colour)[:, turn]
        return fit(guide, answer, radius=self._transfer_radius, noise=noise)

    def working_copy(self, pixels: Pixels) -> Map:
        """What the network sees first, in the pixels' own colour space: (H, W, 3) -> (h, w, 3) in [0, 1]."""
        return reduce(pixels, *self.working_shape(*pixels.shape[:2]), self._reduction)

    def looks(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of each working copy of a picture; the second, if any, is looked at mirrored.

        There is no second where the first is the picture itself.
        """
        first = self.working_shape(height, width)
        if self._second_look is None or first == (height, width):
            return [first]
        return [first, _fitted(height, width, self._second_look)]

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the working copy of a picture: the picture's own if it is small enough."""
        if self._resolution == "full":
            return height, width
        size = self._resolution
        if size == "auto":
            size = self.info.working_size or FALLBACK_WORKING_SIZE
        return _fitted(height, width, size)

    def network(self, batch: Map) -> Map:
        """Run the network alone: sRGB (N, h, w, 3) in [0, 1] -> (N, h, w, 3), finite but not clamped.

        Raises:
            DehazeError: The answer is not finite.
        """
        answer = self._network(batch)
        if not np.isfinite(answer).all():
            raise DehazeError(
                f"model '{self.info.name}' cannot compute this picture: its answer is not finite",
                "choose another model with -m",
            )
        return answer

    def forward(self, x: Tensor) -> Tensor:
        """Run the network on a tensor on its device: (N, 3, h, w) float32 -> the same, not clamped."""
        return self._network.forward(x)

    def _directly(self, pixels: Pixels, strength: float, colour: Colour | None) -> Pixels:
        """The network's own answer at the picture's own size."""
        result = np.empty_like(pixels)
        for top, answer in self._bands(pixels, colour):
            rows = slice(top, top + len(answer))
            result[rows] = _store(answer, pixels[rows], strength)
        return result

    def _bands(self, pixels: Pixels, colour: Colour | None) -> Iterable[tuple[int, Map]]:
        side = self._tile_side(*pixels.shape[:2])

        def run(part: Pixels) -> Map:
            return self._answer(_as_float(part), colour)

        return [(0, run(pixels))] if side is None else tiled(run, pixels, side)

    def _tile_side(self, height: int, width: int) -> int | None:
        """Side of the tiles to cut a picture into; None to run it whole."""
        if self._tile == "off" or self._resolution != "full":
            return None
        if self._tile != "auto":
            return self._tile
        if height * width * _BYTES_PER_PIXEL <= self._free_memory() or max(height, width) <= AUTO_TILE:
            return None
        self._warn_of_tiles()
        return AUTO_TILE

    def _free_memory(self) -> int:
        free = self._network.free_memory()
        return available_memory() if free is None else free

    def _answer(self, picture: Map, colour: Colour | None) -> Map:
        """Network on one picture (h, w, 3), through sRGB and back.

        What lies outside sRGB is set aside before the network and added again after it, so that saturated
        colours of a wide gamut stay.
        """
        if colour is None:
            return self._held(picture)
        srgb = colour.to_srgb(picture, clip=False)
        shown = np.clip(srgb, 0, 1)
        answer = np.clip(self._held(shown), 0, 1)
        return colour.from_srgb(answer + (srgb - shown))

    def _held(self, picture: Map) -> Map:
        """Network on one sRGB picture (h, w, 3), which stays as it is where the network has no answer."""
        answer: Map = self.network(picture[None])[0]
        wild = no_answer(answer)
        if not wild.any():
            return answer
        self._warn(
            f"model '{self.info.name}' has no answer to some colours it was shown: the picture "
            "stays as it is around them"
        )
        return restrain(answer, picture, wild)

    def _warn_of_tiles(self) -> None:
        if self.info.limits.tiling == "discouraged":
            self._warn(
                f"model '{self.info.name}' uses statistics of the whole picture, so tiles may differ in tone"
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def from_name(
    name: str | None = None,
    *,
    pictures: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Dehazer:
    """Load a model and make it ready.

    Args:
        name: Name, path or ``hf://`` address, see `dehaze.weights.resolve`; None for the default model.
        pictures: How many it is to clear. Up to `FEW_PICTURES` are computed by NumPy on the CPU if the
            network and the settings allow; None, if that is not known, for PyTorch.
        progress: See `dehaze.weights.resolve`.
        **settings: Keyword arguments of `Dehazer`.

    Raises:
        ModelError: The model is not available.
        UsageError: See `Dehazer`.
    """
    few = pictures is not None and pictures <= FEW_PICTURES
    loaded = weights.load_to_run(name, progress=progress, arrays=few and _suits_numpy(**settings))
    return Dehazer(*loaded, **settings)


def _suits_numpy(
    device: str = "auto", precision: str = "auto", resolution: str | int = "auto", **_: Any
) -> bool:
    """Whether nothing is asked for that only PyTorch can do, or does much faster."""
    return device in ("auto", "cpu") and precision in ("auto", "fp32") and resolution == "auto"


def _number(value: Any) -> Any:
    """NumPy's integers as Python's."""
    return int(value) if isinstance(value, np.integer) else value


def _check_size(what: str, value: str | int, words: tuple[str, ...], smallest: int) -> None:
    if isinstance(value, int):
        if value < smallest:
            raise UsageError(f"{what} is {value} pixels; expected at least {smallest}")
    elif value not in words:
        raise UsageError(f"{what} is '{value}'; expected {', '.join(words)} or a number of pixels")


def _check_pixels(pixels: Pixels) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UsageError(f"pixels have shape {pixels.shape}; expected (height, width, 3)")
    if pixels.dtype.name not in ("uint8", "uint16", "float32"):
        raise UsageError(f"pixels are {pixels.dtype}; expected uint8, uint16 or float32")


def _fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """A picture's shape reduced to a long side; its own if that is no longer."""
    longest = max(height, width)
    if longest <= size:
        return height, width
    return max(round(height * size / longest), 1), max(round(width * size / longest), 1)


def _as_float(pixels: Pixels) -> Map:
    """Any pixels to float32 in [0, 1]."""
    if pixels.dtype == np.float32:
        return pixels
    return np.multiply(pixels, np.float32(1 / white(pixels.dtype)), dtype=np.float32)


def _store(answer: Map, pixels: Pixels, strength: float) -> npt.NDArray[Any]:
    """Mix an answer with the input by strength, and convert it to the input's type."""
    if strength != 1:
        answer = _as_float(pixels) * np.float32(1 - strength) + answer * np.float32(strength)
    if pixels.dtype == np.float32:
        return np.clip(answer, 0, 1)
    levels: Map = np.rint(np.clip(answer, 0, 1) * np.float32(white(pixels.dtype)))
    return levels.astype(pixels.dtype)
