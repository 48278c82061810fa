"""What `dehaze run` costs on one small photo, start-up included: by NumPy, by PyTorch and by ONNX Runtime.

    python benchmarks/startup.py
    OMP_NUM_THREADS=1 python benchmarks/startup.py --model student --rounds 20

Whole processes, in turn. CPU time (user and system, all threads) depends little on what else the machine
does; wall-clock time does. Medians, and ratios of the medians. Needs the extra `onnx`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from dehaze.weights.manifest import read_manifest

PHOTO = Path(__file__).parents[1] / "docs" / "pictures" / "road.jpg"
EMPTY, NUMPY, TORCH, ONNX = (
    "python, nothing else",
    "dehaze run",
    "the same by PyTorch",
    "the same by ONNX Runtime",
)
PROGRAM = "from dehaze.cli import main; raise SystemExit(main())"


def dehaze(*arguments: str) -> list[str]:
    """A command line as the installed `dehaze` has it."""
    return [sys.executable, "-P", "-c", PROGRAM, *arguments]


def measure(command: list[str]) -> tuple[float, float]:
    """CPU and wall-clock seconds of one process from start to end."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, wall


def measure_all(commands: dict[str, list[str]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median CPU and wall-clock seconds of each command; a first round fills the disk's cache."""
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            laps[name].append(measure(command))
    return {
        name: (median(cpu for cpu, _ in of[1:]), median(wall for _, wall in of[1:]))
        for name, of in laps.items()
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="student-lite", help="student-lite or student")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    working_size = read_manifest()[options.model].working_size
    with tempfile.TemporaryDirectory() as folder:
        network, clear = str(Path(folder, "network.onnx")), str(Path(folder, "clear.jpg"))
        export = dehaze("export", "onnx", "--part", "network", "-q", "-m", options.model, "-o", network)
        subprocess.run(export, check=True)
        run = dehaze("run", str(PHOTO), "-o", clear, "-y", "-q", "-d", "cpu", "-m")
        commands = {
            EMPTY: [sys.executable, "-c", "pass"],
            NUMPY: [*run, options.model],
            # The size that it works at anyway; asking for one asks for PyTorch.
            TORCH: [*run, options.model, "--resolution", str(working_size)],
            ONNX: [*run, network],
        }
        times = measure_all(commands, options.rounds)
    print(f"\n| {options.model}, one photo | CPU, s | wall clock, s |\n|---|---:|---:|")
    for name, (cpu, wall) in times.items():
        print(f"| {name} | {cpu:.2f} | {wall:.2f} |")
    cpu, wall = times[NUMPY]
    print()
    for name in (TORCH, ONNX):
        print(f"{name}: {times[name][0] / cpu:.1f} times the CPU, {times[name][1] / wall:.1f} times the wait")


if __name__ == "__main__":
    main()
