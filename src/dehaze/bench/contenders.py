"""Who takes part in a run: the models asked for and the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dehaze import weights
from dehaze.bench.quality import Method
from dehaze.bench.references import REFERENCE_MODELS, REFERENCES
from dehaze.dehazer import Dehazer


@dataclass(frozen=True)
class Contender:
    """One method, ready to run.

    Attributes:
        name: In reports.
        answer: Hazy (H, W, 3) uint8 -> clear.
        source: What a fresh process needs to load the same: a path, or the name of a reference.
        model: The network as loaded, for counting; None for references without one and for exported ones.
        dehazer: The network made ready; None for references without one.
        bytes: Size of the checkpoint file; None without one.
    """

    name: str
    answer: Method
    source: str
    model: nn.Module | None = None
    dehazer: Dehazer | None = None
    bytes: int | None = None


def gather(models: Sequence[str | None], *, references: bool = True, **settings: Any) -> list[Contender]:
    """Load models and references, references last.

    Models that share a name, or have that of a reference, are called what they were asked for by.

    Args:
        models: Names, paths or addresses; None for the default model.
        references: Whether to add untouched, dark channel prior and the bundled reference models.
        **settings: Keyword arguments of `Dehazer`.

    Raises:
        ModelError: A model is not available.
        UsageError: A model cannot run as asked.
    """
    names = list(dict.fromkeys(models))
    if references:
        published = {entry.name for entry in weights.list_models()}
        names += [name for name in REFERENCE_MODELS if name in published and name not in names]
    asked: dict[str, tuple[str, Contender]] = {}
    for name in names:
        contender = _load(name, settings)
        asked.setdefault(contender.source, (name or contender.name, contender))
    bearers = Counter([*REFERENCES, *(contender.name for _, contender in asked.values())])
    taking_part = [c if bearers[c.name] == 1 else replace(c, name=name) for name, c in asked.values()]
    if references:
        taking_part += [Contender(name, method, name) for name, method in REFERENCES.items()]
    return taking_part


def _load(source: str | None, settings: dict[str, Any]) -> Contender:
    path: Path = weights.resolve(source)
    model, header = weights.load_to_run(str(path))
    dehazer = Dehazer(model, header, **settings)
    counted = model if isinstance(model, nn.Module) else None
    return Contender(header.name, dehazer, str(path), counted, dehazer, path.stat().st_size)
