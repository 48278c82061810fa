"""The Python API: any kind of picture in, the same kind back."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from dehaze.dehazer import FEW_PICTURES, Dehazer, from_name
from dehaze.photo import read
from dehaze.photo.colour import ColourTransform, to_srgb_picture, transform_for
from dehaze.photo.types import to_8_bit

if TYPE_CHECKING:
    from torch import Tensor

    from dehaze.weights.manifest import ModelEntry

Array = npt.NDArray[Any]
ArrayT = TypeVar("ArrayT", bound=Array)
Clear = Callable[[Array, ColourTransform | None], Array]
"""(H, W, 3) uint8, uint16 or float32 RGB -> the same, with less haze."""

_FLOAT_SLACK = 0.5
"""How far outside [0, 1] floats may overshoot; beyond it they are taken for another scale and refused."""


class Model:
    """A network ready to clear pictures; made by `load_model`.

    Attributes:
        info: Name, architecture, parameters, working size, device, precision and limits.
    """

    def __init__(self, dehazer: Dehazer) -> None:
        self._dehazer = dehazer
        self.info = dehazer.info

    def __repr__(self) -> str:
        return f"<dehaze.Model {self.info.name} on {self.info.device}>"

    @overload
    def __call__(
        self, image: str | os.PathLike[str] | Image.Image, *, strength: float = ...
    ) -> Image.Image: ...
    @overload
    def __call__(self, image: ArrayT, *, strength: float = ...) -> ArrayT: ...
    @overload
    def __call__(self, image: Tensor, *, strength: float = ...) -> Tensor: ...
    def __call__(self, image: Any, *, strength: float = 1.0) -> Any:
        """Clear one picture (or a batch of them, as a tensor).

        Args:
            image: One of
                a path: answered by a PIL image, upright, the file's EXIF and colour profile in its `info`, of
                8 bits a channel (PIL has no more for colours; `dehaze run` and arrays keep 16);
                a PIL image: the same mode back for L, LA, RGB, RGBA and I;16 (with alpha where a colour is
                said to be transparent), else RGB or RGBA (for gray L or LA);
                an array (H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4), gray or RGB (not BGR) with or
                without alpha, of uint8, uint16 or floats in [0, 1]: the same shape and dtype;
                a tensor (C, H, W) or (N, C, H, W) of uint8 or floats in [0, 1], with 1, 3 or 4 channels: the
                same shape, dtype and device. No gradients flow through.
            strength: 1 for the network's answer, 0 for the input, between for a mix.

        Raises:
            TypeError: Not one of these kinds.
            ValueError: The shape, the range of the values or the strength is not as described.
            PhotoError: The file cannot be read.
        """

        def clear(pixels: Array, colour: ColourTransform | None = None) -> Array:
            answer = self._dehazer(pixels, strength=strength, colour=colour)
            for warning in self._dehazer.warnings:
                warnings.warn(warning, stacklevel=4)
            return answer

        if not 0 <= strength <= 1:
            raise ValueError(f"strength is {strength}, expected 0 to 1")
        if isinstance(image, str | os.PathLike):
            return _clear_file(Path(image), clear)
        if isinstance(image, Image.Image):
            return _clear_pil(image, clear)
        if isinstance(image, np.ndarray):
            return _clear_array(image, clear)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(image, torch.Tensor):
            return _clear_tensor(image, clear)
        raise TypeError(f"expected a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    precision: str = "auto",
    resolution: str | int = "auto",
) -> Model:
    """Load a model, to be called with pictures.

    Args:
        name_or_path: A name of `list_models`, a `.safetensors` file, an exported `.onnx` network (run without
            PyTorch) or `hf://owner/repo/file@revision`; None for `DEHAZE_MODEL` or else the model in the box.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; None for `DEHAZE_DEVICE` or else `auto`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        resolution: Long side in pixels of the copy that the network looks at; `auto` for the size it was
            trained for, `full` for every pixel.

    Raises:
        ModelError: There is no such model, or it cannot be had.
        UsageError: The device is not there, or does not go with the precision.
    """
    name = None if name_or_path is None else os.fspath(name_or_path)
    return Model(from_name(name, device=_device(device), precision=precision, resolution=resolution))


def _device(given: str | None) -> str:
    return given or os.environ.get("DEHAZE_DEVICE") or "auto"


def list_models() -> list[ModelEntry]:
    """The models that have a name, in the manifest's order.

    Raises:
        ModelError: This installation is damaged.
    """
    from dehaze import weights

    return weights.list_models()


_calls = itertools.count(1)
"""Numbers the calls of `dehaze` that could do without PyTorch."""


@functools.lru_cache(maxsize=4)
def _ready(
    name: str | None, device: str, precision: str, resolution: str | int, pictures: int | None
) -> Model:
    return Model(
        from_name(name, pictures=pictures, device=device, precision=precision, resolution=resolution)
    )


@overload
def dehaze(
    image: str | os.PathLike[str] | Image.Image,
    *,
    model: str | os.PathLike[str] | None = ...,
    device: str | None = ...,
    precision: str = ...,
    resolution: str | int = ...,
    strength: float = ...,
) -> Image.Image: ...
@overload
def dehaze(
    image: ArrayT,
    *,
    model: str | os.PathLike[str] | None = ...,
    device: str | None = ...,
    precision: str = ...,
    resolution: str | int = ...,
    strength: float = ...,
) -> ArrayT: ...
@overload
def dehaze(
    image: Tensor,
    *,
    model: str | os.PathLike[str] | None = ...,
    device: str | None = ...,
    precision: str = ...,
    resolution: str | int = ...,
    strength: float = ...,
) -> Tensor: ...
def dehaze(
    image: Any,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | None = None,
    precision: str = "auto",
    resolution: str | int = "auto",
    strength: float = 1.0,
) -> Any:
    """Clear the haze from one picture; see `Model.__call__` for what it may be, `load_model` for the rest.

    Models stay loaded between calls (the last four combinations of settings). As `dehaze run` does, the first
    few calls compute with NumPy on the CPU where nothing asks for PyTorch and nobody has imported it yet.
    """
    name = os.environ.get("DEHAZE_MODEL") or None if model is None else os.fspath(model)
    few = "torch" not in sys.modules and next(_calls) <= FEW_PICTURES
    ready = _ready(name, _device(device), precision, resolution, 1 if few else None)
    return ready(image, strength=strength)


def _clear_file(path: Path, clear: Clear) -> Image.Image:
    photo = read(path)
    for notice in photo.notices:
        warnings.warn(f"{path}: {notice}", stacklevel=4)
    pixels = to_8_bit(clear(photo.pixels, photo.colour))
    if photo.gray:
        pixels = _luma(pixels)[..., None]
    if photo.info.mask:
        warnings.warn(f"{path}: its mask channel was left out: PIL has no place for it", stacklevel=4)
    elif photo.alpha is not None:
        pixels = np.dstack([pixels, to_8_bit(photo.alpha)])
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    kept = {
        "exif": photo.info.exif,
        "icc_profile": photo.info.icc,
        "xmp": photo.info.xmp,
        "dpi": photo.info.dpi,
    }
    image.info.update({key: value for key, value in kept.items() if value})
    return image


def _clear_pil(image: Image.Image, clear: Clear) -> Image.Image:
    source, icc = image, image.info.get("icc_profile") or b""
    if image.mode in ("I", "F"):
        raise ValueError(
            f"PIL images of mode {image.mode} have no fixed range: convert to 'L', 'RGB' or an array"
        )
    if image.mode in ("CMYK", "LAB"):
        (source, _), icc = to_srgb_picture(image, icc), b""
    elif image.mode == "La" or (image.mode in ("L", "RGB") and image.has_transparency_data):
        source = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA") and not image.mode.startswith("I;16"):
        gray = "L" if image.mode == "1" else "RGB"
        source = image.convert("RGBA" if image.has_transparency_data else gray)
    answer = Image.fromarray(_clear_array(np.asarray(source), clear, _transform(icc)))
    answer.info = {key: value for key, value in image.info.items() if key != "transparency"}
    if not icc:
        answer.info.pop("icc_profile", None)
    return answer


def _transform(icc: bytes) -> ColourTransform | None:
    try:
        return transform_for(icc)
    except ValueError as error:
        warnings.warn(f"colours are taken for sRGB: {error}", stacklevel=5)
        return None


def _clear_tensor(tensor: Tensor, clear: Clear) -> Tensor:
    import torch

    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3, 4) or 0 in tensor.shape:
        raise ValueError(
            f"tensor has shape {tuple(tensor.shape)}, expected (C, H, W) or (N, C, H, W) with C of 1, 3 or 4"
        )
    values = tensor.detach().cpu()
    if values.dtype == torch.bfloat16:  # NumPy has none
        values = values.float()
    batch = values.reshape(-1, *values.shape[-3:]).permute(0, 2, 3, 1).numpy()
    answers = [torch.from_numpy(_clear_array(picture, clear, None)).permute(2, 0, 1) for picture in batch]
    return torch.stack(answers).reshape(tensor.shape).to(tensor.device, tensor.dtype)


def _clear_array(array: Array, clear: Clear, colour: ColourTransform | None = None) -> Array:
    """Clear (H, W) or (H, W, 1 to 4): gray or RGB, the last of 2 or 4 channels being alpha."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4) or 0 in array.shape:
        raise ValueError(f"array has shape {array.shape}, expected (H, W), (H, W, 3) or (H, W, 4)")
    samples = array.reshape(*array.shape[:2], -1)
    channels = samples.shape[2]
    colours = channels - (channels in (2, 4))
    pixels = _unit(samples[..., :colours])
    answer = clear(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), colour)
    result = array.copy().reshape(samples.shape)
    result[..., :colours] = _luma(answer)[..., None] if colours == 1 else answer
    return result.reshape(array.shape)


def _unit(samples: Array) -> Array:
    """Samples as a network takes them: uint8, uint16 or float32 in [0, 1]."""
    if samples.dtype.kind == "u" and samples.dtype.itemsize <= 2:
        return samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if samples.dtype.kind != "f":
        raise TypeError(f"values are {samples.dtype}, expected uint8, uint16 or floats in [0, 1]")
    low, high = float(samples.min()), float(samples.max())
    if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):
        raise ValueError(f"values go from {low:g} to {high:g}, expected floats in [0, 1]")
    return samples.astype(np.float32).clip(0, 1)


def _luma(pixels: Array) -> Array:
    """(H, W, 3) -> (H, W) by BT.601's weights; equal channels come back as they were."""
    gray: Array = pixels @ np.array([0.299, 0.587, 0.114])
    return (gray if pixels.dtype.kind == "f" else gray.round()).astype(pixels.dtype)
