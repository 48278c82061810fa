"""Exported networks in the place of checkpoints: the same pictures, without PyTorch."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import dehaze
from dehaze.bench.contenders import gather
from dehaze.bench.cost import CostSettings, measure_cost
from dehaze.cli import main
from dehaze.dehazer import Dehazer, from_name
from dehaze.errors import ModelError, UsageError
from dehaze.export import export_onnx
from dehaze.runtimes import onnx_runtime
from dehaze.upsample import white
from dehaze.weights import Header, load, load_to_run, resolve
from dehaze.weights.checkpoint import FORMAT_VERSION, save_checkpoint
from dehaze.weights.exported import read_exported
from dehaze.weights.library import verify
from making import WITHOUT_PYTORCH, make_video, random_network, waves

CPU = torch.device("cpu")
WORKING = 40
DTYPES = [np.uint8, np.uint16, np.float32]
HEADER = Header("toy", "lite", working_size=WORKING, licence="CC0-1.0", data={"name": "Straße"})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "toy.onnx"
    export_onnx(random_network(), HEADER, path, part="network")
    return path


def _changed(source: Path, target: Path, **properties: str | None) -> Path:
    """A copy with other metadata; None takes an entry away."""
    model = onnx.load(source)
    facts = {entry.key: entry.value for entry in model.metadata_props} | properties
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in facts.items() if v is not None})
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("size", [(1, 1), (30, 40), (40, 23), (41, 41), (90, 130), (3, 200)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pictures_come_out_as_from_the_checkpoint(network: Path, size: tuple[int, int], dtype: type) -> None:
    pixels = waves(*size, dtype)
    exported, checkpoint = from_name(str(network)), Dehazer(random_network(), HEADER, device="cpu")
    assert exported.working_shape(*size) == checkpoint.working_shape(*size)
    answer, expected = (d(pixels).astype(float) / white(pixels.dtype) for d in (exported, checkpoint))
    assert np.abs(answer - expected).max() <= 1.01 / 255
    assert np.abs(expected - pixels / white(pixels.dtype)).max() > 0.02


@pytest.mark.parametrize("architecture", ["student", "aod-net"])
@pytest.mark.parametrize("settings", [{}, {"resolution": "full"}, {"resolution": "full", "tile": 64}])
def test_every_network_and_setting(architecture: str, settings: dict, tmp_path: Path) -> None:
    path, header = tmp_path / "x.ONNX", Header("x", architecture, working_size=48)
    export_onnx(random_network(architecture), header, path, part="network")
    pixels = waves(80, 100)
    exported = from_name(str(path), **settings)
    checkpoint = Dehazer(random_network(architecture), header, device="cpu", **settings)
    assert np.abs(exported(pixels).astype(int) - checkpoint(pixels)).max() <= 1
    assert exported.warnings == checkpoint.warnings
    assert exported.info == checkpoint.info


def test_batches_and_tensors(network: Path) -> None:
    exported, checkpoint = from_name(str(network)), Dehazer(random_network(), HEADER, device="cpu")
    batch = np.stack([waves(20, 30, np.float32), waves(20, 30, np.float32)[::-1]])
    answers = exported.network(batch)
    assert answers.flags.c_contiguous
    np.testing.assert_allclose(answers, checkpoint.network(batch), atol=1e-5)
    x = torch.from_numpy(batch).permute(0, 3, 1, 2)
    torch.testing.assert_close(exported.forward(x), checkpoint.forward(x), atol=1e-5, rtol=0)


def test_file_describes_itself_without_any_onnx_package(network: Path) -> None:
    exported = read_exported(network)
    parameters = sum(p.numel() for p in random_network().parameters())
    assert exported.header.data == HEADER.data
    assert (exported.header.name, exported.header.parameters) == ("toy", parameters)
    assert exported.limits == random_network().limits
    assert resolve(str(network)) == network
    assert load_to_run(str(network))[1].working_size == WORKING
    assert verify(str(network)).state == "unknown"


def test_python_interface(network: Path, tmp_path: Path) -> None:
    Image.fromarray(waves(50, 60)).save(tmp_path / "a.png")
    answer = dehaze.load_model(network)(tmp_path / "a.png")
    expected = Dehazer(random_network(), HEADER, device="cpu")(waves(50, 60))
    assert np.abs(np.asarray(answer).astype(int) - expected).max() <= 1
    assert dehaze.load_model(network).info.architecture == "lite"


def test_commands_that_clear_pictures_do_without_pytorch(network: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(waves(50, 60)).save(tmp_path / "in" / "a.png")
    make_video(tmp_path / "a.mp4", frames=2)
    for command in (
        ["run", "in/a.png", "-o", "b.png", "-q"],
        ["folder", "in", "-o", "out", "-q"],
        ["video", "a.mp4", "-o", "b.mp4", "-q"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", WITHOUT_PYTORCH, *command, "-m", str(network)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    np.testing.assert_array_equal(Image.open(tmp_path / "b.png"), Image.open(tmp_path / "out" / "a.png"))


def test_network_of_the_environment(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(waves(50, 60)).save(tmp_path / "a.png")
    monkeypatch.setenv("DEHAZE_MODEL", str(network))
    assert main(["run", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["device"], record["precision"]) == ("toy", "cpu", "fp32")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "'cuda' is not available"),
        ({"device": "cuda:1"}, "'cuda:1' is not available"),
        ({"device": "mps"}, "'mps' is not available"),
        ({"device": "warp"}, "unknown device 'warp'"),
        ({"precision": "bf16"}, "computes in fp32"),
        ({"precision": "int8"}, "unknown precision"),
    ],
)
def test_what_it_cannot_do_is_refused(network: Path, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_name(str(network), **settings)


class FakeRuntime:
    """ONNX Runtime with CUDA compiled in, which finds a GPU or does not."""

    SessionOptions = staticmethod(lambda: SimpleNamespace(add_session_config_entry=lambda key, value: None))
    capi = SimpleNamespace(onnxruntime_pybind11_state=SimpleNamespace(Fail=OSError))

    def __init__(self, usable: bool) -> None:
        self.usable, self.asked = usable, []

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def disable_telemetry_events(self) -> None: ...

    def set_default_logger_severity(self, severity: int) -> None: ...

    def InferenceSession(
        self, path: str, options: object, *, providers: list, **rest: object
    ) -> SimpleNamespace:
        self.asked = providers
        found = ["CUDAExecutionProvider"] * self.usable + ["CPUExecutionProvider"]
        return SimpleNamespace(get_providers=lambda: found)


def test_cuda_is_used_where_it_is_and_never_silently_left(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRuntime(usable=True)
    monkeypatch.setattr(onnx_runtime.importlib, "import_module", lambda name: fake)
    assert from_name(str(network), device="cuda:1").info.device == "cuda:1"
    provider, options = fake.asked[0]
    assert (provider, options["device_id"]) == ("CUDAExecutionProvider", "1")
    assert from_name(str(network)).info.device == "cpu"
    assert fake.asked == ["CPUExecutionProvider"]
    fake.usable = False
    with pytest.raises(UsageError, match="no usable NVIDIA GPU"):
        from_name(str(network), device="cuda")


def test_missing_runtime_names_the_extra(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(onnx_runtime.importlib, "import_module", missing)
    with pytest.raises(ModelError, match="'onnxruntime' is needed") as caught:
        from_name(str(network))
    assert caught.value.hint == 'pip install "dehaze-cli[onnx]"'


def test_whole_of_dehazing_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "full.onnx"
    export_onnx(random_network(), HEADER, path, part="full")
    with pytest.raises(ModelError, match="takes the network alone") as caught:
        from_name(str(path))
    assert "--part network" in caught.value.hint


def test_files_that_are_no_model_are_refused(network: Path, tmp_path: Path) -> None:
    newer = json.dumps({"name": "x", "architecture": "lite", "format_version": FORMAT_VERSION + 1})
    for properties, message in (
        ({"dehaze": None}, "not an ONNX file that dehaze made"),
        ({"dehaze": newer}, f"has format {FORMAT_VERSION + 1}"),
        ({"dehaze": "{"}, "damaged checkpoint header"),
        ({"limits": None}, "damaged metadata"),
        ({"limits": "[]"}, "damaged metadata"),
        ({"part": None}, "takes the network alone"),
    ):
        with pytest.raises(ModelError, match=message):
            from_name(str(_changed(network, tmp_path / "x.onnx", **properties)))
    with pytest.raises(ModelError, match="no model at"):
        from_name(str(tmp_path / "missing.onnx"))
    with pytest.raises(ModelError, match="not a safetensors file"):
        load(str(network))


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is text", b"PK\x03\x04" + bytes(99), b"\xff" * 40, b"\n\x99"]
)
def test_files_of_another_kind_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="ONNX"):
        from_name(str(path))


def test_damaged_network_is_refused(network: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "x.onnx", network.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cut short"):
        from_name(str(path))
    model = onnx.load(network)
    del model.graph.initializer[0]
    onnx.save(model, path)
    with pytest.raises(ModelError, match="cannot run"):
        from_name(str(path))


def test_damage_that_shows_at_work_is_the_files(network: Path, tmp_path: Path) -> None:
    """A bias of the first convolution one value too short: shapes do not tell, running does."""
    model = onnx.load(network)
    bias = next(t for t in model.graph.initializer if t.name.endswith("bias"))
    short = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias)[:-1], bias.name)
    bias.CopyFrom(short)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="ONNX Runtime"):
        from_name(str(tmp_path / "x.onnx"))(waves(30, 40, np.float32))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_that_are_not_utf_8(network: Path, tmp_path: Path) -> None:
    for name, source in ((b"m\xff.onnx", network), (b"m\xff.safetensors", tmp_path / "m.safetensors")):
        if not source.exists():
            save_checkpoint(source, random_network().state_dict(), HEADER)
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(source.read_bytes())
        for resolution in ("auto", 20):
            assert from_name(str(path), resolution=resolution)(waves(30, 40, np.float32)).shape == (30, 40, 3)


def test_telemetry_and_messages_are_switched_off(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, called = importlib.import_module("onnxruntime"), []
    monkeypatch.setattr(runtime, "disable_telemetry_events", lambda: called.append("telemetry"))
    from_name(str(network))
    assert called == ["telemetry"]


def test_bench_measures_it_beside_checkpoints(network: Path) -> None:
    contenders = gather([str(network)], references=False)
    (row,), _ = measure_cost(contenders, CostSettings(sizes=((64, 48),), batch=2, seconds=0), CPU)
    assert (row.method, row.precision, row.working_width, row.working_height) == ("toy", "fp32", 40, 30)
    assert row.parameters == sum(p.numel() for p in random_network().parameters())
    assert row.bytes == network.stat().st_size
    assert row.gflops is None
    assert row.network is not None
    assert row.startup_s is not None
