from __future__ import annotations

import time

import numpy as np
import pytest

from dehaze.bench.latency import MIN_RUNS, WARM_UP, Stopwatch, interleave, percentile, summarize


@pytest.mark.parametrize("count", [1, 2, 5, 37, 200])
def test_median_and_p95_are_numpys(count: int) -> None:
    seconds = list(np.random.default_rng(count).exponential(0.01, count))
    timing = summarize(seconds)
    assert timing.median == pytest.approx(1000 * np.median(seconds))
    assert timing.p95 == pytest.approx(1000 * np.percentile(seconds, 95))
    assert timing.low <= timing.median <= timing.high
    assert timing.runs == count


def test_percentile_between_two_values() -> None:
    assert percentile([10.0, 20.0], 95) == pytest.approx(19.5)


def test_the_interval_holds_the_true_median_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    hits = sum(t.low <= 1000 <= t.high for t in (summarize(list(rng.normal(1, 0.1, 40))) for _ in range(300)))
    assert 0.93 <= hits / 300 <= 1


def test_drift_widens_the_interval() -> None:
    steady = list(np.random.default_rng(0).normal(1, 0.01, 100))
    drifting = [value + i / 100 for i, value in enumerate(steady)]
    assert (summarize(drifting).high - summarize(drifting).low) > 700
    assert (summarize(steady).high - summarize(steady).low) < 50


def test_runs_are_spread_evenly_after_a_warm_up() -> None:
    order: list[str] = []

    def case(name: str, seconds: float) -> dict[str, float]:
        order.append(name)
        return {"a": seconds, "b": 2 * seconds}

    done: list[str] = []
    times = interleave(
        {"slow": lambda: case("slow", 1.0), "fast": lambda: case("fast", 0.1)},
        seconds=6.0,
        progress=done.append,
    )
    measured = order[2 * WARM_UP :]
    assert measured.count("slow") == MIN_RUNS
    assert measured.count("fast") == 20
    between = "".join(name[0] for name in measured).split("s")
    assert [len(part) for part in between] == [0, 4, 4, 4, 4, 4]
    assert sorted(done) == ["fast", "slow"]
    assert times["slow"]["a"].runs == MIN_RUNS
    assert times["fast"]["total"].median == pytest.approx(300)
    assert times["fast"]["b"].median == pytest.approx(200)


@pytest.mark.parametrize(("took", "runs"), [(0.0, 9), (1e-6, 9), (0.5, MIN_RUNS), (0.125, 8)])
def test_runs_are_bounded(took: float, runs: int) -> None:
    assert interleave({"x": lambda: {"a": took}}, seconds=1, max_runs=9)["x"]["a"].runs == runs


def test_no_time_is_too_long_for_a_bounded_number_of_runs() -> None:
    times = interleave({"x": lambda: {"a": 0.1}}, seconds=float("inf"), max_runs=9)
    assert times["x"]["a"].runs == 9


def test_stopwatch_splits_stages_and_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.5, 1.75])
    waits: list[None] = []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch(lambda: waits.append(None))
    watch.lap("decode")
    watch.lap("dehaze")
    assert watch.laps == {"decode": 1.5, "dehaze": 0.25}
    assert len(waits) == 3
