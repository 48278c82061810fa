"""The two students' checkpoints as NumPy arrays, so that a photo is cleared without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dehaze.limits import Limits
from dehaze.weights.checkpoint import Header, read_header

LARGEST_WORKING_SIZE = 256
"""Beyond it PyTorch, though it takes longer to start, is done sooner."""

Array = npt.NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]

_CONFIGS: dict[str, dict[str, Any]] = {
    "lite": {"shuffle": 2, "widths": [16, 32], "blocks": [5, 3], "reduction": 8},
    "student": {"width": 16, "outer_blocks": 3, "inner_blocks": 6, "reduction": 8, "fusion_hidden": 1},
}


@dataclass(frozen=True)
class Arrays:
    """A network as arrays; takes the place of a PyTorch network where pictures are cleared.

    Attributes:
        header: Of its checkpoint.
        limits: What the network asks of its input.
        tensors: Weights by the names and in the layout of the checkpoint, all float32.
    """

    header: Header
    limits: Limits
    tensors: dict[str, Array]


def read_arrays(path: Path) -> Arrays | None:
    """Read a checkpoint of a student in its usual shape.

    Returns:
        None for any other network, one that works at a size beyond `LARGEST_WORKING_SIZE`, and weights that
        are not what the header says: `dehaze.weights.checkpoint.load_checkpoint` knows what to do then.

    Raises:
        ModelError: See `dehaze.weights.checkpoint.read_header`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path)
    usual = _CONFIGS.get(header.architecture)
    if usual is None or {**usual, **header.config} != usual:
        return None
    if header.working_size is None or header.working_size > LARGEST_WORKING_SIZE:
        return None
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, TypeError, AttributeError):  # damaged, or of a type that NumPy lacks
        return None
    if not _agree(tensors, shapes(header.architecture)):
        return None
    limits = Limits(multiple=4 if header.architecture == "lite" else 1, tiling="discouraged")
    return Arrays(header, limits, tensors)


def shapes(architecture: str) -> Shapes:
    """Every weight of a student in its usual shape, as `dehaze.models` has it.

    Args:
        architecture: ``lite`` or ``student``.
    """
    return _lite() if architecture == "lite" else _student()


def _agree(tensors: dict[str, Array], wanted: Shapes) -> bool:
    return {name: array.shape for name, array in tensors.items()} == wanted and all(
        array.dtype == np.float32 and np.isfinite(array).all() for array in tensors.values()
    )


def _student() -> Shapes:
    found = _conv("head", 3, 16, 3)
    for outer in range(3):
        for inner in range(6):
            found |= _block(f"outer.{outer}.inner.{inner}", 16)
        found |= _conv(f"outer.{outer}.conv", 16, 16, 3)
    found |= _attention("fusion", 48, 1, 48)
    found |= _attention("pixel_attention", 16, 2, 1)
    return found | _conv("conv", 16, 16, 3) | _conv("tail", 16, 3, 3)


def _lite() -> Shapes:
    found = _conv("head", 12, 16, 3) | _conv("down.0", 16, 32, 2) | _conv("up.0", 32, 16, 1)
    for index in range(5):
        found |= _block(f"down_stages.0.{index}", 16) | _block(f"up_stages.0.{index}", 16)
    for index in range(3):
        found |= _block(f"down_stages.1.{index}", 32)
    return found | _conv("tail", 16, 24, 3)


def _block(name: str, width: int) -> Shapes:
    hidden = width // 8
    return (
        _conv(f"{name}.conv1", width, width, 3)
        | _conv(f"{name}.conv2", width, width, 3)
        | _attention(f"{name}.channel_attention", width, hidden, width)
        | _attention(f"{name}.pixel_attention", width, hidden, 1)
    )


def _attention(name: str, channels: int, hidden: int, answers: int) -> Shapes:
    return _conv(f"{name}.reduce", channels, hidden, 1) | _conv(f"{name}.expand", hidden, answers, 1)


def _conv(name: str, channels: int, answers: int, side: int) -> Shapes:
    return {f"{name}.weight": (answers, channels, side, side), f"{name}.bias": (answers,)}
