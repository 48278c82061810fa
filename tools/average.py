"""Average the weights of networks that were trained on from the same start.

    python tools/average.py mean.safetensors one.safetensors other.safetensors

The first network's header goes with the mean, without its figures: they are to be measured again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from dehaze.errors import DehazeError, ModelError
from dehaze.models import config_dict
from dehaze.weights.checkpoint import load_checkpoint, save_checkpoint


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mean", type=Path)
    parser.add_argument("networks", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        _average(options.mean, options.networks)
    except (DehazeError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def _average(target: Path, networks: list[Path]) -> None:
    loaded = [load_checkpoint(path) for path in networks]
    (first, header), *others = loaded
    for path, (model, other) in zip(networks[1:], others, strict=True):
        if other.architecture != header.architecture or config_dict(model) != config_dict(first):
            raise ModelError(f"{path} is another network than {networks[0]}")
        if other.reduction != header.reduction:
            raise ModelError(f"{path} looks at another working copy than {networks[0]}: {other.reduction}")
    states = [model.state_dict() for model, _ in loaded]
    mean = {name: _mean([state[name] for state in states]) for name in states[0]}
    save_checkpoint(target, mean, replace(header, metrics={}))


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    """The mean; of counts of batches, which are no weights, the first."""
    return torch.stack(values).mean(0) if values[0].is_floating_point() else values[0]


if __name__ == "__main__":
    main()
