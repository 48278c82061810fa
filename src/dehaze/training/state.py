"""The state of a run, complete enough that resumed equals uninterrupted; no pickle anywhere.

Tensors (weights, moving average, optimiser, random states) are safetensors; everything else is JSON in the
header.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dehaze.errors import TrainingError

_KEY = "dehaze-training"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps done.
        seconds: Time spent in the loop, over all sittings.
        best_metric: Best validation PSNR in dB so far.
        best_step: Step of it.
        judged: Step of the last whole validation.
    """

    step: int = 0
    seconds: float = 0.0
    best_metric: float = float("-inf")
    best_step: int = 0
    judged: int = 0


@dataclass(frozen=True)
class RunState:
    """What `save_state` stores.

    Attributes:
        progress: Where the run stands.
        recipe: The resolved recipe, plain values.
        identity: What the data is: see `dehaze.data`.
        tensors: ``model.*``, ``ema.*``, ``extras.*``, ``optimiser.<parameter>.<slot>`` and ``random.*``.
        world_size: Number of processes: batches depend on it.
        context: What else decides the outcome (see `Trainer`); None in states that do not tell.
    """

    progress: Progress
    recipe: dict[str, Any]
    identity: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    world_size: int = 1
    context: dict[str, Any] | None = None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names start with ``prefix.``, without it."""
        return {k[len(prefix) + 1 :]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def save_state(path: Path, state: RunState) -> None:
    """Write a run's state atomically and exactly."""
    from dehaze.weights.checkpoint import write_safetensors

    meta = {
        "progress": asdict(state.progress),
        "recipe": state.recipe,
        "identity": state.identity,
        "world_size": state.world_size,
        "context": state.context,
    }
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in state.tensors.items()}
    write_safetensors(path, tensors, {_KEY: json.dumps(meta)})


def load_state(path: Path) -> RunState:
    """Read what `save_state` wrote.

    Raises:
        TrainingError: The file is missing, damaged or not a training state.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise TrainingError(f"no training state at {path}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(f"{path} is damaged and cannot be resumed: {error}") from error
    if meta is None:
        raise TrainingError(f"{path} is not the state of a training run")
    return RunState(
        Progress(**meta["progress"]),
        meta["recipe"],
        meta["identity"],
        tensors,
        int(meta["world_size"]),
        meta.get("context"),
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimiser's state: ``<parameter number>.<slot>`` -> tensor."""
    state = optimiser.state_dict()["state"]
    return {
        f"{i}.{slot}": torch.as_tensor(value) for i, slots in state.items() for slot, value in slots.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out."""
    current = optimiser.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, slot = key.split(".", 1)
        slots.setdefault(int(number), {})[slot] = value
    current["state"] = slots
    optimiser.load_state_dict(current)
    for parameter, kept in optimiser.state.items():
        for slot, value in kept.items():
            if value.shape == parameter.shape:  # as the parameter lies in memory, or fast kernels refuse
                kept[slot] = torch.empty_like(parameter).copy_(value)


def differences(kept: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two trees of plain values, as ``key: old -> new``."""
    found: list[str] = []
    for key in sorted(kept.keys() | now.keys()):
        old, new = kept.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif json.dumps(old) != json.dumps(new):
            found.append(f"{prefix}{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return found
