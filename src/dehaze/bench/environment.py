"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from dehaze.machine import available_cpus, cpu_name
from dehaze.version import __version__


@dataclass(frozen=True)
class Environment:
    """Everything about the machine and the software that moves a figure.

    Attributes:
        system: Operating system and architecture.
        cpu: Processor name.
        cpus: Processors this process may use.
        threads: Threads that PyTorch computes with.
        memory_gb: Installed memory; None if the system does not tell.
        device: Where the networks ran, as PyTorch names it.
        accelerator: Name of the GPU; empty on CPU.
        python: Version.
        torch: Version, with its CUDA build.
        dehaze: Version.
    """

    system: str
    cpu: str
    cpus: int
    threads: int
    memory_gb: float | None
    device: str
    accelerator: str
    python: str
    torch: str
    dehaze: str

    def same_speed(self, other: Environment) -> bool:
        """Whether times and memory of the two may be compared: same hardware, threads and PyTorch."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("cpu", "threads", "device", "accelerator", "torch")
        )

    def describe(self) -> str:
        """One line for people."""
        where = (
            f"{self.accelerator} ({self.device})" if self.accelerator else f"CPU, {self.threads} thread(s)"
        )
        memory = f", {self.memory_gb:g} GB" if self.memory_gb else ""
        return (
            f"{where}; {self.cpu}, {self.cpus} processor(s){memory}; {self.system}; "
            f"Python {self.python}, PyTorch {self.torch}, dehaze {self.dehaze}"
        )


def describe_environment(device: torch.device) -> Environment:
    """Look at the machine and the software this runs on."""
    return Environment(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cpus=available_cpus(),
        threads=torch.get_num_threads(),
        memory_gb=_memory_gb(),
        device=str(device),
        accelerator=_accelerator(device),
        python=platform.python_version(),
        torch=torch.__version__,
        dehaze=__version__,
    )


def _accelerator(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device.type == "mps" else ""


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
