from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dehaze import export
from dehaze.dehazer import Dehazer
from dehaze.errors import DehazeError, UsageError
from dehaze.export import check_onnx, export_onnx
from dehaze.models import build
from dehaze.weights import Header
from making import random_network, waves

WORKING = 40


def _header(architecture: str) -> Header:
    return Header("toy", architecture, working_size=WORKING, licence="CC0-1.0")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "full.onnx"
    export_onnx(random_network("lite"), _header("lite"), path)
    return path


def _run(path: Path, hazy: np.ndarray) -> np.ndarray:
    """As a stranger would, who knows only the file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type, source.shape) == ("hazy", "tensor(float)", [1, 3, "height", "width"])
    assert (target.name, target.shape) == ("clear", [1, 3, "height", "width"])
    (clear,) = session.run(None, {"hazy": hazy.transpose(2, 0, 1)[None]})
    return clear[0].transpose(1, 2, 0)


SIZES = [(1, 1), (30, 40), (40, 23), (41, 41), (90, 130), (133, 57), (3, 200)]


@pytest.mark.parametrize("size", SIZES)
def test_file_clears_pictures_as_the_dehazer_does(full: Path, size: tuple[int, int]) -> None:
    hazy = waves(*size, np.float32)
    expected = Dehazer(random_network("lite"), _header("lite"), device="cpu")(hazy)
    assert np.abs(expected - hazy).max() > 0.02
    np.testing.assert_allclose(_run(full, hazy), expected, atol=1e-4)


class Excited(nn.Module):
    """Lite, but green makes it answer in the thousands."""

    def __init__(self) -> None:
        super().__init__()
        self.lite = random_network("lite")
        self.config, self.limits = self.lite.config, self.lite.limits

    def forward(self, x: Tensor) -> Tensor:
        return self.lite(x) + 9e3 * ((x[:, 1:2] > 0.9) & (x[:, :1] < 0.1))


def test_the_picture_stays_where_the_answer_runs_away_as_with_the_dehazer(tmp_path: Path) -> None:
    header = replace(_header("lite"), working_size=128)
    export_onnx(Excited(), header, tmp_path / "wild.onnx")
    hazy = waves(180, 256, np.float32)
    hazy[30:60, 30:60] = (0, 1, 0)
    clear = Dehazer(Excited(), header, device="cpu")(hazy)
    np.testing.assert_allclose(clear[30:60, 30:60], hazy[30:60, 30:60], atol=0.05)
    assert np.abs(clear - hazy)[160:].max() > 0.02
    np.testing.assert_allclose(_run(tmp_path / "wild.onnx", hazy), clear, atol=1e-3)


def test_the_transfer_radius_is_in_the_file(full: Path, tmp_path: Path) -> None:
    header = replace(_header("lite"), transfer_radius=5)
    export_onnx(random_network("lite"), header, tmp_path / "wide.onnx")
    dehaze = Dehazer(random_network("lite"), header, device="cpu")
    for size in SIZES:
        hazy = waves(*size, np.float32)
        np.testing.assert_allclose(_run(tmp_path / "wide.onnx", hazy), dehaze(hazy), atol=1e-4)
    narrow, wide = (_run(path, waves(90, 130, np.float32)) for path in (full, tmp_path / "wide.onnx"))
    assert np.abs(narrow - wide).max() > 0.005


def test_the_working_copy_of_minima_is_in_the_file(full: Path, tmp_path: Path) -> None:
    header = replace(_header("lite"), reduction="minimum")
    export_onnx(random_network("lite"), header, tmp_path / "dark.onnx")
    dehaze = Dehazer(random_network("lite"), header, device="cpu")
    rng = np.random.default_rng(0)
    for size in [*SIZES, (40 * 6, 40 * 5 + 1)]:
        hazy = np.clip(waves(*size, np.float32) + rng.normal(0, 0.1, (*size, 3)), 0, 1).astype(np.float32)
        np.testing.assert_allclose(_run(tmp_path / "dark.onnx", hazy), dehaze(hazy), atol=1e-4)
    faint = np.rint(180 + 20 * waves(300, 420, np.float32) + rng.normal(0, 1, (300, 420, 3))).astype(np.uint8)
    from_bytes, answer = dehaze(faint), _run(tmp_path / "dark.onnx", faint / np.float32(255))
    np.testing.assert_allclose(255 * answer, from_bytes, atol=0.6)
    mean, dark = (_run(path, hazy) for path in (full, tmp_path / "dark.onnx"))
    assert np.abs(mean - dark).max() > 0.005
    check_onnx(tmp_path / "dark.onnx", random_network("lite"), header)


@pytest.mark.parametrize("second", [24, 40, 56])
def test_the_second_look_is_in_the_file(full: Path, tmp_path: Path, second: int) -> None:
    header = replace(_header("lite"), second_look=second, reduction="minimum")
    export_onnx(random_network("lite"), header, tmp_path / "twice.onnx")
    dehaze = Dehazer(random_network("lite"), header, device="cpu")
    rng = np.random.default_rng(0)
    for size in [*SIZES, (47, 50), (40 * 6, 40 * 5 + 1)]:
        hazy = np.clip(waves(*size, np.float32) + rng.normal(0, 0.1, (*size, 3)), 0, 1).astype(np.float32)
        np.testing.assert_allclose(_run(tmp_path / "twice.onnx", hazy), dehaze(hazy), atol=1e-4)
    once = Dehazer(random_network("lite"), replace(header, second_look=None), device="cpu")
    assert np.abs(once(hazy) - dehaze(hazy)).max() > 0.005
    check_onnx(tmp_path / "twice.onnx", random_network("lite"), header)


@pytest.mark.parametrize("architecture", ["lite", "student", "aod-net"])
def test_network_alone_answers_as_in_pytorch(architecture: str, tmp_path: Path) -> None:
    path, model = tmp_path / "network.onnx", random_network(architecture)
    export_onnx(model, _header(architecture), path, part="network")
    for size in SIZES[:4]:
        hazy = waves(*size, np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(hazy).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(_run(path, hazy), expected, atol=1e-5)


def test_file_describes_itself(full: Path) -> None:
    model = onnx.load(full)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["name"] == "toy"
    assert facts["architecture"] == "lite"
    assert facts["part"] == "full"
    assert facts["working_size"] == str(WORKING)
    assert facts["licence"] == "CC0-1.0"
    assert facts["producer"].startswith("dehaze ")


def test_check_reports_each_size(full: Path) -> None:
    results = check_onnx(full, random_network("lite"), _header("lite"))
    sizes = {(result.height, result.width) for result in results}
    assert (1, 1) in sizes
    assert any(max(size) == WORKING for size in sizes)
    assert any(max(size) > WORKING for size in sizes)
    assert max(result.difference for result in results) < 1e-4


def test_check_finds_a_file_of_other_weights(full: Path) -> None:
    other = random_network("lite")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    with pytest.raises(DehazeError, match="differs from PyTorch"):
        check_onnx(full, other, _header("lite"))


def test_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="teacher"):
        export_onnx(build("teacher"), Header("t", "teacher"), tmp_path / "t.onnx")


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(export.importlib, "import_module", missing)
    with pytest.raises(UsageError, match="'onnx', which is not installed") as caught:
        export_onnx(random_network("lite"), _header("lite"), tmp_path / "x.onnx")
    assert caught.value.hint == 'pip install "dehaze-cli[onnx]"'
    assert not list(tmp_path.iterdir())


def test_place_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DehazeError, match="cannot write"):
        export_onnx(random_network("aod-net"), _header("aod-net"), tmp_path / "file" / "x.onnx")
