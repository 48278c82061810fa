"""Memory and time of the feature affinity loss against the direct form that builds the N x N matrices.

    python benchmarks/affinity.py
    python benchmarks/affinity.py --device cuda --grids 29x39 58x78 115x155 230x310

One loss and its gradient for one picture at one scale, channels as the paper's student (16) and teacher (168)
have them. Each case has a process of its own, so that its peak memory is its own; the direct form and ours
take turns. 115 x 155 positions are a 460 x 620 picture pooled to a quarter. On a CPU memory is the peak of
the resident set, with glibc told to give back what is freed, so that it is what the computation holds; the
direct form needs 9 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dehaze.affinity import TEMPERATURE, compare, unit_positions

MEASURES = ("l2", "l1", "kl")
FORMS = ("direct", "ours")
MIB = 2**20


def direct(student: Tensor, teacher: Tensor, measure: str) -> Tensor:
    """The same losses by their definition."""
    s, t = unit_positions(student), unit_positions(teacher)
    own, target = s @ s.mT, t @ t.mT  # (B, N, N)
    if measure == "l2":
        return (own - target).square().mean()
    if measure == "l1":
        return (own - target).abs().mean()
    log_h, log_c = (own / TEMPERATURE).log_softmax(2), (target / TEMPERATURE).log_softmax(2)
    return (log_h.exp() * (log_h - log_c)).sum(2).mean()


def measure_case(form: str, measure: str, grid: tuple[int, int], device: torch.device, repeats: int) -> None:
    """Run one case and print value, median seconds and extra peak bytes as JSON."""
    loss = direct if form == "direct" else compare
    run_once(loss, measure, (4, 4), device)  # libraries loaded, threads started
    student, teacher = make_maps(grid, device)
    before = memory(device)
    seconds, value = [], 0.0
    for _ in range(repeats):
        value, taken = run_once(loss, measure, grid, device, (student, teacher))
        seconds.append(taken)
    peak = memory(device) - before
    print(json.dumps({"value": value, "seconds": statistics.median(seconds), "bytes": peak}))


def run_once(
    loss: Callable[..., Tensor],
    measure: str,
    grid: tuple[int, int],
    device: torch.device,
    given: tuple[Tensor, Tensor] | None = None,
) -> tuple[float, float]:
    """One loss and its gradient: value and seconds."""
    student, teacher = given or make_maps(grid, device)
    student.grad = None
    synchronise(device)
    start = time.perf_counter()
    value = loss(student, teacher, measure)
    value.backward()
    synchronise(device)
    return value.item(), time.perf_counter() - start


def make_maps(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Maps of a student and a teacher, pooled already; positions are alike to some degree, as in pictures."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, 16, *grid, generator=generator)
    student = common + 0.5 * torch.randn(1, 16, *grid, generator=generator)
    teacher = torch.randn(168, 16, generator=generator) @ common.flatten(2)
    return student.to(device).requires_grad_(), teacher.reshape(1, 168, *grid).to(device)


def memory(device: torch.device) -> int:
    """Peak bytes so far: allocated on the device, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_a_process(form: str, measure: str, grid: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case elsewhere; empty if it ran out of memory."""
    command = [sys.executable, __file__, "--case", form, measure, grid]
    command += ["--device", arguments.device, "--repeats", str(arguments.repeats)]
    honest = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=honest)
    result: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return result


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, dict[str, Any]]]]:
    """Yield loss, grid and what both forms measured, in the order of the table."""
    for measure in MEASURES:
        for grid in arguments.grids:
            results = {}
            for form in FORMS:
                skip = form == "direct" and positions(grid) > arguments.direct_up_to
                results[form] = {} if skip else in_a_process(form, measure, grid, arguments)
            yield measure, grid, results


def positions(grid: str) -> int:
    """Return N."""
    height, width = map(int, grid.split("x"))
    return height * width


def row(measure: str, grid: str, results: dict[str, dict[str, Any]], before: tuple[int, float] | None) -> str:
    """One line of the table; `before` is N and seconds of the line above."""
    own, other = results["ours"], results["direct"]
    cells = [measure, grid, f"{positions(grid):,}"]
    for key, unit, scale in (("bytes", "MiB", MIB), ("seconds", "ms", 1e-3)):
        for values in (other, own):
            cells.append(f"{values[key] / scale:,.1f} {unit}" if values else "-")
        cells.append(f"{other[key] / max(own[key], 1e-9):,.1f} x" if own and other and own[key] else "-")
    growth = "-"
    if before and own:
        growth = f"{own['seconds'] / before[1]:.1f} x for {positions(grid) / before[0]:.1f} x"
    difference = f"{abs(own['value'] / other['value'] - 1):.0e}" if own and other else "-"
    return "| " + " | ".join([*cells, growth, difference]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grids", nargs="+", default=["29x39", "58x78", "115x155"], help="positions, HxW")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--direct-up-to", type=int, default=20_000, help="most positions the direct form is given"
    )
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.case:
        form, measure, grid = arguments.case
        height, width = map(int, grid.split("x"))
        measure_case(form, measure, (height, width), device, arguments.repeats)
        return
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"torch {torch.__version__}, {where}; loss and gradient, one picture, one scale, "
        "16 and 168 channels\n"
    )
    print(
        "| loss | grid | N | memory, direct | ours | less | time, direct | ours | faster "
        "| time's growth | differ by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    before: dict[str, tuple[int, float]] = {}
    for measure, grid, results in cases(arguments):
        print(row(measure, grid, results, before.get(measure)), flush=True)
        if results["ours"]:
            before[measure] = positions(grid), results["ours"]["seconds"]


if __name__ == "__main__":
    main()
