"""What methods cost: operations, latency of the network alone and from file to file, memory, start-up."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from dehaze import photo
from dehaze.bench.complexity import flops
from dehaze.bench.contenders import Contender
from dehaze.bench.latency import Case, Laps, Stopwatch, Timing, interleave
from dehaze.bench.quality import Pixels
from dehaze.bench.report import CostRow
from dehaze.dehazer import Dehazer
from dehaze.errors import DehazeError, UsageError

Size = tuple[int, int]
"""Width and height in pixels."""

Progress = Callable[[int, int, str], None]
"""Called with measurements done, measurements in all, and what was measured."""

LARGEST_SIDE = 65500
"""Pixels; more than that OpenCV does not write into a JPEG."""

_COLOUR = 0.3
"""Of the picture's contrast, what is not shared by its channels: haze leaves little colour."""

_Key = tuple[str, Size, str]
_YARDSTICK: _Key = ("yardstick", (310, 230), "")


@dataclasses.dataclass(frozen=True)
class CostSettings:
    """How to measure.

    Attributes:
        sizes: Of the pictures.
        batch: Pictures in one call of the network.
        seconds: Time to spend on each latency.
        resolution: As given to `Dehazer`.
        startup: Whether to start a fresh process for start-up time and peak memory.

    Raises:
        UsageError: A side is longer than `LARGEST_SIDE`.
    """

    sizes: Sequence[Size] = ((620, 460),)
    batch: int = 1
    seconds: float = 3.0
    resolution: str | int = "auto"
    startup: bool = True

    def __post_init__(self) -> None:
        for width, height in self.sizes:
            if max(width, height) > LARGEST_SIDE:
                raise UsageError(
                    f"pictures of {width} x {height} cannot be timed: a JPEG's sides are at most "
                    f"{LARGEST_SIDE} pixels"
                )


def measure_cost(
    contenders: Sequence[Contender],
    settings: CostSettings,
    device: torch.device,
    progress: Progress | None = None,
) -> tuple[list[CostRow], Timing]:
    """Measure every contender on every size, the latencies interleaved.

    Args:
        contenders: Methods.
        settings: How to measure.
        device: Where networks run.
        progress: Told of each finished measurement.

    Returns:
        Costs, and the time of a fixed piece of work in the same rounds: how fast the machine was just then.

    Raises:
        DehazeError: A fresh process failed.
    """
    cases: dict[_Key, Case] = {
        (c.name, size, kind): case
        for size in settings.sizes
        for c in contenders
        for kind, case in _cases(c, size, settings.batch).items()
    }
    cases[_YARDSTICK] = _yardstick_case(device)
    total = len(cases) + len(contenders) * len(settings.sizes) * settings.startup
    done = 0

    def count(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, what)

    times = interleave(cases, seconds=settings.seconds, progress=lambda key: count(key[0]))
    rows = []
    for size in settings.sizes:
        for contender in contenders:
            rows.append(_row(contender, size, settings, times))
            if settings.startup:
                rows[-1] = _with_startup(rows[-1], contender, settings)
                count(contender.name)
    return rows, times[_YARDSTICK]["total"]


def hazy_picture(width: int, height: int) -> Pixels:
    """Make a picture with the coarse and fine structure of a photo, the same every time: (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    picture = np.full((height, width, 3), 0.55, np.float32)
    for octave in range(1, 9):
        side = 2**octave
        grid = rng.standard_normal((min(side, height), min(side, width), 3), dtype=np.float32)
        grid = _COLOUR * grid + (1 - _COLOUR) * grid[..., :1]
        picture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * (0.3 / octave**2)
    pixels: Pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def as_jpeg(pixels: Pixels) -> bytes:
    """Encode (H, W, 3) uint8 RGB as a JPEG file of quality 90."""
    return bytes(cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def file_to_file(answer: Callable[[Pixels], Any], jpeg: bytes) -> Laps:
    """Decode, dehaze and encode one JPEG as `dehaze run` does, in memory."""
    watch = Stopwatch()
    picture = photo.read(io.BytesIO(jpeg))
    watch.lap("decode")
    clear = answer(picture.pixels)
    watch.lap("dehaze")
    photo.write(dataclasses.replace(picture, pixels=clear), io.BytesIO(), format="jpg")
    watch.lap("encode")
    return watch.laps


def _cases(contender: Contender, size: Size, batch: int) -> dict[str, Case]:
    jpeg = as_jpeg(hazy_picture(*size))
    cases: dict[str, Case] = {"files": lambda: file_to_file(contender.answer, jpeg)}
    if contender.dehazer is not None:
        cases["network"] = network_case(contender.dehazer, size, batch)
    return cases


def network_case(dehazer: Dehazer, size: Size, batch: int) -> Case:
    """The network alone, on tensors that lie on the device, for pictures of a size: a call for each look."""
    device = torch.device(dehazer.info.device)
    copies = [
        torch.rand(batch, 3, *look, device=device).contiguous(memory_format=torch.channels_last)
        for look in dehazer.looks(size[1], size[0])
    ]

    def run() -> Laps:
        watch = Stopwatch(lambda: synchronize(device))
        for x in copies:
            dehazer.forward(x)
        watch.lap("network")
        return watch.laps

    return run


def _yardstick_case(device: torch.device) -> Case:
    """The same work whatever is measured: convolutions of the paper's student's kind."""
    convolution = torch.nn.Conv2d(16, 16, 3, padding=1).to(device)
    x = torch.rand(1, 16, 230, 310, device=device)

    def run() -> Laps:
        watch = Stopwatch(lambda: synchronize(device))
        with torch.inference_mode():
            convolution(convolution(x))
        watch.lap("yardstick")
        return watch.laps

    return run


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _row(
    contender: Contender, size: Size, settings: CostSettings, times: dict[_Key, dict[str, Timing]]
) -> CostRow:
    files = times[contender.name, size, "files"]
    row = CostRow(
        method=contender.name,
        width=size[0],
        height=size[1],
        working_width=size[0],
        working_height=size[1],
        batch=settings.batch,
        precision="",
        resolution=str(settings.resolution),
        decode=files["decode"],
        dehaze=files["dehaze"],
        encode=files["encode"],
        whole=files["total"],
    )
    if contender.dehazer is None:
        return row
    looks = contender.dehazer.looks(size[1], size[0])
    height, width = looks[0]
    return dataclasses.replace(
        row,
        working_width=width,
        working_height=height,
        precision=contender.dehazer.info.precision,
        parameters=contender.dehazer.info.parameters,
        bytes=contender.bytes,
        gflops=None if contender.model is None else sum(flops(contender.model, *at) for at in looks) / 1e9,
        network=times[contender.name, size, "network"]["network"],
    )


def _with_startup(row: CostRow, contender: Contender, settings: CostSettings) -> CostRow:
    """Add start-up time and peak memory of a fresh process, see `dehaze.bench.probe`."""
    info = contender.dehazer.info if contender.dehazer else None
    with tempfile.TemporaryDirectory(prefix="dehaze-bench-") as folder:
        picture = Path(folder, "hazy.jpg")
        picture.write_bytes(as_jpeg(hazy_picture(row.width, row.height)))
        request = {
            "picture": str(picture),
            "source": contender.source,
            "settings": {
                "device": info.device,
                "precision": info.precision,
                "resolution": settings.resolution,
            }
            if info
            else None,
        }
        command = [sys.executable, "-P", "-m", "dehaze.bench.probe", json.dumps(request)]
        started = time.time()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise DehazeError(
            f"measuring the start-up of '{contender.name}' in a fresh process failed: {reason}",
            "leave it out with --no-startup",
        )
    answer = json.loads(result.stdout.splitlines()[-1])
    return dataclasses.replace(
        row,
        startup_s=answer["done"] - started,
        memory_mb=answer["memory_mb"],
        device_memory_mb=answer["device_memory_mb"],
    )
