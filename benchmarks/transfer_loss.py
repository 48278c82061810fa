"""Where to measure the loss: on the working copy, or on the full picture after the transfer?

    python benchmarks/transfer_loss.py --clear nyu/images --depth nyu/depth --val SOTS/indoor --loss working
    python benchmarks/transfer_loss.py --clear nyu/images --depth nyu/depth --val SOTS/indoor --loss full

Goes on with the bundled student-lite for equal steps on equal batches of RESIDE's ITS rule: pictures of
320 x 240 that the network sees at 160 x 120. Prints PSNR on the validation pairs, before and after.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dehaze.data.depth import DepthSource, find_frames
from dehaze.export import FullResolution
from dehaze.training.recipe import load_recipe
from dehaze.training.session import DataSpec, build_data
from dehaze.weights import resolve
from dehaze.weights.checkpoint import load_checkpoint

SIZE, WORKING = (240, 320), 160
BATCH, LR = 4, 2e-4


def main() -> None:
    """Read the command line, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clear", type=Path, required=True)
    parser.add_argument("--depth", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--loss", choices=("working", "full"), required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    model, header = load_checkpoint(resolve("student-lite"))
    cpu = torch.device("cpu")
    spec = DataSpec(clear=(options.clear,), depth=(str(options.depth),), validation=(options.val,))
    _, judge = build_data(spec, load_recipe("student-lite", {}), cpu)
    source = DepthSource(find_frames(options.clear, options.depth), [SIZE])
    print(f"before: {judge(model, header)['psnr']:.2f} dB")

    transfer = FullResolution(model, WORKING)
    optimiser = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.0)
    generator = torch.Generator().manual_seed(options.seed)
    began = time.monotonic()
    for step in range(options.steps):
        batch = source.batch(BATCH, SIZE, generator)
        for group in optimiser.param_groups:
            group["lr"] = LR * (1 - step / options.steps)
        optimiser.zero_grad()
        loss(batch, model, transfer, full=options.loss == "full").backward()
        optimiser.step()
    minutes = (time.monotonic() - began) / 60
    model.eval()
    psnr = judge(model, header)["psnr"]
    print(f"after {options.steps} steps, loss {options.loss}, {minutes:.1f} min: {psnr:.2f} dB")


def loss(batch: dict[str, Tensor], model: torch.nn.Module, transfer: FullResolution, *, full: bool) -> Tensor:
    """Mean absolute error, on the full pictures or on their working copies."""
    hazy, clear = batch["hazy"], batch["clear"]
    if full:
        answers = torch.cat([transfer(picture[None]) for picture in hazy])
        return functional.l1_loss(answers, clear)
    half = functional.avg_pool2d
    return functional.l1_loss(model(half(hazy, 2)), half(clear, 2))


if __name__ == "__main__":
    main()
