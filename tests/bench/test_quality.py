from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from dehaze.bench.dataset import pictures
from dehaze.bench.quality import (
    Method,
    PicturePair,
    Quality,
    Score,
    evaluate,
    spread,
    untouched,
)
from dehaze.data.reside import discover
from dehaze.errors import DataError
from dehaze.metrics import PSNR_CAP, luma


def scene(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


def hazy(clear: np.ndarray, t: float) -> np.ndarray:
    return (clear * t + 255 * (1 - t)).round().astype(np.uint8)


def judge(method: Method, pairs: Iterable[PicturePair], **options: Any) -> Quality:
    return evaluate({"": method}, pairs, **options)[""]


def pairs(count: int = 4) -> list[PicturePair]:
    return [
        PicturePair(f"{i}_{level}", hazy(scene(i), 1 - level / 10), scene(i), str(level), str(i))
        for i in range(count)
        for level in (10, 2)
        if level < 10 or i % 2
    ]


def test_scores_and_gains_agree_with_scikit_image() -> None:
    chosen = pairs(2)
    quality = judge(lambda x: 255 - x, chosen)
    for score, pair in zip(quality.scores, chosen, strict=True):
        own = peak_signal_noise_ratio(pair.clear, 255 - pair.hazy)
        assert score.psnr == pytest.approx(own, abs=1e-4)
        assert score.gain == pytest.approx(own - peak_signal_noise_ratio(pair.clear, pair.hazy), abs=1e-4)


def test_untouched_gains_nothing_and_is_never_worse() -> None:
    quality = judge(untouched, pairs())
    assert [s.gain for s in quality.scores] == [0] * len(quality.scores)
    assert quality.worse == 0


def test_a_method_that_harms_is_counted_picture_by_picture() -> None:
    chosen = pairs()
    quality = evaluate({"zero": np.zeros_like, "same": untouched}, chosen)
    expected = sum(
        peak_signal_noise_ratio(p.clear, np.zeros_like(p.clear)) < peak_signal_noise_ratio(p.clear, p.hazy)
        for p in chosen
    )
    assert 0 < expected < len(chosen)
    assert quality["zero"].worse == expected
    assert list(quality) == ["zero", "same"]


def test_a_perfect_answer_counts_as_the_cap() -> None:
    clear = scene(0)
    quality = judge(lambda _: clear, [PicturePair("a", hazy(clear, 0.5), clear)])
    assert (quality.psnr.mean, quality.ssim.mean) == (PSNR_CAP, pytest.approx(1))


def test_luma_on_request() -> None:
    chosen = pairs(1)
    quality = judge(untouched, chosen, channel="y")
    expected = [peak_signal_noise_ratio(luma(p.clear), luma(p.hazy)) for p in chosen]
    assert [s.psnr for s in quality.scores] == pytest.approx(expected, abs=1e-4)


def test_levels_are_split_in_numeric_order() -> None:
    levels = judge(untouched, pairs()).by_level()
    assert list(levels) == ["2", "10"]
    assert [len(q.scores) for q in levels.values()] == [4, 2]
    assert levels["2"].psnr.mean > levels["10"].psnr.mean


def test_no_levels_where_names_tell_none() -> None:
    assert judge(untouched, [PicturePair("a", scene(1), scene(2))]).by_level() == {}


def test_progress_counts_pairs() -> None:
    seen: list[int] = []
    judge(untouched, pairs(2), progress=seen.append)
    assert seen == [1, 2, 3]


def test_spread_matches_closed_forms() -> None:
    values = list(np.random.default_rng(0).normal(20, 2, 400))
    result = spread(values, [str(i) for i in range(400)])
    assert result.mean == pytest.approx(np.mean(values))
    assert result.std == pytest.approx(np.std(values, ddof=1))
    half = 1.96 * result.std / np.sqrt(400)
    assert result.low == pytest.approx(result.mean - half, abs=0.1 * half)
    assert result.high == pytest.approx(result.mean + half, abs=0.1 * half)


def test_pictures_of_one_scene_count_as_one_draw() -> None:
    values = list(np.repeat(np.random.default_rng(0).normal(20, 2, 50), 8))
    independent = spread(values, [str(i) for i in range(400)])
    grouped = spread(values, [str(i // 8) for i in range(400)])
    ratio = (grouped.high - grouped.low) / (independent.high - independent.low)
    assert ratio == pytest.approx(np.sqrt(8), rel=0.15)


def test_spread_of_one_picture() -> None:
    result = spread([7.0], ["a"])
    assert (result.mean, result.std, result.low, result.high) == (7, 0, 7, 7)


def test_best_and_worst() -> None:
    quality = Quality([Score(str(i), float(i), 0.5, 0.0) for i in (3, 1, 2)])
    assert (quality.best.name, quality.worst.name) == ("3", "1")


def test_pairs_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(DataError, match=r"^odd: pictures differ in shape"):
        judge(untouched, [PicturePair("odd", scene(1), scene(1, 20, 20))])
    with pytest.raises(DataError, match=r"^small: SSIM needs at least 11 x 11"):
        judge(untouched, [PicturePair("small", scene(1, 8, 8), scene(1, 8, 8))])


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_sots_indoor_as_published(tmp_path: Path) -> None:
    for name in ("1400", "1401"):
        whole = scene(int(name), 60, 70)
        write(tmp_path / f"gt/{name}.png", whole)
        for level in (2, 10):
            write(tmp_path / f"hazy/{name}_{level}.png", hazy(whole[10:-10, 10:-10], 1 - level / 20))
    found = list(pictures(discover(tmp_path)))
    assert [(p.name, p.level, p.scene) for p in found] == [
        ("hazy/1400_2.png", "2", "1400"),
        ("hazy/1400_10.png", "10", "1400"),
        ("hazy/1401_2.png", "2", "1401"),
        ("hazy/1401_10.png", "10", "1401"),
    ]
    assert np.array_equal(found[0].clear, scene(1400, 60, 70)[10:-10, 10:-10])
    assert list(judge(untouched, found).by_level()) == ["2", "10"]


@pytest.mark.parametrize(("name", "level"), [("0001_0.8_0.2", "0.2"), ("0001_3_0.85", ""), ("0001", "")])
def test_levels_are_only_told_where_names_mean_one(tmp_path: Path, name: str, level: str) -> None:
    write(tmp_path / "gt/0001.png", scene(1))
    write(tmp_path / f"hazy/{name}.png", scene(1))
    assert [p.level for p in pictures(discover(tmp_path))] == [level]


def test_no_pairs_is_an_error() -> None:
    with pytest.raises(DataError, match="no pairs"):
        judge(untouched, [])
