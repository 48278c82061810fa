"""Stages that overlap: order kept, errors passed on, memory bounded, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dehaze.pipeline import Pipeline, Timings


def test_items_come_in_order_through_several_stages() -> None:
    with Pipeline() as line:
        doubled = line.ahead(2 * x for x in line.ahead(range(100)))
        assert list(doubled) == [2 * x for x in range(100)]


def test_stages_run_at_the_same_time() -> None:
    """Each stage waits for the other: one after the other they would never end."""
    barrier = threading.Barrier(2, timeout=10)

    def first() -> Iterator[int]:
        for index in range(3):
            if index:
                barrier.wait()
            yield index

    with Pipeline() as line:
        for index in line.ahead(first()):
            if index < 2:
                barrier.wait()


def test_a_source_is_only_a_few_items_ahead() -> None:
    made = []

    def source() -> Iterator[int]:
        for index in range(1000):
            made.append(index)
            yield index

    with Pipeline(depth=3) as line:
        items = line.ahead(source())
        for _ in range(5):
            next(items)
        time.sleep(0.3)
        assert len(made) <= 5 + 3 + 1


def test_an_error_arrives_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    seen: list[int] = []

    def consume() -> None:
        with Pipeline() as line:
            seen.extend(line.ahead(item for item in line.ahead(source())))

    with pytest.raises(KeyError, match="three"):
        consume()
    assert seen == [1, 2]


def test_nothing_runs_on_when_the_consumer_fails() -> None:
    before = threading.active_count()

    def endless() -> Iterator[int]:
        while True:
            yield 1

    def consume() -> None:
        with Pipeline() as line:
            next(line.ahead(item for item in line.ahead(endless())))
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        consume()
    assert threading.active_count() == before


def test_stop_ends_the_iteration_even_while_the_source_is_silent() -> None:
    release = threading.Event()

    def silent() -> Iterator[int]:
        yield 1
        release.wait(10)

    stopped = False
    with Pipeline(stop=lambda: stopped) as line:
        seen = []
        for item in line.ahead(silent()):
            seen.append(item)
            stopped = True
        release.set()
    assert seen == [1]


def test_timings_add_up_work_by_stage() -> None:
    clock = Timings()
    clock.add("encode", 1.5)
    clock.add("encode", 0.25)
    with clock.measure("decode"):
        pass
    assert list(clock.timed("decode", [1, 2])) == [1, 2]
    assert clock.seconds()["encode"] == 1.75
    assert 0 <= clock.seconds()["decode"] < 1.5
