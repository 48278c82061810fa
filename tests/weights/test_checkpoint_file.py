from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dehaze.errors import ModelError
from dehaze.models import build
from dehaze.weights.checkpoint import (
    FORMAT_VERSION,
    MAX_HEADER_BYTES,
    Header,
    header_json,
    load_checkpoint,
    read_header,
    rewrite_header,
    save_checkpoint,
    sha256_of,
    write_atomically,
    write_safetensors,
)

HEADER = Header("small", "lite", working_size=160, licence="MIT", data={"ITS": 10}, recipe={"steps": 3})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, build("lite").state_dict(), HEADER)
    return path


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = build("lite").eval()
    path = tmp_path / "x" / "small.safetensors"
    save_checkpoint(path, model.state_dict(), HEADER)
    loaded, header = load_checkpoint(path)
    assert header == HEADER
    assert not loaded.training
    x = torch.rand(1, 3, 32, 40)
    assert torch.equal(loaded(x), model(x))


def test_the_header_is_read_without_the_weights(file: Path) -> None:
    whole = file.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    file.write_bytes(whole[:start] + b"\xff" * (len(whole) - start))  # no finite numbers
    assert read_header(file) == HEADER


def test_denormal_weights_become_zero(tmp_path: Path) -> None:
    tensors = {"a": torch.tensor([1e-30, -1e-40, 1e-10, 2.0]), "n": torch.tensor([3])}
    save_checkpoint(tmp_path / "a.safetensors", tensors, HEADER)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "a.safetensors")
    assert stored["a"].tolist() == torch.tensor([0.0, 0.0, 1e-10, 2.0]).tolist()
    assert stored["n"].tolist() == [3]


def test_another_header_leaves_the_weights_alone(file: Path, tmp_path: Path) -> None:
    before, _ = load_checkpoint(file)
    rewrite_header(file, file, replace(HEADER, name="other", metrics={"x": {"psnr": 1.0, "command": "c"}}))
    after, header = load_checkpoint(file)
    assert header.name == "other"
    assert all(torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a safetensors file"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"PK\x03\x04", "pickle"),
        (struct.pack("<Q", 1 << 60) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"{]", "not a safetensors file"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "not a safetensors file"),
        (struct.pack("<Q", 20) + b'{"__metadata__":null}'[:20], "not a safetensors file"),
    ],
)
def test_what_is_not_a_checkpoint(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert "dehaze models list" in caught.value.hint


def test_a_pytorch_file_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(2)}, path)
    assert zipfile.is_zipfile(path)
    with pytest.raises(ModelError, match="could run code"):
        load_checkpoint(path)


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.zeros(1)}, {"dehaze": "x" * MAX_HEADER_BYTES})
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_header(path)


GOOD: dict[str, object] = {"name": "a", "architecture": "lite", "format_version": 1}


@pytest.mark.parametrize(
    "values",
    [
        [],
        1,
        {},
        {"format_version": "a"},
        {"format_version": 1},
        {**GOOD, "format_version": float("inf")},
        {**GOOD, "name": ["a"]},
        {**GOOD, "config": [1]},
        {**GOOD, "metrics": None},
        {**GOOD, "working_size": "80"},
        {**GOOD, "working_size": -5},
        {**GOOD, "working_size": True},
        {**GOOD, "transfer_radius": 0},
        {**GOOD, "second_look": 0},
        {**GOOD, "second_look": "160"},
        {**GOOD, "transfer_radius": 33},
        {**GOOD, "transfer_radius": 1.5},
    ],
)
def test_a_damaged_header(tmp_path: Path, values: object) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.zeros(1)}, {"dehaze": json.dumps(values)})
    with pytest.raises(ModelError, match="damaged"):
        read_header(path)


@pytest.mark.parametrize("outside", [True, False])
def test_a_header_nested_without_end(tmp_path: Path, outside: bool) -> None:
    path = tmp_path / "x.safetensors"
    deep = "[" * 200_000
    if outside:
        path.write_bytes(struct.pack("<Q", len(deep)) + deep.encode())
    else:
        write_safetensors(path, {"a": torch.zeros(1)}, {"dehaze": deep})
    with pytest.raises(ModelError, match="not a safetensors file" if outside else "damaged"):
        read_header(path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(1)}, replace(HEADER, format_version=FORMAT_VERSION + 1))
    with pytest.raises(ModelError, match=f"format {FORMAT_VERSION + 1}") as caught:
        read_header(path)
    assert "--upgrade" in caught.value.hint


def test_readers_that_know_no_reduction_refuse_files_that_have_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(1)}, HEADER)
    assert read_header(path).format_version == 1
    save_checkpoint(path, {"a": torch.zeros(1)}, replace(HEADER, reduction="minimum"))
    assert read_header(path) == replace(HEADER, reduction="minimum", format_version=2)
    save_checkpoint(path, {"a": torch.zeros(1)}, replace(HEADER, second_look=192))
    assert read_header(path) == replace(HEADER, second_look=192, format_version=2)


def test_a_header_with_fields_of_tomorrow_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = {"name": "a", "architecture": "lite", "format_version": 1, "mood": "good"}
    write_safetensors(path, {"a": torch.zeros(1)}, {"dehaze": json.dumps(values)})
    assert read_header(path).name == "a"


@pytest.mark.parametrize(
    ("architecture", "config", "words"),
    [
        ("hal", {}, "unknown architecture"),
        ("lite", {"moods": 3}, "no setting"),
        ("lite", {"reduction": "8"}, "setting reduction is '8'"),
        ("lite", {"blocks": [1, 2.5]}, "setting blocks"),
        ("lite", {"blocks": []}, "setting blocks"),
        ("lite", {"shuffle": -1}, "can have the settings"),
        ("lite", {"widths": [10**9, 16]}, "can have the settings"),
        ("lite", {"blocks": [10**9, 1]}, "can have the settings"),
        ("lite", {"reduction": 10**400}, "can have the settings"),
        ("lite", {"widths": [16, 24]}, "does not hold"),
        ("teacher", {"activation": "eval"}, "activation is 'eval', expected prelu or relu"),
        ("aod-net", {}, "does not hold"),
    ],
)
def test_a_network_that_cannot_be_built(
    tmp_path: Path, architecture: str, config: dict[str, object], words: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, build("lite").state_dict(), Header("x", architecture, config))
    with pytest.raises(ModelError, match=words) as caught:
        load_checkpoint(path)
    assert "dehaze models list" in caught.value.hint


def test_a_large_network_takes_no_memory_before_its_weights_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(
        "dehaze.models.build", lambda *request: built.append(network := build(*request)) or network
    )
    path = tmp_path / "x.safetensors"
    save_checkpoint(
        path, build("lite").state_dict(), Header("x", "lite", {"widths": [16, 500], "blocks": [1, 1]})
    )
    with pytest.raises(ModelError, match="does not hold"):
        load_checkpoint(path)
    assert {parameter.device.type for parameter in built[0].parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, "more": torch.zeros(1)}, "more is no part"),
        (lambda w: dict(list(w.items())[1:]), "is missing"),
        (lambda w: {k: v[None] for k, v in w.items()}, "has shape"),
        (lambda w: {k: v.int() for k, v in w.items()}, "torch.int32"),
        (lambda w: {k: torch.full_like(v, torch.nan) for k, v in w.items()}, "no finite"),
        (lambda w: {k: torch.full_like(v, -torch.inf) for k, v in w.items()}, "no finite"),
        (lambda w: {k: torch.full_like(v, 1e300, dtype=torch.float64) for k, v in w.items()}, "no finite"),
        (lambda w: {k: v.to(torch.float8_e4m3fn) for k, v in w.items()}, "holds torch.float8_e4m3fn"),
        (lambda w: {k: v.to(torch.complex64) for k, v in w.items()}, "holds torch.complex64"),
    ],
)
def test_weights_that_are_not_those_of_the_network(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], words: str
) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, change(build("lite").state_dict()), {"dehaze": header_json(HEADER)})
    with pytest.raises(ModelError, match=words) as caught:
        load_checkpoint(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_computed_with_in_single_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = build("lite").state_dict()
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {k: v.to(dtype) for k, v in weights.items()}, HEADER)
    loaded = load_checkpoint(path)[0].state_dict()
    assert all(torch.equal(loaded[k], v.to(dtype).float()) for k, v in weights.items())


def test_a_file_of_another_length_is_said_to_be_damaged(file: Path) -> None:
    whole = file.read_bytes()
    for data in (whole[:-100], whole + b"more"):
        file.write_bytes(data)
        with pytest.raises(ModelError, match="is a damaged checkpoint"):
            read_header(file)


def test_no_file_and_no_permission_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint at"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="cannot read"):
        read_header(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "a") == expected
