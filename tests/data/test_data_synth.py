from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dehaze.data.depth import DepthSource, find_frames
from dehaze.data.reside import discover, read_picture
from dehaze.data.synth import Layout, Shot, plan, shots_from_folders, shots_from_scenes, write
from dehaze.errors import DataError, UsageError

HEIGHT, WIDTH = 40, 52


def _shot(number: int) -> Shot:
    rng = np.random.default_rng(number)
    clear = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth = rng.uniform(0.5, 10, (HEIGHT, WIDTH)).astype(np.float32)
    return lambda: (clear, depth)


def _files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def _depth_map(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)


def test_names_and_layout_are_resides(tmp_path: Path) -> None:
    write([_shot(1), _shot(2), _shot(3)], tmp_path, Layout(2, 1, per_scene=3))
    files = _files(tmp_path)
    assert [f for f in files if "hazy" not in f] == [
        "ITS/clear/1.png",
        "ITS/clear/2.png",
        "ITS/depth/1.png",
        "ITS/depth/2.png",
        *(f"ITS/trans/{s}_{i}.png" for s in (1, 2) for i in (1, 2, 3)),
        "SOTS/indoor/gt/3.png",
    ]
    its = [f for f in files if f.startswith("ITS/hazy")]
    assert all(re.fullmatch(r"ITS/hazy/[12]_[123]_(1|0\.[7-9]\d{0,4})\.png", f) for f in its)
    assert len(its) == 6
    sots = {f for f in files if f.startswith("SOTS/indoor/hazy")}
    assert sots == {f"SOTS/indoor/hazy/3_{k}.png" for k in range(1, 11)}


def test_what_is_written_is_found_again(tmp_path: Path) -> None:
    write([_shot(1), _shot(2)], tmp_path, Layout(1, 1, per_scene=4))
    train, test = discover(tmp_path, "train").require_sound(), discover(tmp_path, "test").require_sound()
    assert (train.name, len(train)) == ("ITS", 4)
    assert (test.name, len(test)) == ("SOTS/indoor", 10)
    assert all(p.airlight is not None and 0.7 <= p.airlight <= 1 for p in train.pairs)


def test_sots_pictures_are_the_published_rule(tmp_path: Path) -> None:
    """I = J t + (1 - t), t = exp(-(0.5 + 0.1 k) d / max d), to the rounding of 8 bits."""
    shot = _shot(5)
    clear, depth = shot()
    write([shot], tmp_path, Layout(0, 1))
    assert np.array_equal(read_picture(tmp_path / "SOTS/indoor/gt/1.png"), clear)
    for level in (1, 5, 10):
        t = np.exp(-(0.5 + 0.1 * level) * depth.astype(np.float64) / depth.max())[..., None]
        expected = clear * t + 255 * (1 - t)
        written = read_picture(tmp_path / f"SOTS/indoor/hazy/1_{level}.png")
        assert np.abs(written - expected).max() < 0.501


def test_its_pictures_follow_from_their_name_and_transmission(tmp_path: Path) -> None:
    shot = _shot(6)
    clear, depth = shot()
    write([shot], tmp_path, Layout(1, 0, per_scene=5))
    for path in (tmp_path / "ITS/hazy").iterdir():
        _, index, airlight = path.stem.split("_")
        coarse = cv2.imread(str(tmp_path / f"ITS/trans/1_{index}.png"), cv2.IMREAD_UNCHANGED)
        assert coarse.shape == depth.shape
        betas = -np.log(np.maximum(coarse, 1) / 255) / (depth / depth.max())
        beta = float(np.median(betas[depth > 3]))
        assert 0.58 < beta < 1.82
        t = np.exp(-beta * depth.astype(np.float64) / depth.max())[..., None]
        expected = clear * t + 255 * float(airlight) * (1 - t)
        assert np.abs(read_picture(path) - expected).max() < 2


def test_clear_and_depth_make_haze_of_any_kind(tmp_path: Path) -> None:
    """What is written is a pair of folders for --clear and --depth, to 16 bits of the scene's maximum."""
    shot = _shot(6)
    clear, depth = shot()
    write([shot], tmp_path, Layout(1, 0, per_scene=1))
    written = cv2.imread(str(tmp_path / "ITS/depth/1.png"), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    assert np.abs(written - 65535 * (depth / depth.max())).max() < 0.51
    (frame,) = find_frames(tmp_path / "ITS/clear", tmp_path / "ITS/depth")
    batch = DepthSource([frame], [(HEIGHT, WIDTH)], view="crop").batch(1, (HEIGHT, WIDTH), torch.Generator())
    taken = (batch["clear"][0].permute(1, 2, 0) * 255).round().numpy()
    assert np.array_equal(taken, clear) or np.array_equal(taken[:, ::-1], clear)


def test_the_border_is_cut_after_the_maximum_depth_is_taken(tmp_path: Path) -> None:
    clear = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    depth = np.full((HEIGHT, WIDTH), 5.0, np.float32)
    depth[0, 0] = 10.0  # the farthest point lies in the border
    write([lambda: (clear, depth)], tmp_path, Layout(0, 1), border=10)
    written = read_picture(tmp_path / "SOTS/indoor/hazy/1_5.png")
    assert written.shape == (HEIGHT - 20, WIDTH - 20, 3)
    t = np.exp(-1.0 * 0.5)
    assert np.all(written == round(100 * t + 255 * (1 - t)))


def test_a_border_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--border 20 leaves nothing"):
        write([_shot(1)], tmp_path, Layout(1, 0), border=20)


def test_equal_seeds_write_equal_files(tmp_path: Path) -> None:
    for name, seed, jobs in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        write([_shot(1), _shot(2)], tmp_path / name, Layout(2, 0, per_scene=2), seed=seed, jobs=jobs)
    a, b, c = (_files(tmp_path / n) for n in "abc")
    assert a == b
    assert a != c
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in a)


def test_two_data_sets_do_not_mix(tmp_path: Path) -> None:
    write([_shot(1), _shot(2)], tmp_path, Layout(2, 0, per_scene=2))
    mine = tmp_path / "ITS/clear/notes.txt"
    mine.write_text("keep me")
    before = _files(tmp_path)
    with pytest.raises(UsageError, match="is not empty") as raised:
        write([_shot(1)], tmp_path, Layout(1, 0, per_scene=2), seed=9)
    assert "-y" in raised.value.hint
    assert _files(tmp_path) == before
    write([_shot(1)], tmp_path, Layout(1, 0, per_scene=2), seed=9, overwrite=True)
    assert mine.read_text() == "keep me"
    mine.unlink()
    assert len(_files(tmp_path)) == 6
    assert len(discover(tmp_path).require_sound()) == 2


def test_a_failure_leaves_no_half_file_and_starts_nothing_more(tmp_path: Path) -> None:
    asked: list[int] = []

    def broken(number: int) -> Shot:
        def shot() -> tuple[np.ndarray, np.ndarray]:
            asked.append(number)
            raise DataError("broken")

        return shot

    shots = [_shot(1), *(broken(n) for n in range(2, 50))]
    with pytest.raises(DataError, match="broken"):
        write(shots, tmp_path, Layout(len(shots), 0, per_scene=1), jobs=1)
    assert asked == [2]
    assert all(f.endswith(".png") for f in _files(tmp_path))


@pytest.mark.parametrize(
    ("count", "test", "expected"),
    [
        (1, None, (1, 0)),
        (2, None, (1, 1)),
        (30, None, (27, 3)),
        (1449, None, (1399, 50)),
        (5, 5, (0, 5)),
        (5, 0, (5, 0)),
    ],
)
def test_plan(count: int, test: int | None, expected: tuple[int, int]) -> None:
    layout = plan(count, test)
    assert (layout.train, layout.test) == expected
    assert layout.pictures == 10 * count


def test_plan_with_too_many_test_scenes() -> None:
    with pytest.raises(UsageError, match="--test is 4 but there are 3 scenes"):
        plan(3, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_folders_in_natural_order_with_8_or_16_bit_depth(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    for number in (10, 2):
        picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        _depth_map(tmp_path / f"clear/{number}.png", picture)
        _depth_map(tmp_path / f"depth/{number}.png", np.full((HEIGHT, WIDTH), top // number, dtype))
    shots = shots_from_folders(tmp_path / "clear", tmp_path / "depth")
    found = [(int(clear[0, 0, 0]), float(depth[0, 0])) for clear, depth in (shot() for shot in shots)]
    assert found == [(2, top // 2), (10, top // 10)]


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "is no depth map"),
        (np.linspace(-1, 9, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH), "is no depth map"),
        (np.full((HEIGHT, WIDTH), np.nan, np.float32), "is no depth map"),
        (np.ones((HEIGHT, WIDTH + 1), np.uint8), "they must agree"),
    ],
)
def test_depth_that_cannot_be_used(tmp_path: Path, depth: np.ndarray, message: str) -> None:
    _depth_map(tmp_path / "clear/1.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    _depth_map(tmp_path / f"depth/1.{'tiff' if depth.dtype == np.float32 else 'png'}", depth)
    with pytest.raises(DataError, match=message):  # before anything is written
        shots_from_folders(tmp_path / "clear", tmp_path / "depth")


def test_scenes_differ_and_repeat() -> None:
    one, two = shots_from_scenes(2, (48, 64), seed=1)
    first = one()[0]
    again = shots_from_scenes(5, (48, 64), seed=1)[0]
    assert first.shape == (48, 64, 3)
    assert np.array_equal(first, again()[0])
    assert not np.array_equal(first, two()[0])


def test_textures_must_be_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures in"):
        shots_from_scenes(1, (48, 64), textures=tmp_path)
    with pytest.raises(DataError, match="no folder at"):
        shots_from_scenes(1, (48, 64), textures=tmp_path / "none")
