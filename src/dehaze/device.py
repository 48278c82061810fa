"""Which device computes; asked for and absent is an error, never a silent fallback."""

from __future__ import annotations

import platform

import torch

from dehaze.errors import UsageError
from dehaze.machine import available_cpus


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is there.

    Raises:
        UsageError: The name is unknown, or the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device '{name}': expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda":
        _check_cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not available: it needs an Apple GPU", "use --device cpu")
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device has no arithmetic for.

    Raises:
        UsageError: It is fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "precision fp16 is not for CPUs: they compute it many times slower", "use fp32 or bf16"
        )


def settle(device: torch.device) -> None:
    """On a CPU: never more threads than this process may use, and no slow arithmetic on denormals.

    It holds for the whole process and changes what is computed in the last bits, so call it before the first
    arithmetic that must be repeatable.
    """
    if device.type != "cpu":
        return
    torch.set_flush_denormal(True)
    threads = available_cpus()
    if torch.get_num_threads() > threads:
        torch.set_num_threads(threads)


def computes_bf16(device: str) -> bool:
    """Whether a kind of device has arithmetic for bfloat16.

    x86 processors without AVX-512 have none: PyTorch then computes a bfloat16 convolution value by value,
    a training step ten times slower than in float32 (docs/experiments.md, 27). Other processors are believed.

    Args:
        device: Type of a `torch.device`: ``cpu``, ``cuda`` or ``mps``.
    """
    if device != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        reason = (
            "this PyTorch build has no CUDA support"
            if torch.version.cuda is None
            else "no usable NVIDIA GPU or driver"
        )
        raise UsageError(f"device '{device}' is not available: {reason}", "use --device cpu or --device auto")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(
            f"device '{device}' is not available: this machine has {torch.cuda.device_count()} "
            "CUDA device(s), counted from cuda:0"
        )
