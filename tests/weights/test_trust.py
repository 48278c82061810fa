from __future__ import annotations

import errno
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from huggingface_hub import constants

from dehaze.errors import ModelError
from dehaze.weights import trust
from dehaze.weights.trust import Record

ADDRESS = "hf://a/b/c.safetensors@main"
FIRST = Record(ADDRESS, "1" * 64, 10, "c" * 40)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path))
    return tmp_path / "dehaze" / "known-files"


def test_the_first_record_counts(caplog: pytest.LogCaptureFixture) -> None:
    assert trust.known(ADDRESS) is None
    assert trust.remember(FIRST) == FIRST
    assert FIRST.sha256 in caplog.text
    assert trust.remember(Record(ADDRESS, "2" * 64, 11, "d" * 40)) == FIRST
    assert trust.known(ADDRESS) == FIRST


def test_another_revision_is_another_file() -> None:
    trust.remember(FIRST)
    assert trust.known(ADDRESS.replace("main", "v2")) is None


def test_a_record_can_be_replaced() -> None:
    trust.remember(FIRST)
    second = Record(ADDRESS, "2" * 64, 11, "d" * 40)
    trust.replace(second)
    assert trust.known(ADDRESS) == second


def test_of_many_at_once_one_wins(store: Path) -> None:
    start = Barrier(10)

    def remember(number: int) -> Record:
        start.wait()
        return trust.remember(Record(ADDRESS, f"{number}" * 64, number, "c" * 40))

    with ThreadPoolExecutor(10) as pool:
        seen = set(pool.map(remember, range(10)))
    assert seen == {trust.known(ADDRESS)}
    assert len(list(store.iterdir())) == 1


def test_without_hard_links_it_is_still_recorded(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    trust.remember(FIRST)
    assert trust.known(ADDRESS) == FIRST
    assert len(list(store.iterdir())) == 1


def test_a_record_has_the_permissions_the_umask_allows(store: Path) -> None:
    old = os.umask(0o027)
    try:
        trust.remember(FIRST)
    finally:
        os.umask(old)
    (file,) = store.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_record_that_cannot_be_read_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.remember(FIRST)
    (file,) = store.iterdir()

    def refuse(self: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ModelError) as caught:
        trust.known(ADDRESS)
    assert caught.value.message == f"the record of {ADDRESS} in {file} cannot be read: Permission denied"
    assert "HF_HOME" in caught.value.hint


def test_a_full_disk_leaves_no_record(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert trust.remember(FIRST) == FIRST
    assert list(store.iterdir()) == []


def test_a_cache_that_cannot_be_written_does_not_stop_the_work(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.parent.parent.mkdir(exist_ok=True)
    store.parent.write_text("a file where the folder should be")
    assert trust.remember(FIRST) == FIRST
    assert "cannot record the checksum" in caplog.text


def test_a_damaged_record_is_not_trusted(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    trust.remember(FIRST)
    (file,) = store.iterdir()
    for text in ("", "{", "[]", '{"address": 1}'):
        file.write_text(text)
        with pytest.raises(ModelError, match="is damaged") as caught:
            trust.known(ADDRESS)
        assert f"--accept {ADDRESS}" in caught.value.hint
    with caplog.at_level(logging.WARNING):
        assert list(trust.records()) == []
    assert "ignored a damaged record" in caplog.text


def test_records_are_listed_in_order() -> None:
    addresses = [f"hf://a/b/{name}.safetensors@main" for name in "zax"]
    for address in addresses:
        trust.remember(Record(address, "1" * 64, 10, "c" * 40))
    assert [record.address for record in trust.records()] == sorted(addresses)


def test_the_refusal_names_both_ways_out() -> None:
    error = trust.changed(FIRST, "2" * 64)
    assert f"-m hf://a/b/c.safetensors@{FIRST.commit}" in error.hint
    assert f"dehaze models pull --accept {ADDRESS}" in error.hint
