"""Training in several processes under `torchrun`, written so that the loop reads the same with one.

`join` gives the loop a `Distributed`; with one process every method of it does the obvious thing at no cost.
One process works one device: NCCL joins CUDA devices, gloo joins CPUs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dehaze.device import resolve_device
from dehaze.errors import TrainingError, UsageError

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others, validation and writing of checkpoints included."""

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Distributed:
    """One process among those that train together.

    Attributes:
        device: The device this process works.
        rank: This process's number, from 0.
        world: Number of processes.
        grouped: Whether there is a process group to talk through.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    grouped: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def wrap(self, task: nn.Module) -> nn.Module:
        """Return what to call on a batch: the task, its gradients averaged over processes.

        Weights and buffers start as the main process has them. What to optimise and save stays the task.
        """
        if not self.grouped:
            return task
        return DistributedDataParallel(task, gradient_as_bucket_view=True)

    def seed(self, base: int) -> int:
        """A seed for this process's own random draws; the main process gets `base` itself."""
        return base + 1_000_003 * self.rank

    def share(self, batch: int) -> int:
        """Pictures of a batch of `batch` that this process takes.

        Raises:
            UsageError: They cannot be dealt out evenly: the mean of gradients would not be the batch's.
        """
        if batch % self.world:
            raise UsageError(
                f"a batch of {batch} cannot be shared evenly by {self.world} processes",
                f"set the batch to a multiple of {self.world}",
            )
        return batch // self.world

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Add up named numbers over the processes; all must give the same names."""
        if not self.grouped:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return dict(zip(values, sums.tolist(), strict=True))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Average named numbers over the processes; all must give the same names."""
        return {name: value / self.world for name, value in self.total(values).items()}

    def any(self, flag: bool) -> bool:
        """Whether any process says so: to stop at the same step when one is interrupted or sees a NaN."""
        return self.total({"flag": float(flag)})["flag"] > 0

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value (a small picklable object) by rank, in every process."""
        values = [value] * self.world
        if self.grouped:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.grouped:
            dist.barrier()


@contextmanager
def join(device: str = "auto") -> Iterator[Distributed]:
    """Join the processes that `torchrun` started, or be the only one; leave in good order.

    Args:
        device: As for `resolve_device`; with several processes ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: The device is not there, or there are more processes than CUDA devices.
        TrainingError: Another process died.
    """
    if not _launched():
        yield Distributed(resolve_device(device))
        return
    own = _own_device(device, int(os.environ["LOCAL_RANK"]))
    if own.type == "cuda":
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=own)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        with _naming_lost_workers():
            yield Distributed(own, dist.get_rank(), dist.get_world_size(), grouped=True)
    finally:
        dist.destroy_process_group()


def is_main_process() -> bool:
    """Whether this is the process that speaks; known before `join`."""
    return not _launched() or os.environ["RANK"] == "0"


def _launched() -> bool:
    return all(name in os.environ for name in _LAUNCHED)


def _own_device(device: str, local_rank: int) -> torch.device:
    if device.startswith("cuda:"):
        raise UsageError(
            f"device '{device}' names one GPU, but torchrun gives each process its own", "use --device cuda"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = resolve_device(device).type
    if kind == "mps":
        raise UsageError("device 'mps' cannot train in several processes", "start it without torchrun")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise UsageError(
            f"torchrun started process {local_rank + 1} on a machine with {count} CUDA device(s): "
            "each process needs its own",
            f"use torchrun --nproc-per-node {count}, or --device cpu",
        )
    return torch.device("cuda", local_rank)


@contextmanager
def _naming_lost_workers() -> Iterator[None]:
    """Turn what NCCL and gloo say when a process is gone into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_worker(error):
            raise
        raise TrainingError(
            f"training process {dist.get_rank()} cannot go on, another one was lost: {_gist(error)}",
            "start the same command again to resume from the last checkpoint",
        ) from error


def _is_lost_worker(error: RuntimeError) -> bool:
    # gloo's failures arrive as plain RuntimeErrors that only their text tells apart
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _gist(error: RuntimeError) -> str:
    """The first sentence, without the source file that gloo puts before it."""
    return re.sub(r"^\[[^\]]*\]\s*", "", str(error)).partition("\n")[0].partition(". ")[0]
