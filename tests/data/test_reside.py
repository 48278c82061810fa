from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dehaze.data.reside import BORDER, Pair, discover, picture_shape, read_pair, spread
from dehaze.errors import DataError


def _write(path: Path, width: int = 24, height: int = 18, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, shade // 2, 255 - shade)).save(path)
    return path


def _tree(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        _write(root / name)
    return root


def _facts(pair: Pair) -> tuple[object, ...]:
    return (pair.hazy.name, pair.clear.name, pair.scene, pair.level, pair.airlight, pair.beta)


ITS = [
    "ITS/clear/1.png",
    "ITS/clear/10.png",
    "ITS/hazy/1_1_0.90179.png",
    "ITS/hazy/1_10_1.png",
    "ITS/hazy/10_2_0.7.png",
    "ITS/trans/1_1.png",
]


def test_its(tmp_path: Path) -> None:
    found = discover(_tree(tmp_path, ITS))
    assert [_facts(p) for p in found.pairs] == [
        ("1_1_0.90179.png", "1.png", "1", 1, 0.90179, None),
        ("1_10_1.png", "1.png", "1", 10, 1.0, None),
        ("10_2_0.7.png", "10.png", "10", 2, 0.7, None),
    ]
    assert found.problems == ()
    assert found.name == "ITS"


@pytest.mark.parametrize("start", ["", "ITS", "ITS/hazy", "ITS/clear"])
def test_the_root_may_be_around_at_or_inside_the_set(tmp_path: Path, start: str) -> None:
    _tree(tmp_path, ITS)
    assert len(discover(tmp_path / start)) == 3


@pytest.mark.parametrize("truth", ["gt", "clear", "GT"])
def test_sots_indoor_with_one_truth_a_scene(tmp_path: Path, truth: str) -> None:
    names = [f"indoor/{truth}/1400.png", "indoor/hazy/1400_1.png", "indoor/hazy/1400_10.png"]
    found = discover(_tree(tmp_path, names))
    assert [_facts(p) for p in found.pairs] == [
        ("1400_1.png", "1400.png", "1400", 1, None, None),
        ("1400_10.png", "1400.png", "1400", 10, None, None),
    ]


def test_sots_indoor_with_a_truth_for_each_pair(tmp_path: Path) -> None:
    names = ["gt/1400_1.png", "gt/1400_2.png", "hazy/1400_1.png", "hazy/1400_2.png"]
    found = discover(_tree(tmp_path, names))
    assert [_facts(p) for p in found.pairs] == [
        ("1400_1.png", "1400_1.png", "1400", 1, None, None),
        ("1400_2.png", "1400_2.png", "1400", 2, None, None),
    ]


@pytest.mark.parametrize(
    ("truth", "hazy", "facts"),
    [
        ("1_1_0.91", "1_1_0.91", ("1", 1, 0.91, None)),
        ("1_10_1", "1_10_1", ("1", 10, 1.0, None)),
        ("1_1", "1_1_0.9", ("1", 1, 0.9, None)),
        ("0005_0.8_0.04", "0005_0.8_0.04", ("0005", None, 0.8, 0.04)),
        ("7_2", "7_2_3", ("7_2", 3, None, None)),  # no name of RESIDE's
    ],
)
def test_truths_named_for_each_pair(tmp_path: Path, truth: str, hazy: str, facts: tuple[object, ...]) -> None:
    found = discover(_tree(tmp_path, [f"GT/{truth}.png", f"hazy/{hazy}.png"]))
    assert _facts(found.pairs[0])[2:] == facts


def test_outdoor_names_tell_airlight_and_beta(tmp_path: Path) -> None:
    names = ["OTS/clear/0005.jpg", "OTS/hazy/part1/0005_0.8_0.04.jpg", "OTS/hazy/part2/0005_1_0.2.jpg"]
    found = discover(_tree(tmp_path, names))
    assert [_facts(p)[2:] for p in found.pairs] == [("0005", None, 0.8, 0.04), ("0005", None, 1.0, 0.2)]


def test_parts_may_be_links_to_other_disks(tmp_path: Path) -> None:
    _tree(tmp_path, ["OTS/clear/0005.jpg", "OTS/hazy/part1/0005_0.8_0.04.jpg", "disk/0005_1_0.2.jpg"])
    (tmp_path / "OTS/hazy/part2").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk/back").symlink_to(tmp_path / "OTS/hazy", target_is_directory=True)
    found = discover(tmp_path).require_sound()
    assert [p.hazy.name for p in found.pairs] == ["0005_0.8_0.04.jpg", "0005_1_0.2.jpg"]


def test_a_link_back_to_the_root_is_not_followed(tmp_path: Path) -> None:
    _tree(tmp_path, ["OTS/clear/0005.jpg", "OTS/hazy/0005_0.8_0.04.jpg"])
    (tmp_path / "all").symlink_to(tmp_path, target_is_directory=True)
    assert discover(tmp_path).name == "OTS"


def test_any_folder_of_pairs_with_the_same_stem(tmp_path: Path) -> None:
    names = ["mine/clear/lake_at_dawn.jpg", "mine/hazy/lake_at_dawn.png"]
    assert _facts(discover(_tree(tmp_path, names)).pairs[0])[2:] == ("lake_at_dawn", None, None, None)


def test_roles_at_the_end_of_names(tmp_path: Path) -> None:
    names = ["GT/01_outdoor_GT.jpg", "hazy/01_outdoor_hazy.jpg"]
    assert discover(_tree(tmp_path, names)).pairs[0].scene == "01_outdoor"


def test_splits(tmp_path: Path) -> None:
    _tree(tmp_path, ITS)
    _tree(tmp_path, ["SOTS/indoor/gt/1400.png", "SOTS/indoor/hazy/1400_1.png"])
    _tree(tmp_path, ["SOTS/outdoor/gt/0001.png", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg"])
    assert discover(tmp_path, "train").name == "ITS"
    assert discover(tmp_path, "test").name == "SOTS/indoor, SOTS/outdoor"
    assert len(discover(tmp_path)) == 5
    assert discover(tmp_path / "SOTS" / "indoor", "train").name == "indoor"


def test_train_and_test_folders(tmp_path: Path) -> None:
    _tree(tmp_path, ["train/GT/1.png", "train/hazy/1.png", "test/GT/2.png", "test/hazy/2.png"])
    assert [p.scene for p in discover(tmp_path, "train").pairs] == ["1"]
    assert [p.scene for p in discover(tmp_path, "test").pairs] == ["2"]
    with pytest.raises(DataError, match="nothing for training"):  # the root's own name counts too
        discover(tmp_path / "test", "train")


def test_asking_for_the_split_that_is_not_there(tmp_path: Path) -> None:
    _tree(tmp_path, ITS)
    with pytest.raises(DataError, match=r"nothing for testing.*for training: ITS"):
        discover(tmp_path, "test")


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    _tree(tmp_path, ITS)
    (tmp_path / "ITS/hazy/._1_1_0.90179.png").write_bytes(b"resource fork")
    assert discover(tmp_path).problems == ()


def test_a_sound_set_passes(tmp_path: Path) -> None:
    found = discover(_tree(tmp_path, ITS))
    assert found.require_sound() is found
    assert found.report() == ""


def test_missing_partners_are_counted_with_examples(tmp_path: Path) -> None:
    _tree(tmp_path, ITS)
    _tree(tmp_path, [f"ITS/hazy/{n}_1_0.8.png" for n in (20, 21, 22, 23)] + ["ITS/clear/30.png"])
    found = discover(tmp_path)
    assert len(found) == 3
    with pytest.raises(DataError) as raised:
        found.require_sound()
    message = raised.value.message
    assert "4 hazy pictures without a clear one: ITS/hazy/20_1_0.8.png" in message
    assert "23_1_0.8" not in message
    assert "1 clear pictures without a hazy one: ITS/clear/30.png" in message
    assert "SOTS/indoor/{gt,hazy}" in raised.value.hint


def test_damaged_files_of_each_kind(tmp_path: Path) -> None:
    _tree(tmp_path, ITS)
    hazy = tmp_path / "ITS/hazy"
    (hazy / "1_1_0.90179.png").write_bytes(b"")
    (hazy / "1_10_1.png").write_text("<html>not found</html>")
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(hazy / "10_2_0.7.png")
    whole = (hazy / "10_2_0.7.png").read_bytes()
    (hazy / "10_2_0.7.png").write_bytes(whole[: len(whole) // 2])
    found = discover(tmp_path)
    assert len(found) == 0
    assert {p.path.name for p in found.problems} == {"1_1_0.90179.png", "1_10_1.png", "10_2_0.7.png"}
    assert {p.kind for p in found.problems} == {"files that cannot be read"}
    assert "(empty file)" in found.report()
    assert "(not a picture)" in found.report()
    assert "truncated" in found.report()


def test_a_truncated_jpeg_is_found_and_one_with_an_appendix_is_not(tmp_path: Path) -> None:
    for name in ("hazy/a.jpg", "clear/a.jpg", "hazy/b.jpg", "clear/b.jpg"):
        _write(tmp_path / name, 200, 150)
    short = tmp_path / "hazy/a.jpg"
    short.write_bytes(short.read_bytes()[:-40])
    longer = tmp_path / "hazy/b.jpg"
    longer.write_bytes(longer.read_bytes() + bytes(5000))
    assert [p.path.name for p in discover(tmp_path).problems] == ["a.jpg"]


def test_sizes_that_differ(tmp_path: Path) -> None:
    _tree(tmp_path, ITS)
    _write(tmp_path / "ITS/hazy/1_1_0.90179.png", 30, 18)
    found = discover(tmp_path)
    assert len(found) == 2
    assert "30 x 18, its clear picture 24 x 18" in found.report()


def test_the_border_that_some_copies_keep_is_cut_away(tmp_path: Path) -> None:
    _write(tmp_path / "hazy/7_1.png", 40, 30)
    clear = _write(tmp_path / "gt/7.png", 40 + 2 * BORDER, 30 + 2 * BORDER)
    with Image.open(clear) as picture:
        picture.putpixel((BORDER, BORDER), (1, 2, 3))
        picture.save(clear)
    hazy, truth = read_pair(discover(tmp_path).require_sound().pairs[0])
    assert hazy.shape == truth.shape == (30, 40, 3)
    assert truth[0, 0].tolist() == [1, 2, 3]


def test_nothing_like_a_data_set(tmp_path: Path) -> None:
    _write(tmp_path / "holiday/1.jpg")
    with pytest.raises(DataError, match="no folder of hazy pictures beside") as raised:
        discover(tmp_path)
    assert "ITS/{clear,hazy}" in raised.value.hint


def test_empty_folders(tmp_path: Path) -> None:
    for name in ("hazy", "clear"):
        (tmp_path / "ITS" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"\(ITS\) but no pictures"):
        discover(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set folder at"):
        discover(tmp_path / "nowhere")


def test_identity_follows_names_and_sizes_but_not_the_place(tmp_path: Path) -> None:
    one, two = (discover(_tree(tmp_path / n / "RESIDE", ITS)).identity for n in "ab")
    assert one == two
    assert one["pairs"] == 3
    _write(tmp_path / "b/RESIDE/ITS/hazy/1_1_0.90179.png", shade=13, width=24)
    (tmp_path / "b/RESIDE/ITS/hazy/10_2_0.7.png").rename(tmp_path / "b/RESIDE/ITS/hazy/10_3_0.7.png")
    assert discover(tmp_path / "b/RESIDE").identity != one


def test_reading_what_is_no_picture(tmp_path: Path) -> None:
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"\x89PNG but not really")
    with pytest.raises(DataError, match=r"fake\.png"):
        picture_shape(fake)
    with pytest.raises(DataError, match=r"fake\.png"):
        read_pair(Pair(fake, fake, "fake"))


def test_a_few_pairs_come_from_everywhere() -> None:
    """Of SOTS' 50 scenes at ten levels each, ten are every fifth scene, each at another level."""
    pairs = [Pair(Path(f"{s}_{i}"), Path(f"{s}"), f"{s}", i) for s in range(50) for i in range(1, 11)]
    few = spread(pairs, 10)
    assert [pair.scene for pair in few] == [str(s) for s in range(0, 50, 5)]
    assert [pair.level for pair in few] == list(range(1, 11))
    twice = spread(pairs, 100)
    assert {pair.scene for pair in twice} == {str(s) for s in range(50)}
    assert all(sum(pair.level == level for pair in twice) == 10 for level in range(1, 11))
    assert spread(pairs, 500) == spread(pairs, 600) == pairs
    assert spread(pairs, 0) == spread([], 5) == []


def test_scenes_with_fewer_levels_do_not_make_the_few_fewer() -> None:
    pairs = [Pair(Path(f"{s}_{i}"), Path(f"{s}"), f"{s}", i) for s in range(4) for i in range(1 + 3 * s)]
    assert [len(spread(pairs, count)) for count in (3, 4, 7, 21, 22, 30)] == [3, 4, 7, 21, 22, 22]
