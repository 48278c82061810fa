"""The students computed by NumPy: PyTorch's answers, without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dehaze import weights
from dehaze.cli import main
from dehaze.dehazer import FEW_PICTURES, Dehazer, from_name
from dehaze.errors import ModelError, UsageError
from dehaze.models import build, config_dict
from dehaze.runtimes.numpy_runtime import NumpyNetwork
from dehaze.weights import Header, load_to_run
from dehaze.weights.arrays import LARGEST_WORKING_SIZE, Arrays, read_arrays, shapes
from dehaze.weights.checkpoint import HEADER_KEY, header_json, read_header, save_checkpoint, write_safetensors
from making import WITHOUT_PYTORCH, make_video, random_network, waves

STUDENTS = ["lite", "student"]
WORKING = 40


def save(path: Path, architecture: str, tensors: dict[str, Tensor] | None = None, **header: Any) -> Path:
    """A checkpoint of the random network, or of these tensors."""
    network = random_network(architecture)
    facts = Header("toy", architecture, config_dict(network), working_size=WORKING)
    save_checkpoint(path, tensors or network.state_dict(), replace(facts, **header))
    return path


def arrays(path: Path) -> Arrays:
    found = read_arrays(path)
    assert found is not None
    return found


@pytest.fixture(params=STUDENTS)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(architecture: str, tmp_path: Path) -> Path:
    return save(tmp_path / "toy.safetensors", architecture)


def test_knows_every_weight_and_limit_of_the_usual_networks(architecture: str, checkpoint: Path) -> None:
    network = build(architecture)
    assert shapes(architecture) == {k: tuple(v.shape) for k, v in network.state_dict().items()}
    assert arrays(checkpoint).limits == network.limits


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (30, 41), (33, 64)])
def test_answers_as_pytorch(architecture: str, checkpoint: Path, size: tuple[int, int]) -> None:
    batch = np.random.default_rng(0).random((2, *size, 3), np.float32)
    before = batch.copy()
    network = NumpyNetwork(arrays(checkpoint), device="auto", precision="auto")
    with torch.inference_mode():
        wanted = random_network(architecture)(torch.from_numpy(batch).permute(0, 3, 1, 2))
    assert (wanted - torch.from_numpy(batch).permute(0, 3, 1, 2)).abs().max() > 0.01
    answer = network(batch)
    assert answer.dtype == np.float32
    assert answer.flags.c_contiguous
    np.testing.assert_allclose(answer, wanted.permute(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_array_equal(batch, before)
    torch.testing.assert_close(
        network.forward(torch.from_numpy(batch).permute(0, 3, 1, 2)), wanted, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", ["student-lite", "student"])
def test_bundled_students_clear_a_picture_as_with_pytorch(name: str) -> None:
    picture = waves(90, 130)
    loaded, header = load_to_run(name, arrays=True)
    assert isinstance(loaded, Arrays)
    quick, usual = Dehazer(loaded, header), from_name(name, device="cpu")
    assert quick.info == usual.info
    assert np.abs(quick(picture).astype(int) - usual(picture)).max() <= 1


def test_takes_no_other_device_or_precision(checkpoint: Path) -> None:
    model = arrays(checkpoint)
    NumpyNetwork(model, device="cpu", precision="fp32")
    for device, precision in (("cuda", "auto"), ("mps", "fp32"), ("cpu", "bf16")):
        with pytest.raises(UsageError, match="NumPy"):
            NumpyNetwork(model, device=device, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "header",
    [
        {"working_size": None},
        {"working_size": LARGEST_WORKING_SIZE + 1},
        {"config": {"reduction": 4}},
        {"config": {"unknown": 1}},
    ],
)
def test_leaves_other_networks_to_pytorch(tmp_path: Path, header: dict[str, Any]) -> None:
    assert read_arrays(save(tmp_path / "x.safetensors", "lite", **header)) is None
    assert read_arrays(save(tmp_path / "y.safetensors", "lite", config={}, working_size=LARGEST_WORKING_SIZE))
    assert read_arrays(save(tmp_path / "z.safetensors", "aod-net")) is None


def test_leaves_other_weights_to_pytorch(checkpoint: Path, architecture: str, tmp_path: Path) -> None:
    good = load_file(checkpoint)
    name = "head.weight"
    for changed in (
        {k: v for k, v in good.items() if k != name},
        good | {"more": torch.zeros(1)},
        good | {name: good[name][:, :-1].contiguous()},
        good | {name: good[name].half()},
        good | {name: good[name].bfloat16()},
        good | {name: torch.full_like(good[name], torch.nan)},
    ):
        assert read_arrays(save(tmp_path / "x.safetensors", architecture, changed)) is None
    half = save(tmp_path / "half.safetensors", architecture, good | {name: good[name].half()})
    assert isinstance(load_to_run(str(half), arrays=True)[0], torch.nn.Module)


def test_weights_of_a_type_that_numpy_lacks_are_named(checkpoint: Path) -> None:
    tensors = {k: v.to(torch.float8_e5m2) for k, v in load_file(checkpoint).items()}
    write_safetensors(checkpoint, tensors, {HEADER_KEY: header_json(read_header(checkpoint))})
    assert read_arrays(checkpoint) is None
    with pytest.raises(ModelError, match=r"holds torch\.float8_e5m2, expected torch\.float32"):
        load_to_run(str(checkpoint), arrays=True)


def test_damaged_weights_are_named_as_ever(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(waves(20, 30)).save(tmp_path / "a.png")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-8])
    assert main(["run", str(tmp_path / "a.png"), "-m", str(checkpoint)]) == 4
    assert "damaged checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run", "in/a.png", "-o", "b.png"], ["folder", "in", "-o", "."]])
def test_a_few_photos_are_cleared_without_pytorch(
    checkpoint: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEHAZE_DEVICE", raising=False)
    (tmp_path / "in").mkdir()
    Image.fromarray(waves(50, 60)).save(tmp_path / "in" / "a.png")
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTORCH, *command, "-q", "-m", str(checkpoint)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each model that a command loads is asked for as arrays."""
    found: list[bool] = []

    def spy(*args: Any, arrays: bool = False, **settings: Any) -> Any:
        found.append(arrays)
        return load_to_run(*args, arrays=arrays, **settings)

    monkeypatch.setattr(weights, "load_to_run", spy)
    return found


@pytest.mark.parametrize(
    ("photos", "options", "quick"),
    [
        (1, [], True),
        (1, ["--device", "cpu", "--precision", "fp32", "--strength", "0.5"], True),
        (FEW_PICTURES, [], True),
        (FEW_PICTURES + 1, [], False),
        (1, ["--precision", "bf16"], False),
        (1, ["--resolution", "32"], False),
        (1, ["--resolution", "full", "--tile", "64"], False),
    ],
)
@pytest.mark.parametrize("command", ["run", "folder"])
def test_numpy_is_for_few_photos_and_usual_settings(
    command: str,
    photos: int,
    options: list[str],
    quick: bool,
    tmp_path: Path,
    asked: list[bool],
) -> None:
    checkpoint = save(tmp_path / "toy.safetensors", "lite")
    (tmp_path / "in").mkdir()
    names = [str(tmp_path / "in" / f"{index}.png") for index in range(photos)]
    for name in names:
        Image.fromarray(waves(8, 9)).save(name)
    inputs = names if command == "run" else [str(tmp_path / "in")]
    target = f"{tmp_path / 'out'}/"
    assert main([command, *inputs, "-o", target, "-q", "-m", str(checkpoint), *options]) == 0
    assert asked == [quick]
    assert len(list((tmp_path / "out").iterdir())) == photos


def test_videos_are_pytorchs(tmp_path: Path, asked: list[bool]) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", frames=2)
    checkpoint = save(tmp_path / "toy.safetensors", "lite")
    assert main(["folder", str(tmp_path / "in"), "-q", "-m", str(checkpoint)]) == 0
    assert asked == [False]
