"""What computes a network: PyTorch, NumPy, or ONNX Runtime for one that was exported; imported when used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, get_args

from dehaze.errors import UsageError
from dehaze.weights.arrays import Arrays
from dehaze.weights.exported import Exported

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dehaze.upsample import Map

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Network(Protocol):
    """A dehazing network ready to run.

    Attributes:
        parameters: Number of learned values.
        device: Where it computes, as `torch.device` writes it.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    parameters: int
    device: str
    precision: str

    def __call__(self, batch: Map, /) -> Map:
        """SRGB (N, h, w, 3) in [0, 1] -> (N, h, w, 3), contiguous and not clamped."""
        ...

    def forward(self, x: Tensor, /) -> Tensor:
        """The same on a tensor on its device: (N, 3, h, w) float32 -> the same, not clamped."""
        ...

    def free_memory(self) -> int | None:
        """Bytes that are free where it computes; None if that is main memory."""
        ...


def prepare(model: nn.Module | Exported | Arrays, name: str, *, device: str, precision: Precision) -> Network:
    """Make a network ready to run.

    Args:
        model: A network of PyTorch's, which is copied, an exported one, or arrays for NumPy.
        name: What messages call it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UsageError: The device is not there, or the combination is not possible.
        ModelError: ONNX Runtime is not installed, or cannot run the file.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"unknown precision '{precision}': expected {', '.join(get_args(Precision))}")
    if isinstance(model, Exported):
        from dehaze.runtimes.onnx_runtime import OnnxNetwork

        return OnnxNetwork(model, device=device, precision=precision)
    if isinstance(model, Arrays):
        from dehaze.runtimes.numpy_runtime import NumpyNetwork

        return NumpyNetwork(model, device=device, precision=precision)
    from dehaze.runtimes.pytorch import TorchNetwork

    return TorchNetwork(model, name, device=device, precision=precision)
