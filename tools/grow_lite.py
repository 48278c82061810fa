"""Give a lite network coarser levels without changing what it answers, so that training can go on from it.

    python tools/grow_lite.py small.safetensors grown.safetensors --widths 16,32,40 --blocks 5,3,2

What is new on the way up begins as zero and every new block passes its input on, so the grown network starts
with the small one's answers (exactly, where the picture needs no padding). `dehaze train lite --init
grown.safetensors` with the same widths and blocks in the recipe (``model = {widths = ..., blocks = ...}``)
teaches it to use the rest.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from dehaze.models import build, config_dict, count_parameters
from dehaze.models.lite import Lite
from dehaze.weights.checkpoint import load_checkpoint, save_checkpoint


def grow(small: Lite, widths: tuple[int, ...], blocks: tuple[int, ...]) -> Lite:
    """A network whose first levels are those of `small` and whose others add nothing yet.

    Raises:
        SystemExit: The first widths and blocks are not those of `small`.
    """
    levels = len(small.config.widths)
    if widths[:levels] != small.config.widths or blocks[:levels] != small.config.blocks:
        raise SystemExit(f"the first {levels} widths and blocks must be those of the network: {small.config}")
    torch.manual_seed(0)
    grown = build("lite", replace(small.config, widths=widths, blocks=blocks))
    assert isinstance(grown, Lite)
    grown.load_state_dict({**grown.state_dict(), **small.state_dict()})
    with torch.no_grad():
        for level in range(levels - 1, len(widths) - 1):
            new = [grown.up[level], *(block.conv2 for block in grown.up_stages[level])]
            for values in (p for module in new for p in module.parameters()):
                values.zero_()
    return grown


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("small", type=Path)
    parser.add_argument("grown", type=Path)
    parser.add_argument("--widths", type=_numbers, required=True, help="of the grown network, finest first")
    parser.add_argument("--blocks", type=_numbers, required=True)
    options = parser.parse_args()
    small, header = load_checkpoint(options.small)
    if not isinstance(small, Lite):
        raise SystemExit(f"{options.small} holds a {header.architecture} network, expected lite")
    grown = grow(small, options.widths, options.blocks)
    picture = torch.rand(1, 3, 8 * grown.limits.multiple, 16 * grown.limits.multiple)
    with torch.inference_mode():
        off = float((grown.eval()(picture) - small.eval()(picture)).abs().max())
    if off > 1e-6:
        raise SystemExit(f"the grown network answers differently, by up to {off:g}")
    parameters = count_parameters(grown)
    header = replace(header, config=config_dict(grown), parameters=parameters, metrics={}, name="grown")
    save_checkpoint(options.grown, grown.state_dict(), header)
    print(f"{options.grown}: {parameters:,} values, {count_parameters(small):,} of them from {options.small}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
