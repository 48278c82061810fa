"""A compiled training step of the student with our ReLU (`dehaze.models.activation`) and with `torch.relu`.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py
    OMP_NUM_THREADS=1 python benchmarks/training_step.py --size 80x60 --batch 8 --rounds 7

Forward and backward on one batch, as `dehaze train student --compile` computes them on a CPU: in bfloat16, or
with `--precision fp32` as on processors without it. The two take turns in one process; the medians of CPU
time and their ratio are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch

from dehaze.models import student
from dehaze.models.activation import relu

FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"torch": torch.relu, "ours": relu}


def compiled_step(form: str, batch: int, height: int, width: int, half: bool) -> Callable[[], None]:
    """A step whose network was compiled with one of the two forms."""
    torch.manual_seed(0)
    network = student.Student().to(memory_format=torch.channels_last)
    network.tail.reset_parameters()  # with the zeros it starts from, no gradient would reach the blocks
    compiled = torch.compile(network)
    hazy, clear = torch.rand(2, batch, 3, height, width)
    hazy = hazy.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        precision = torch.autocast("cpu", torch.bfloat16, enabled=half)
        with mock.patch.object(student, "relu", FORMS[form]), precision:
            answer = compiled(hazy)
        (answer.float() - clear).abs().mean().backward()
        network.zero_grad(set_to_none=True)

    step()  # compiles
    return step


def cpu_seconds(step: Callable[[], None]) -> float:
    """What one step takes of the processor."""
    started = time.process_time()
    step()
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="160x120", help="width and height of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    half = options.precision == "bf16"
    steps = {form: compiled_step(form, options.batch, height, width, half) for form in FORMS}
    taken = [{form: cpu_seconds(step) for form, step in steps.items()} for _ in range(options.rounds)]
    medians = {form: statistics.median(row[form] for row in taken) for form in FORMS}
    for form, seconds in medians.items():
        print(f"{form:6} {1000 * seconds:8.1f} ms a step  {options.batch / seconds:6.2f} pictures a second")
    ratio = statistics.median(row["torch"] / row["ours"] for row in taken)
    print(f"torch.relu takes {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
