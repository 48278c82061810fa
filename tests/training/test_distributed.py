"""Two processes against one, over gloo on 127.0.0.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import learn, make_task
from safetensors.torch import load_file
from together import environment, free_port, together

from dehaze.errors import TrainingError, UsageError
from dehaze.training.distributed import Distributed, is_main_process, join


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("meet")
    return folder, together("meet", folder)


@pytest.mark.parametrize("name", ["dehaze", "distill", "distill-l1", "super-resolution"])
def test_two_processes_learn_what_one_does_from_the_joined_batch(
    name: str, lesson: tuple[Path, list[Any]]
) -> None:
    folder, _ = lesson
    alone = learn(make_task(name), Distributed(torch.device("cpu")))
    assert any(key.startswith("gradient.extras") for key in alone) == name.startswith("distill")
    for rank in range(2):
        joined = load_file(folder / f"{name}.{rank}.safetensors")
        assert joined.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                joined[key], value, rtol=1e-7, atol=1e-11, msg=lambda m, k=key: f"{k}: {m}"
            )


def test_the_teacher_stays_outside_and_the_projections_inside(lesson: tuple[Path, list[Any]]) -> None:
    for said in lesson[1]:
        assert said["result"]["teacher"] == {
            "teacher_shared": False,
            "extras_shared": True,
            "saved": ["extras", "model"],
        }
        assert said["group_left"]


def test_every_way_of_talking(lesson: tuple[Path, list[Any]]) -> None:
    first, second = (said["result"]["talk"] for said in lesson[1])
    assert (first["main"], second["main"]) == (True, False)
    assert first["seed"] == 7 != second["seed"]
    for said in (first, second):
        assert said["device"] == "cpu"
        assert said["share"] == 3
        assert "a batch of 5 cannot be shared evenly by 2 processes" in said["refused"]
        assert said["total"] == {"a": 3.0, "b": 10.0}
        assert said["mean"] == {"a": 1.5}
        assert said["any"] == [False, True, True]
        assert said["gather"] == [{"rank": 0}, {"rank": 1}]


class TestErrors:
    @pytest.fixture(autouse=True)
    def _launched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment(0, 1, free_port()).items():
            monkeypatch.setenv(name, value)

    def test_a_lost_worker_is_named_in_one_sentence(self) -> None:
        said = "[/build/gloo/transport/tcp/pair.cc:537] Connection reset by peer. This is typical.\nMore"
        with pytest.raises(TrainingError) as caught, join("cpu"):
            raise RuntimeError(said)
        assert caught.value.message == (
            "training process 0 cannot go on, another one was lost: Connection reset by peer"
        )
        assert "resume" in caught.value.hint
        assert not torch.distributed.is_initialized()

    def test_others_pass_as_they_are(self) -> None:
        with pytest.raises(RuntimeError, match=r"^shapes do not match$"), join("cpu"):
            raise RuntimeError("shapes do not match")
        assert not torch.distributed.is_initialized()


class TestAlone:
    def test_nothing_is_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        with join("cpu") as process:
            assert process == Distributed(torch.device("cpu"))
            assert not torch.distributed.is_initialized()

    def test_a_lone_rank_in_the_environment_is_no_launch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", "3")
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        with join("cpu") as process:
            assert process.world == 1

    def test_it_is_the_main_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RANK", raising=False)
        assert is_main_process()
        for rank, main in ((0, True), (1, False)):
            for name, value in environment(rank, 2, 1).items():
                monkeypatch.setenv(name, value)
            assert is_main_process() is main

    def test_every_method_does_the_obvious_thing(self) -> None:
        process = Distributed(torch.device("cpu"))
        task = make_task("dehaze")
        assert process.wrap(task) is task
        assert process.is_main
        assert process.seed(7) == 7
        assert process.share(5) == 5
        assert process.total({"a": 2.0}) == process.mean({"a": 2.0}) == {"a": 2.0}
        assert process.any(True)
        assert not process.any(False)
        assert process.gather("x") == ["x"]
        process.barrier()


class TestDevices:
    @pytest.fixture(autouse=True)
    def _launched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment(1, 2, 1).items():
            monkeypatch.setenv(name, value)

    def test_one_named_gpu_is_refused(self) -> None:
        with pytest.raises(UsageError, match="'cuda:1' names one GPU"), join("cuda:1"):
            pass

    def test_more_processes_than_gpus_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with (
            pytest.raises(UsageError, match=r"process 2 on a machine with 1 CUDA device") as caught,
            join("auto"),
        ):
            pass
        assert "--nproc-per-node 1" in caught.value.hint

    def test_an_absent_gpu_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(UsageError, match="'cuda' is not available"), join("cuda"):
            pass
