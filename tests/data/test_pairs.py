from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from dehaze.data.pairs import PairSource
from dehaze.data.reside import discover, read_picture
from dehaze.errors import DataError

SIZE = (16, 20)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several sizes: red tells the row, green the column, blue which; hazy = clear + level."""
    shapes = [(16, 20), (24, 30), (40, 20), (16, 50)]
    for number, (height, width) in enumerate(shapes):
        rows, columns = np.mgrid[0:height, 0:width]
        pixels = np.dstack((4 * rows, 4 * columns, np.full_like(rows, 50 * number))).astype(np.uint8)
        _write(tmp_path / f"clear/{number}.png", pixels)
        for level in (1, 2):
            _write(tmp_path / f"hazy/{number}_{level}.png", pixels + np.uint8(level))
    return tmp_path


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batch_shapes_range_and_pairing(folder: Path) -> None:
    source = PairSource(discover(folder), [SIZE])
    generator, seen = _generator(), set()
    for _ in range(20):
        batch = source.batch(6, SIZE, generator)
        for name in ("hazy", "clear"):
            assert batch[name].shape == (6, 3, *SIZE)
            assert batch[name].dtype == torch.float32
        difference = (batch["hazy"] - batch["clear"]) * 255
        levels = difference.mean((1, 2, 3)).round()
        assert set(levels.tolist()) <= {1.0, 2.0}
        assert float((difference - levels.view(-1, 1, 1, 1)).abs().max()) < 1.01  # same crop, same flip
        seen |= set((batch["clear"][:, 2].mean((1, 2)) * 255).round().int().tolist())
    assert seen == {0, 50, 100, 150}


def test_pictures_of_the_training_size_come_back_exactly(folder: Path) -> None:
    for path in [*folder.glob("*/[1-3].png"), *folder.glob("*/[1-3]_*.png")]:
        path.unlink()
    source = PairSource(discover(folder), [SIZE])
    clear = source.batch(8, SIZE, _generator())["clear"] * 255
    rows, columns = torch.meshgrid(4 * torch.arange(16.0), 4 * torch.arange(20.0), indexing="ij")
    plain = torch.stack((rows, columns, torch.zeros_like(rows)))
    found = {bool(torch.allclose(c, plain)) for c in clear}
    assert all(torch.allclose(c, plain) or torch.allclose(c, plain.flip(2)) for c in clear)
    assert found == {True, False}  # half are mirrored


def test_crops_reach_every_part_of_a_long_picture(folder: Path) -> None:
    for path in [*folder.glob("*/[0-2].png"), *folder.glob("*/[0-2]_*.png")]:
        path.unlink()
    source = PairSource(discover(folder), [SIZE])
    clear = source.batch(200, SIZE, _generator())["clear"] * 255 / 4
    assert float(clear[:, 1].min()) < 1
    assert float(clear[:, 1].max()) > 48


def test_equal_generators_give_equal_batches(folder: Path) -> None:
    one, two = PairSource(discover(folder), [SIZE]), PairSource(discover(folder), [SIZE])
    a, b = one.batch(5, SIZE, _generator()), two.batch(5, SIZE, _generator())
    assert torch.equal(a["hazy"], b["hazy"])
    assert torch.equal(a["clear"], b["clear"])
    assert not torch.equal(a["hazy"], one.batch(5, SIZE, _generator(6))["hazy"])


def test_the_memory_map_gives_the_same_batches_and_is_used_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, cache = discover(folder), tmp_path / "cache"
    decoded: list[Path] = []
    monkeypatch.setattr(
        "dehaze.data.pairs.read_picture", lambda path: [decoded.append(path), read_picture(path)][1]
    )

    def make() -> PairSource:
        return PairSource(pairs, [SIZE], cache=cache, memory_limit=0)

    mapped = make()
    assert len(decoded) == 12  # 8 hazy pictures, 4 clear ones decoded once
    again = make()
    assert len(decoded) == 12
    expected = PairSource(pairs, [SIZE]).batch(5, SIZE, _generator())["hazy"]
    assert torch.equal(mapped.batch(5, SIZE, _generator())["hazy"], expected)
    assert torch.equal(again.batch(5, SIZE, _generator())["hazy"], expected)
    assert all(p.suffix == ".rgb" for p in cache.iterdir())


def test_a_changed_picture_is_decoded_again(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def brightness() -> float:
        source = PairSource(discover(folder), [SIZE], cache=cache, memory_limit=0)
        return float(source.batch(4, SIZE, _generator())["clear"].mean())

    before = brightness()
    for path in (folder / "clear").iterdir():
        size = path.stat().st_size
        _write(path, np.full_like(read_picture(path), 200))
        with path.open("ab") as file:
            file.write(b"\0" * (size - path.stat().st_size))  # as large as it was
    assert before < 0.6
    assert brightness() == pytest.approx(200 / 255, abs=1e-3)


def test_the_minima_of_both_pictures_of_a_pair_are_of_the_same_places(tmp_path: Path) -> None:
    """Where haze is even: so hazy less clear is still the level, to the rounding; and maps are told apart."""
    pixels = np.random.default_rng(0).integers(0, 250, (32, 40, 3), np.uint8)
    _write(tmp_path / "clear/0.png", pixels)
    _write(tmp_path / "hazy/0_1.png", pixels + np.uint8(5))
    pairs, brightness = discover(tmp_path), {}
    for reduction in ("mean", "minimum"):
        source = PairSource(pairs, [SIZE], cache=tmp_path / "cache", memory_limit=0, reduction=reduction)
        batch = source.batch(8, SIZE, _generator())
        added = 255 * (batch["hazy"] - batch["clear"])
        assert float((added - 5).abs().max()) < 1.01
        brightness[reduction] = float(batch["clear"].mean())
        assert source.identity.get("reduction", "mean") == reduction
    assert brightness["mean"] == pytest.approx(0.49, abs=0.02)
    assert brightness["minimum"] < 0.4


def test_an_incomplete_memory_map_is_made_again(folder: Path, tmp_path: Path) -> None:
    pairs, cache = discover(folder), tmp_path / "cache"
    expected = PairSource(pairs, [SIZE], cache=cache, memory_limit=0).batch(4, SIZE, _generator())["clear"]
    for path in cache.iterdir():
        path.write_bytes(b"cut short")
    source = PairSource(pairs, [SIZE], cache=cache, memory_limit=0)
    assert torch.equal(source.batch(4, SIZE, _generator())["clear"], expected)


def test_length_and_identity_are_the_sets(folder: Path) -> None:
    pairs = discover(folder)
    source = PairSource(pairs, [SIZE])
    assert len(source) == 8
    assert source.identity == {**pairs.identity, "view": "whole"}


def test_crops_of_pictures_as_they_are(folder: Path) -> None:
    """Neighbouring pixels differ by exactly 4 levels: nothing was resized."""
    source = PairSource(discover(folder), [SIZE], view="crop")
    clear = source.batch(40, SIZE, _generator())["clear"] * 255
    rows = clear[:, 0, 1:] - clear[:, 0, :-1]
    columns = (clear[:, 1, :, 1:] - clear[:, 1, :, :-1]).abs()
    torch.testing.assert_close(rows, torch.full_like(rows, 4.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(columns, torch.full_like(columns, 4.0), atol=1e-3, rtol=0)
    assert source.identity["view"] == "crop"


def test_a_border_that_only_the_truth_has_is_cut_away(tmp_path: Path) -> None:
    """Some copies of RESIDE keep 10 pixels around the clear pictures; rows and columns must still agree."""
    rows, columns = np.mgrid[0:36, 0:40]
    clear = np.dstack((4 * rows, 4 * columns, 0 * rows)).astype(np.uint8)
    _write(tmp_path / "gt/1.png", clear)
    _write(tmp_path / "hazy/1_1.png", clear[10:-10, 10:-10] + np.uint8(3))
    batch = PairSource(discover(tmp_path).require_sound(), [SIZE]).batch(4, SIZE, _generator())
    torch.testing.assert_close(batch["hazy"] - 3 / 255, batch["clear"], atol=1e-6, rtol=0)


def test_a_full_disk_is_told_before_decoding(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    monkeypatch.setattr("dehaze.data.pairs.read_picture", lambda path: pytest.fail(f"{path} was decoded"))
    with pytest.raises(DataError, match=r"0\.0 GB free") as raised:
        PairSource(discover(folder), [SIZE], cache=tmp_path / "cache", memory_limit=0)
    assert "XDG_CACHE_HOME" in raised.value.hint


def test_no_sound_pairs(folder: Path) -> None:
    for path in folder.glob("clear/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"no sound pairs.*\n.*8 hazy pictures without"):
        PairSource(discover(folder), [SIZE])


def test_a_picture_that_breaks_after_the_check(folder: Path) -> None:
    pairs = discover(folder)
    path = folder / "clear/1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png"):
        PairSource(pairs, [SIZE])
