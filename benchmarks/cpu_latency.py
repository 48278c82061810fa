"""What dehazing costs on a CPU, beside reading and writing the same JPEG file; all in one run, in turn.

    python benchmarks/cpu_latency.py
    OMP_NUM_THREADS=2 python benchmarks/cpu_latency.py --sizes 1080p 12MP --seconds 5 --start-up

Networks have random weights: time does not depend on them, as denormals are flushed. student-lite looks at a
working copy and transfers its answer to every pixel; the paper's student and AOD-Net run at full resolution,
which the student, at seconds and gigabytes, does up to 1080p only. Rows with ONNX Runtime and OpenVINO are
there if those are installed: `ort` and `openvino` are the network alone with our transfer around it,
`ort graph` all of it as one ONNX file.
Times are medians. Memory is the peak resident set of a process of its own, beyond what it held with picture
and network loaded.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dehaze.bench.dark_channel import DarkChannel
from dehaze.bench.environment import describe_environment
from dehaze.bench.latency import interleave
from dehaze.dehazer import Dehazer
from dehaze.machine import available_cpus
from dehaze.models import build
from dehaze.upsample import apply, fit, noise_variance
from dehaze.weights import Header
from dehaze.weights.manifest import read_manifest

SIZES = {"620x460": (460, 620), "1080p": (1080, 1920), "4K": (2160, 3840), "12MP": (3000, 4000)}
LITE, STUDENT, AOD, PRIOR, JPEG = "student-lite", "student", "aod-net", "dark channel prior", "JPEG in + out"
TRANSFER, ORT, ORT_GRAPH = "  its transfer alone", "student-lite, ort", "student-lite, ort graph"
OPENVINO = "student-lite, openvino"
STUDENT_LIMIT = 1080 * 1920
ENTRY = read_manifest()[LITE]
RADIUS = ENTRY.transfer_radius
STARTS = {
    "nothing": "pass",
    "import numpy, cv2": "import numpy, cv2",
    "import onnxruntime, numpy, cv2": "import onnxruntime, numpy, cv2",
    "import torch, numpy, cv2": "import torch, numpy, cv2",
    "import dehaze.dehazer": "import dehaze.dehazer",
}

Pixels = npt.NDArray[np.uint8]
Method = Callable[[Pixels], object]


def picture(size: str) -> Pixels:
    """A hazy scene of smooth surfaces and fine grain, about as hard to compress as a photo."""
    height, width = SIZES[size]
    rng = np.random.default_rng(0)
    rough = rng.uniform(90, 230, (height // 60 + 2, width // 60 + 2, 3)).astype(np.float32)
    scene = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    scene += rng.normal(0, 4, (height, width, 1)).astype(np.float32)
    return np.clip(scene, 0, 255).astype(np.uint8)


def network(architecture: str, working_size: int) -> tuple[torch.nn.Module, Header]:
    """A network of random weights and a header as its checkpoint would have it."""
    torch.manual_seed(0)
    header = Header(
        architecture,
        architecture,
        working_size=working_size,
        transfer_radius=RADIUS,
        reduction=ENTRY.reduction,
    )
    return build(architecture), header


def lite(working_size: int) -> Dehazer:
    """student-lite, ready."""
    return Dehazer(*network("lite", working_size), device="cpu")


def whole(architecture: str) -> Dehazer:
    """A network that runs on every pixel."""
    return Dehazer(*network(architecture, 0), device="cpu", resolution="full", tile="off")


def transfer(dehaze: Dehazer) -> Method:
    """Everything student-lite does but its network."""

    def run(pixels: Pixels) -> Pixels:
        guide = dehaze.working_copy(pixels)
        return apply(pixels, fit(guide, guide, noise=noise_variance(pixels), radius=RADIUS))

    return run


def jpeg(pixels: Pixels) -> Method:
    """Decode and encode a picture's own file, as Pillow and `dehaze run` do."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)

    def run(_: Pixels) -> None:
        decoded = np.asarray(Image.open(io.BytesIO(file.getvalue())))
        Image.fromarray(decoded).save(io.BytesIO(), "JPEG", quality=95)

    return run


def session(part: str, working_size: int) -> Callable[[Pixels], Pixels]:
    """student-lite exported and loaded by ONNX Runtime: (1, 3, h, w) -> (1, 3, h, w)."""
    import onnxruntime

    from dehaze.export import export_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lite.onnx"
        export_onnx(*network("lite", working_size), path, part=part)
        ready = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: ready.run(None, {"hazy": x})[0]


def openvino_model(working_size: int) -> Callable[[Pixels], Pixels]:
    """student-lite's network exported and loaded by OpenVINO: (1, 3, h, w) -> (1, 3, h, w)."""
    import openvino

    from dehaze.export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lite.onnx"
        export_onnx(*network("lite", working_size), path, part="network")
        settings = {"INFERENCE_NUM_THREADS": str(available_cpus())}
        ready = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda x: ready(x)[0]


def around(run: Callable[[Pixels], Pixels], working_size: int) -> Method:
    """Another runtime for the network, ours for the rest."""
    dehaze = lite(working_size)

    def method(pixels: Pixels) -> Pixels:
        guide = dehaze.working_copy(pixels)
        answer = run(np.ascontiguousarray(guide.transpose(2, 0, 1)[None]))[0].transpose(1, 2, 0)
        return apply(pixels, fit(guide, answer, noise=noise_variance(pixels), radius=RADIUS))

    return method


def ort_graph(working_size: int) -> Method:
    """ONNX Runtime for everything, from and to uint8."""
    run = session("full", working_size)

    def method(pixels: Pixels) -> Pixels:
        x = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        return np.rint(run(x)[0].transpose(1, 2, 0) * np.float32(255)).astype(np.uint8)

    return method


def method_of(name: str, pixels: Pixels, working_size: int) -> Method:
    """Make a row of the table ready to run."""
    makers: dict[str, Callable[[], Method]] = {
        JPEG: lambda: jpeg(pixels),
        LITE: lambda: lite(working_size),
        TRANSFER: lambda: transfer(lite(working_size)),
        ORT: lambda: around(session("network", working_size), working_size),
        OPENVINO: lambda: around(openvino_model(working_size), working_size),
        ORT_GRAPH: lambda: ort_graph(working_size),
        AOD: lambda: whole("aod-net"),
        STUDENT: lambda: whole("student"),
        PRIOR: DarkChannel,
    }
    return makers[name]()


def rows(size: str) -> list[str]:
    """Which methods run at a size."""
    names = [JPEG, LITE, TRANSFER]
    if importlib.util.find_spec("onnx"):
        names += [ORT, ORT_GRAPH] if importlib.util.find_spec("onnxruntime") else []
        names += [OPENVINO] if importlib.util.find_spec("openvino") else []
    names += [AOD, PRIOR]
    height, width = SIZES[size]
    return [*names, STUDENT] if height * width <= STUDENT_LIMIT else names


def milliseconds(size: str, working_size: int, seconds: float) -> dict[str, float]:
    """Median of each method at one size, all in turn."""
    pixels = picture(size)

    def case(method: Method) -> dict[str, float]:
        start = time.perf_counter()
        method(pixels)
        return {"run": time.perf_counter() - start}

    cases = {name: functools.partial(case, method_of(name, pixels, working_size)) for name in rows(size)}
    return {name: times["total"].median for name, times in interleave(cases, seconds=seconds).items()}


def resident(field: str) -> float:
    """MiB of this process: `VmRSS` now or `VmHWM` at its peak."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def extra_memory(name: str, size: str, working_size: int) -> float:
    """MiB one run takes at its peak, in this process: call it once, in a fresh one."""
    pixels = picture(size)
    method = method_of(name, pixels, working_size)
    method(pixels[:64, :64].copy())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    method(pixels)
    return resident("VmHWM") - before


def memory(name: str, size: str, working_size: int) -> float:
    """MiB one run takes at its peak, measured in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--memory",
        name,
        "--sizes",
        size,
        "--working-size",
        str(working_size),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def starts(rounds: int = 5) -> dict[str, float]:
    """Median milliseconds of fresh processes, in turn."""
    laps: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds + 1):
        for name, code in STARTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            laps[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values[1:]) for name, values in laps.items()}


def table(title: str, sizes: list[str], cells: dict[str, dict[str, str]]) -> None:
    """Print methods down, sizes across."""
    print(f"\n| {title} | {' | '.join(sizes)} |\n|---|{'---:|' * len(sizes)}")
    for name in dict.fromkeys(name for column in cells.values() for name in column):
        print(f"| {name} | {' | '.join(cells[size].get(name, '') for size in sizes)} |")


def ratios(times: dict[str, dict[str, float]]) -> None:
    """Print how student-lite compares at each size, and how all grow."""
    print()
    for size, ms in times.items():
        others = [f"{ms[name] / ms[LITE]:.1f} x under {name}" for name in (AOD, STUDENT, PRIOR) if name in ms]
        print(f"{size}: student-lite takes {ms[LITE] / ms[JPEG]:.2f} x {JPEG}, {', '.join(others)}")


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--working-size", type=int, default=160, help="long side student-lite looks at")
    parser.add_argument("--seconds", type=float, default=3, help="time to spend on each row and size")
    parser.add_argument("--start-up", action="store_true", help="also time how processes start")
    parser.add_argument("--no-memory", action="store_true", help="leave memory out")
    parser.add_argument("--memory", metavar="ROW", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(extra_memory(options.memory, options.sizes[0], options.working_size))
        return
    times = {size: milliseconds(size, options.working_size, options.seconds) for size in options.sizes}
    print(describe_environment(torch.device("cpu")).describe())
    table("ms", options.sizes, {s: {n: f"{ms:.1f}" for n, ms in times[s].items()} for s in times})
    megapixels = {size: SIZES[size][0] * SIZES[size][1] / 1e6 for size in times}
    growth = {s: {n: f"{ms / megapixels[s]:.1f}" for n, ms in times[s].items()} for s in times}
    table("ms / megapixel", options.sizes, growth)
    ratios(times)
    if not options.no_memory:
        peaks = {s: {n: f"{memory(n, s, options.working_size):.0f}" for n in times[s]} for s in times}
        table("peak MiB beyond picture and network", options.sizes, peaks)
    if options.start_up:
        print("\nstart-up, ms:", ", ".join(f"{name}: {ms:.0f}" for name, ms in starts().items()))


if __name__ == "__main__":
    main()
