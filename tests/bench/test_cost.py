from __future__ import annotations

import io
import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dehaze.bench.complexity import flops
from dehaze.bench.contenders import Contender, gather
from dehaze.bench.cost import (
    CostSettings,
    as_jpeg,
    file_to_file,
    hazy_picture,
    measure_cost,
    network_case,
)
from dehaze.bench.probe import measure
from dehaze.dehazer import from_name
from dehaze.errors import DehazeError, ModelError, UsageError
from dehaze.models import build
from dehaze.weights.checkpoint import Header, read_header, rewrite_header, save_checkpoint

CPU = torch.device("cpu")
QUICK = CostSettings(sizes=((64, 48),), seconds=0, startup=False)


def test_models_and_references_are_gathered_once(checkpoints: dict[str, str]) -> None:
    names = [c.name for c in gather([checkpoints["lite"], checkpoints["lite"], checkpoints["aod-net"]])]
    assert names[:3] == ["lite", checkpoints["aod-net"], "aod-net"]  # theirs, then the bundled reference
    assert names[-2:] == ["untouched", "dark-channel"]
    assert len(set(names)) == len(names)


def test_two_models_of_one_name_are_told_apart(checkpoints: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(checkpoints["lite"]).read_bytes())
    names = [c.name for c in gather([checkpoints["lite"], str(copy)], references=False)]
    assert names == [checkpoints["lite"], str(copy)]
    save_checkpoint(copy, build("lite").state_dict(), Header(name="student-lite", architecture="lite"))
    names = [c.name for c in gather([None, str(copy)], references=False)]
    assert names == ["student-lite", str(copy)]


def test_a_model_is_not_mistaken_for_a_reference_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_checkpoint(path, build("lite").state_dict(), Header(name="untouched", architecture="lite"))
    assert [c.name for c in gather([str(path)], device="cpu")] == [
        str(path),
        "aod-net",
        "untouched",
        "dark-channel",
    ]
    assert gather([str(path)], references=False, device="cpu")[0].name == str(path)


def test_pictures_that_no_jpeg_holds_are_refused() -> None:
    assert CostSettings(sizes=((65500, 1),)).sizes
    with pytest.raises(UsageError, match="65501 x 10"):
        CostSettings(sizes=((64, 48), (65501, 10)))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelError, match="no model named 'nothing-like-it'"):
        gather(["nothing-like-it"])


def test_figures_of_a_row_agree_with_independent_ones(checkpoints: dict[str, str]) -> None:
    contenders = gather([checkpoints["lite"]], references=False)
    (row,), yardstick = measure_cost(contenders, QUICK, CPU)
    assert (row.working_width, row.working_height) == (48, 36)
    assert row.parameters == sum(p.numel() for p in build("lite").parameters())
    assert row.gflops == pytest.approx(flops(build("lite"), 36, 48) / 1e9)
    assert row.bytes == len(Path(checkpoints["lite"]).read_bytes())
    assert row.network is not None
    assert row.network_rate == pytest.approx(1000 / row.network.median)
    assert yardstick.median > 0


def test_a_case_runs_the_whole_batch_at_the_working_size(checkpoints: dict[str, str]) -> None:
    dehazer = from_name(checkpoints["lite"], device="cpu")
    shapes: list[tuple[int, ...]] = []
    dehazer.forward = lambda x: shapes.append(tuple(x.shape))
    assert list(network_case(dehazer, (64, 48), 4)()) == ["network"]
    assert shapes == [(4, 3, 36, 48)]


def test_a_second_look_costs_as_much_as_it_does(checkpoints: dict[str, str], tmp_path: Path) -> None:
    path = Path(checkpoints["lite"])
    rewrite_header(path, tmp_path / path.name, replace(read_header(path), second_look=32))
    settings = CostSettings(sizes=((64, 48),), seconds=0, startup=False)
    (row,), _ = measure_cost(gather([str(tmp_path / path.name)], references=False), settings, CPU)
    assert row.gflops == pytest.approx((flops(build("lite"), 36, 48) + flops(build("lite"), 24, 32)) / 1e9)
    dehazer = from_name(str(tmp_path / path.name), device="cpu")
    shapes: list[tuple[int, ...]] = []
    dehazer.forward = lambda x: shapes.append(tuple(x.shape))
    network_case(dehazer, (64, 48), 4)()
    assert shapes == [(4, 3, 36, 48), (4, 3, 24, 32)]


def test_batches_are_counted_in_pictures(checkpoints: dict[str, str]) -> None:
    settings = CostSettings(sizes=((64, 48),), batch=4, seconds=0, startup=False)
    (row,), _ = measure_cost(gather([checkpoints["lite"]], references=False), settings, CPU)
    assert row.network is not None
    assert row.network_rate == pytest.approx(4000 / row.network.median)
    assert row.gflops == pytest.approx(flops(build("lite"), 36, 48) / 1e9)


def test_every_method_meets_every_size_and_progress_ends_at_the_total(checkpoints: dict[str, str]) -> None:
    settings = CostSettings(sizes=((64, 48), (32, 32)), seconds=0, startup=False)
    told: list[tuple[int, int]] = []
    rows, _ = measure_cost(
        gather([checkpoints["lite"]]), settings, CPU, lambda done, total, what: told.append((done, total))
    )
    assert {(r.method, r.width, r.height) for r in rows} == {
        (name, *size) for name in ("lite", "untouched", "dark-channel") for size in ((64, 48), (32, 32))
    } | {(r.method, r.width, r.height) for r in rows if r.method == "aod-net"}
    assert told[-1][0] == told[-1][1] == len(told)


def test_references_have_no_network(checkpoints: dict[str, str]) -> None:
    rows, _ = measure_cost(gather([checkpoints["lite"]]), QUICK, CPU)
    dark = next(r for r in rows if r.method == "dark-channel")
    assert (dark.network, dark.parameters, dark.gflops, dark.network_rate) == (None, None, None, None)
    assert dark.whole is not None
    assert dark.whole_rate == pytest.approx(1000 / dark.whole.median)


def test_stages_are_told_apart() -> None:
    def slow(pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return pixels

    laps = file_to_file(slow, as_jpeg(hazy_picture(64, 48)))
    assert list(laps) == ["decode", "dehaze", "encode"]
    assert laps["dehaze"] >= 0.05


def test_the_picture_is_always_the_same_and_like_a_photo() -> None:
    first, second = hazy_picture(320, 200), hazy_picture(320, 200)
    assert first.shape == (200, 320, 3)
    assert np.array_equal(first, second)
    assert 0.02 < len(as_jpeg(first)) / first.size < 0.5  # neither noise nor a flat wall
    assert np.ptp(first, axis=2).mean() < 0.2 * np.ptp(first)  # colours as dull as haze leaves them
    with Image.open(io.BytesIO(as_jpeg(first))) as image:
        assert np.abs(np.asarray(image, int) - first).mean() < 4


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1000, 2)])
def test_any_size_of_picture_can_be_made(size: tuple[int, int]) -> None:
    assert hazy_picture(*size).shape == (size[1], size[0], 3)


def test_start_up_and_memory_are_those_of_another_process() -> None:
    ballast = np.ones(300_000_000, np.uint8)  # must not count: it is ours
    settings = CostSettings(sizes=((64, 48),), seconds=0)
    (row,), _ = measure_cost([Contender("untouched", lambda x: x, "untouched")], settings, CPU)
    assert row.startup_s is not None
    assert row.memory_mb is None or 10 < row.memory_mb < 300
    assert row.startup_s > 0.02
    assert ballast.any()


def test_the_other_process_runs_as_this_one_was_asked_to(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[dict[str, Any]] = []

    def answer(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        requests.append(json.loads(command[-1]))
        said = {"done": time.time() + 7, "memory_mb": 5.0, "device_memory_mb": None}
        return subprocess.CompletedProcess(command, 0, json.dumps(said), "")

    monkeypatch.setattr(subprocess, "run", answer)
    settings = CostSettings(sizes=((64, 48),), seconds=0, resolution=32)
    contenders = gather([checkpoints["lite"]], references=False, device="cpu", resolution=32)
    (row,), _ = measure_cost(contenders, settings, CPU)
    assert requests[0]["source"] == checkpoints["lite"]
    assert requests[0]["settings"] == {"device": "cpu", "precision": "fp32", "resolution": 32}
    assert row.memory_mb == 5
    assert row.startup_s == pytest.approx(7, abs=0.5)


def test_the_probe_loads_a_checkpoint(checkpoints: dict[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(as_jpeg(hazy_picture(64, 48)))
    settings = {"device": "cpu", "precision": "fp32", "resolution": "auto"}
    before = time.time()
    answer = measure({"picture": str(picture), "source": checkpoints["lite"], "settings": settings})
    assert before < answer["done"] <= time.time()
    assert answer["device_memory_mb"] is None


def test_a_process_that_fails_is_reported_with_its_reason(checkpoints: dict[str, str]) -> None:
    broken = Contender("gone", lambda x: x, "no-such-reference")
    with pytest.raises(DehazeError, match=r"start-up of 'gone'.*no-such-reference") as caught:
        measure_cost([broken], CostSettings(sizes=((32, 32),), seconds=0), CPU)
    assert "--no-startup" in caught.value.hint
