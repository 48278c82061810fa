"""Haze made from clear pictures and depth: equal to the closed form, repeatable, honest about bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from dehaze.data.depth import (
    EPOCH_PER_FRAME,
    LAYOUTS,
    DepthSource,
    Frame,
    find_frames,
    hazy_and_clear,
    read_with_depth,
    warped,
    without_depth,
)
from dehaze.errors import DataError
from dehaze.haze import RealHaze


def write_frame(folder: Path, name: str, shape: tuple[int, int] = (48, 64), seed: int = 0) -> Frame:
    draw = np.random.default_rng(seed)
    for part in ("clear", "depth"):
        (folder / part).mkdir(exist_ok=True)
    clear, depth = folder / "clear" / f"{name}.png", folder / "depth" / f"{name}.png"
    cv2.imwrite(str(clear), draw.integers(0, 256, (*shape, 3), dtype=np.uint8))
    cv2.imwrite(str(depth), np.linspace(10, 200, shape[0] * shape[1]).reshape(shape).astype(np.uint8))
    return Frame(clear, depth)


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    return [write_frame(tmp_path, str(i), seed=i) for i in (1, 2, 10)]


def test_frames_are_paired_in_natural_order(frames: list[Frame]) -> None:
    folder = frames[0].clear.parents[1]
    assert find_frames(folder / "clear", folder / "depth") == frames


def test_missing_depth_is_counted_with_examples(frames: list[Frame]) -> None:
    assert frames[1].depth is not None
    frames[1].depth.unlink()
    folder = frames[0].clear.parents[1]
    with pytest.raises(DataError, match=r"1 of 3 pictures .* have no depth map .* for example 2"):
        find_frames(folder / "clear", folder / "depth")


def test_a_camera_turned_on_its_side_turns_photos_but_not_pictures_with_depth(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn by 90 degrees to view
    frame = write_frame(tmp_path, "1")
    turned = tmp_path / "turned.jpg"
    Image.open(frame.clear).save(turned, exif=exif)
    assert frame.depth is not None
    picture, depth = read_with_depth(turned, frame.depth)
    assert picture.shape[:2] == depth.shape == (48, 64)
    hazy, clear = hazy_and_clear(
        Frame(turned, None)
    )  # its layout is drawn below a sky that must be at the top
    assert hazy.shape == clear.shape == (64, 48, 3)


def test_a_depth_map_may_have_three_channels_but_no_colours(tmp_path: Path) -> None:
    """Maps painted for the eye, and photos named as their own depth, would give one channel for metres."""
    frame = write_frame(tmp_path, "1")
    assert frame.depth is not None
    expected = read_with_depth(frame.clear, frame.depth)[1]
    gray = cv2.imread(str(frame.depth), cv2.IMREAD_UNCHANGED)
    for channels in (3, 4):
        cv2.imwrite(str(frame.depth), np.dstack([gray] * 3 + [np.full_like(gray, 255)])[..., :channels])
        np.testing.assert_array_equal(read_with_depth(frame.clear, frame.depth)[1], expected)
    cv2.imwrite(str(frame.depth), cv2.applyColorMap(gray, cv2.COLORMAP_JET))
    with pytest.raises(DataError, match=r"depth/1\.png is a picture in colours: expected a depth map"):
        read_with_depth(frame.clear, frame.depth)
    with pytest.raises(DataError, match=r"1\.png is a picture in colours"):
        DepthSource([Frame(frame.clear, frame.clear)], [(8, 8)])


def test_two_files_of_one_name_are_refused(frames: list[Frame]) -> None:
    (frames[0].clear.parent / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"clear holds both 1\.jpg and 1\.png"):
        without_depth(frames[0].clear.parent)


def test_folders_must_exist_and_hold_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder at"):
        without_depth(tmp_path / "none")
    with pytest.raises(DataError, match="no pictures in"):
        without_depth(tmp_path)


def test_haze_is_the_closed_form(frames: list[Frame]) -> None:
    """I = J t + A (1 - t) with t = exp(-d / dmax), A = 1, written out in numpy."""
    hazy, clear = hazy_and_clear(frames[0])
    depth = cv2.imread(str(frames[0].depth), cv2.IMREAD_UNCHANGED).astype(np.float64)
    t = np.exp(-depth / depth.max())[..., None]
    expected = clear / 255 * t + (1 - t)
    assert np.abs(hazy / 255 - expected).max() < 0.004  # half a level of 8 bits, and of the depth


def framed(frame: Frame, sides: int) -> Frame:
    """Paint NYU's white frame on some sides of the picture, in the order top, bottom, left, right."""
    picture = cv2.imread(str(frame.clear))
    for side in (np.s_[:6], np.s_[-6:], np.s_[:, :6], np.s_[:, -6:])[:sides]:
        picture[side] = 254
    cv2.imwrite(str(frame.clear), picture)
    return frame


def test_a_white_frame_is_cut_as_reside_cuts_it(frames: list[Frame]) -> None:
    """10 pixels from each side, after the depth has been normalised by the whole frame's maximum."""
    inside = np.s_[10:-10, 10:-10]
    whole_hazy, whole_clear = hazy_and_clear(frames[0])
    hazy, clear = hazy_and_clear(framed(frames[0], 4))
    np.testing.assert_array_equal(clear, whole_clear[inside])
    np.testing.assert_array_equal(hazy, whole_hazy[inside])


def test_a_white_sky_is_no_frame(frames: list[Frame]) -> None:
    assert hazy_and_clear(framed(frames[0], 3))[1].shape == (48, 64, 3)


def test_of_a_small_white_picture_nothing_is_cut(tmp_path: Path) -> None:
    frame = framed(write_frame(tmp_path, "1", (20, 30)), 4)
    assert hazy_and_clear(frame)[1].shape == (20, 30, 3)


def test_its_batches_obey_eq_1_with_gray_airlight(frames: list[Frame]) -> None:
    """With the truth known, every pixel's (I - J) / (A - J) is one transmission for all channels."""
    source = DepthSource(frames, [(24, 32)], view="whole")
    batch = source.batch(8, (24, 32), torch.Generator().manual_seed(0))
    hazy, clear = batch["hazy"], batch["clear"]
    assert hazy.shape == clear.shape == (8, 3, 24, 32)
    # Eq. 1 is affine in J with the same t for all channels: differences between channels shrink by t alone.
    ratio_rg = (hazy[:, 0] - hazy[:, 1]) / (clear[:, 0] - clear[:, 1])
    ratio_gb = (hazy[:, 1] - hazy[:, 2]) / (clear[:, 1] - clear[:, 2])
    told = ((clear[:, 0] - clear[:, 1]).abs() > 0.1) & ((clear[:, 1] - clear[:, 2]).abs() > 0.1)
    assert told.sum() > 500
    assert torch.allclose(ratio_rg[told], ratio_gb[told], atol=1e-4)
    assert ratio_rg[told].min() > np.exp(-1.8) - 1e-4
    assert ratio_rg[told].max() < 1


def test_equal_generators_give_equal_batches(frames: list[Frame]) -> None:
    source = DepthSource(frames, [(24, 32)], rule="mixed", clear_share=0.3)
    one, other, third = (
        source.batch(4, (24, 32), torch.Generator().manual_seed(s))["hazy"] for s in (1, 1, 2)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_crops_are_pieces_of_the_frames(frames: list[Frame]) -> None:
    source = DepthSource(frames[:1], [(16, 20)], view="crop")
    picture = cv2.imread(str(frames[0].clear), cv2.IMREAD_COLOR_RGB).astype(np.float32) / 255
    batch = source.batch(3, (16, 20), torch.Generator().manual_seed(0))["clear"].permute(0, 2, 3, 1).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(picture, (16, 20), axis=(0, 1)).transpose(
        0, 1, 3, 4, 2
    )
    for crop in batch:
        distances = [np.abs(windows - c).max(axis=(2, 3, 4)).min() for c in (crop, crop[:, ::-1])]
        assert min(distances) < 1e-6


def test_crops_reach_every_part_of_a_frame(frames: list[Frame]) -> None:
    rows, columns = np.mgrid[:48, :64].astype(np.uint8)
    cv2.imwrite(str(frames[0].clear), np.dstack((4 * rows, 2 * columns, columns)))
    source = DepthSource(frames[:1], [(16, 20)], view="crop")
    seen = source.batch(300, (16, 20), torch.Generator().manual_seed(0))["clear"] * 255
    top, left = (seen[:, 2].amin((1, 2)) / 4, seen[:, 0].amin((1, 2)))
    assert set(top.round().int().tolist()) == set(range(48 - 16 + 1))
    assert set(left.round().int().tolist()) == set(range(64 - 20 + 1))


def test_crops_larger_than_a_frame_are_refused(frames: list[Frame]) -> None:
    with pytest.raises(DataError, match=r"crops of 64 x 64 pixels do not fit into .* as small as 64 x 48"):
        DepthSource(frames, [(16, 24), (64, 64)], view="crop")


def test_of_an_odd_mixed_batch_chance_takes_the_odd_picture(frames: list[Frame]) -> None:
    def gray(picture: torch.Tensor) -> bool:
        """Whether the airlight before an even black scene has no colour, as RESIDE's rule has it."""
        return bool((picture.amax(0) - picture.amin(0)).max() < 1e-6)

    for frame in frames:
        cv2.imwrite(str(frame.clear), np.zeros((48, 64, 3), np.uint8))
    source = DepthSource(frames, [(12, 16)], rule="mixed")
    generator = torch.Generator().manual_seed(0)
    drawn = [gray(source.batch(1, (12, 16), generator)["hazy"][0]) for _ in range(60)]
    assert 15 < sum(drawn) < 45
    batches = [[gray(p) for p in source.batch(3, (12, 16), generator)["hazy"]] for _ in range(60)]
    first, odd, last = zip(*batches, strict=True)
    assert all(last)
    assert sum(first) < 6  # a real airlight has hardly any colour now and then
    assert 15 < sum(odd) < 45


def test_whole_view_shows_the_scene(frames: list[Frame]) -> None:
    """Some batch is cut from frames reduced to just the size: then it is the frame, mirrored or not."""
    source = DepthSource(frames[:1], [(24, 32)], view="whole")
    picture = cv2.imread(str(frames[0].clear), cv2.IMREAD_COLOR_RGB)
    small = cv2.resize(picture, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    closest = []
    for seed in range(20):
        crop = source.batch(1, (24, 32), torch.Generator().manual_seed(seed))["clear"][0]
        pixels = crop.permute(1, 2, 0).numpy()
        closest.append(min(np.abs(pixels - small).max(), np.abs(pixels[:, ::-1] - small).max()))
    assert min(closest) < 1e-6
    assert max(closest) > 0.05  # other zooms are drawn too


@pytest.mark.parametrize("rule", ["its", "real", "mixed"])
def test_pictures_stay_in_range(frames: list[Frame], rule: str) -> None:
    source = DepthSource(frames, [(24, 32)], rule=rule)  # type: ignore[arg-type]
    for seed in range(5):
        batch = source.batch(6, (24, 32), torch.Generator().manual_seed(seed))
        for pictures in batch.values():
            assert pictures.min() >= 0
            assert pictures.max() <= 1


def test_some_pictures_can_be_left_clear(frames: list[Frame]) -> None:
    source = DepthSource(frames, [(24, 32)], clear_share=0.5)
    batch = source.batch(64, (24, 32), torch.Generator().manual_seed(0))
    untouched = (batch["hazy"] - batch["clear"]).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 16 < int(untouched.sum()) < 48


def test_white_share_whitens_the_far_end_of_batches(frames: list[Frame]) -> None:
    """With every airlight 1 the clear pictures are the same and no hazy one is darker than before."""
    drawn, white = (
        DepthSource(frames, [(24, 32)], white_share=share).batch(
            16, (24, 32), torch.Generator().manual_seed(3)
        )
        for share in (0.0, 1.0)
    )
    assert torch.equal(drawn["clear"], white["clear"])
    assert (white["hazy"] >= drawn["hazy"] - 1e-6).all()
    assert (white["hazy"].mean() - drawn["hazy"].mean()) > 0.01


def test_scenes_can_be_varied(frames: list[Frame]) -> None:
    """Varied pictures differ from the kept ones and still hold eq. 1 with one airlight."""
    plain, varied = (
        DepthSource(frames, [(24, 32)], white_share=1.0, varied_share=share) for share in (0.0, 1.0)
    )
    assert plain.identity != varied.identity
    before, after = (s.batch(16, (24, 32), torch.Generator().manual_seed(3)) for s in (plain, varied))
    assert ((before["clear"] - after["clear"]).abs().amax((1, 2, 3)) > 1e-3).all()
    t = (1 - after["hazy"]) / (1 - after["clear"]).clamp_min(1e-6)
    bright = after["clear"].amax(1) > 0.95
    spread = (t.amax(1) - t.amin(1))[~bright]
    assert float(spread.max()) < 1e-3


def test_how_much_of_real_haze_stays_in_the_truth_is_a_setting(frames: list[Frame]) -> None:
    clean, hazy = (DepthSource(frames, [(24, 32)], rule="real", kept_share=share) for share in (0.0, 1.0))
    assert clean.identity != hazy.identity
    none, all_of_it = (s.batch(16, (24, 32), torch.Generator().manual_seed(3)) for s in (clean, hazy))
    assert torch.equal(none["hazy"], all_of_it["hazy"])
    removed, left = ((b["hazy"] - b["clear"]).abs().mean() for b in (none, all_of_it))
    assert left < 0.5 * removed


def test_scenes_can_be_painted_on(frames: list[Frame]) -> None:
    plain, painted = (DepthSource(frames, [(24, 32)], painted_share=share) for share in (0.0, 1.0))
    values = painted.batch(20, (24, 32), torch.Generator().manual_seed(0))
    pure = ((values["clear"] == 0) | (values["clear"] == 1)).any(1)
    assert pure.flatten(1).any(1).float().mean() > 0.7
    in_front = (values["hazy"] == values["clear"]).all(1) & pure
    assert 0.2 < in_front.flatten(1).any(1).float().mean() < 0.8
    assert plain.identity != painted.identity


def test_zooms_decide_how_much_of_a_frame_a_batch_shows(frames: list[Frame]) -> None:
    """At zoom 1 alone every batch is the whole frame or its mirror image: two pictures a frame."""
    source = DepthSource(frames[:1], [(24, 32)], zooms=(1.0,))
    seen = {
        source.batch(1, (24, 32), torch.Generator().manual_seed(seed))["clear"].numpy().tobytes()
        for seed in range(20)
    }
    assert len(seen) == 2
    assert source.identity != DepthSource(frames[:1], [(24, 32)]).identity


def test_warps_are_views_of_a_frame_beside_the_straight_one(frames: list[Frame]) -> None:
    straight = DepthSource(frames[:1], [(24, 32)], zooms=(1.0,))
    one, four = (DepthSource(frames[:1], [(24, 32)], warps=count) for count in (1, 4))
    assert len(straight) == len(one) == len(four)

    def seen(source: DepthSource) -> set[bytes]:
        draws = (torch.Generator().manual_seed(seed) for seed in range(60))
        return {source.batch(1, (24, 32), draw)["clear"].numpy().tobytes() for draw in draws}

    assert seen(straight) == seen(one) < seen(four)
    assert len(seen(four)) == 8  # and mirrored
    again = DepthSource(frames[:1], [(24, 32)], warps=4)
    assert seen(again) == seen(four)


def test_a_warped_frame_is_a_view_of_most_of_it() -> None:
    """A frame whose pixels tell where they are: upright but for a few degrees, at its own distances."""
    height, width = 120, 160
    y, x = np.mgrid[:height, :width]
    where = np.stack((x, y, x // 2 + y // 2), axis=-1).astype(np.uint8)
    depths = np.stack((x // 2 + y // 2, 255 - x)).astype(np.uint8)
    shares, slopes = [], []
    for seed in range(100):
        seen, far = warped(where, depths, np.random.default_rng(seed))
        assert seen.shape == where.shape
        across, down, both = (seen[..., i].astype(int) for i in range(3))
        np.testing.assert_array_equal(both, across // 2 + down // 2)  # one pixel, no mean of several
        np.testing.assert_array_equal(far, np.stack((both, 255 - across)))
        assert (np.diff(across, axis=1) >= 0).all()  # never mirrored
        assert (np.diff(down, axis=0) >= 0).all()
        shares.append(np.ptp(across[height // 2]) / width)
        slopes.append((down[height // 2, -1] - down[height // 2, 0]) / width)
    assert 0.6 < min(shares) < 0.75
    assert 0.95 < max(shares) <= 1
    assert -0.1 < min(slopes) < -0.03 < 0.03 < max(slopes) < 0.1


def test_some_of_real_haze_stays_in_the_truth(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a perfect lens: a tenth of the depth is left, gray, and what hides; RESIDE's half is whole."""
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add_haze(clear: torch.Tensor, t: torch.Tensor, airlight: torch.Tensor) -> torch.Tensor:
        drawn.append((t, airlight))
        return airlight + (clear - airlight) * t

    monkeypatch.setattr("dehaze.haze.add_haze", add_haze)
    monkeypatch.setattr("dehaze.haze.photograph", lambda clear, hazy, generator: (clear, hazy))
    monkeypatch.setattr("dehaze.haze.relight", lambda clear, generator: clear)
    whole = DepthSource(frames, [(24, 32)]).batch(4, (24, 32), torch.Generator().manual_seed(5))["clear"]
    drawn.clear()
    mixed = DepthSource(frames, [(24, 32)], rule="mixed")
    batch = mixed.batch(4, (24, 32), torch.Generator().manual_seed(5))
    t, light = (values[:2] for values in drawn[0])
    gray, seen = light.mean(1, keepdim=True), t**0.1 * 1.05 * t / (t + 0.05)
    torch.testing.assert_close(batch["clear"][:2], gray + (whole[:2] - gray) * seen)
    assert float((batch["clear"][:2] - whole[:2]).abs().max()) > 0.01
    assert torch.equal(batch["clear"][2:], whole[2:])


def test_a_veil_stands_before_the_nearest_point_of_real_scenes(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the nearest point drawn at 0.4, depth is squeezed into [0.4, 1]; RESIDE's half keeps its own."""
    drawn: list[torch.Tensor] = []

    def sample_real(n: int, size: tuple[int, int], *_: object) -> tuple[torch.Tensor, ...]:
        return torch.ones(n, 3, *size), torch.ones(n, 1, *size), torch.full((n, 1, 1, 1), 0.4)

    def transmission(depth: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        drawn.append(depth)
        return torch.exp(-depth)

    monkeypatch.setattr("dehaze.haze.sample_real", sample_real)
    monkeypatch.setattr("dehaze.haze.transmission", transmission)
    source = DepthSource(frames, [(48, 64)], rule="mixed", zooms=(1.0,))
    source.batch(4, (48, 64), torch.Generator().manual_seed(0))
    lowest, highest = (drawn[0].flatten(1).amin(1), drawn[0].flatten(1).amax(1))
    own = 10 / 200  # the nearest depth that `write_frame` writes, over the farthest
    torch.testing.assert_close(lowest, torch.tensor([0.4 + 0.6 * own] * 2 + [own] * 2), atol=2e-3, rtol=0)
    torch.testing.assert_close(highest, torch.ones(4))


def test_the_minimum_of_a_cell_comes_with_its_own_distance(tmp_path: Path) -> None:
    """Blocks of 2 x 2 pixels, dark and near beside gray and far: all that the working copy shows is near.

    In haze the far ones, black before it, are the lighter ones.
    """
    clear, depth = (tmp_path / name for name in ("clear", "depth"))
    clear.mkdir(), depth.mkdir()
    y, x = np.mgrid[:64, :80] // 2
    near = (x + y) % 2 == 0
    cv2.imwrite(str(clear / "1.png"), np.where(near[..., None], (60, 50, 40), 0).astype(np.uint8))
    cv2.imwrite(str(depth / "1.png"), np.where(near, 20, 200).astype(np.uint8))
    frames = find_frames(clear, depth)
    source = DepthSource(frames, [(16, 20)], rule="its", zooms=(1.0,), reduction="minimum")
    assert source.identity["reduction"] == "minimum"
    batch = source.batch(2, (16, 20), torch.Generator().manual_seed(0))
    shown = torch.tensor([40, 50, 60]).view(1, 3, 1, 1) / 255
    torch.testing.assert_close(batch["clear"], shown.expand(2, 3, 16, 20))
    t = (1 - batch["hazy"][:, 0]) / (1 - batch["clear"][:, 0])  # at most, for airlights of 1
    assert float(t.min()) > np.exp(-1.8 * 0.1) - 0.3


def test_real_haze_is_drawn_from_the_ranges_given(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is left of the thickest fog is its airlight, in the truth too, where so much is hidden."""
    monkeypatch.setattr("dehaze.haze.photograph", lambda clear, hazy, generator: (clear, hazy))
    fog = RealHaze(brightness=(0.6, 0.6), tint=0, blue=0, thin_blue=0, glow=0, beta=(1e4, 1e4), hidden=0.5)
    source = DepthSource(frames, [(24, 32)], rule="real", real=fog)
    batch = source.batch(2, (24, 32), torch.Generator().manual_seed(5))
    for picture in batch.values():
        torch.testing.assert_close(picture, torch.full((2, 3, 24, 32), 0.6))


def test_real_scenes_are_lit_anew_and_others_are_not(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dehaze.haze.photograph", lambda clear, hazy, generator: (clear, hazy))
    monkeypatch.setattr("dehaze.haze.relight", lambda clear, generator: torch.zeros_like(clear))
    mixed = DepthSource(frames, [(24, 32)], rule="mixed", clear_share=1.0)
    batch = mixed.batch(4, (24, 32), torch.Generator().manual_seed(5))
    assert float(batch["clear"][:2].abs().max()) < 1e-6  # without haze, what the new light shows is the truth
    assert float(batch["clear"][2:].max()) > 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "real"},
        {"view": "crop"},
        {"clear_share": 0.1},
        {"white_share": 0.1},
        {"beta": (0.6, 1.5)},
        {"varied_share": 0.1},
        {"painted_share": 0.1},
        {"zooms": (1.0,)},
        {"warps": 2},
    ],
)
def test_whatever_changes_batches_changes_the_identity(frames: list[Frame], change: dict[str, Any]) -> None:
    """Or a run could go on with other data than it began with."""
    assert DepthSource(frames, [(24, 32)], **change).identity != DepthSource(frames, [(24, 32)]).identity


def test_drawn_depth_gets_no_rule_for_indoor_depth(frames: list[Frame]) -> None:
    without = without_depth(frames[0].clear.parent)
    mixed, real = (DepthSource(without, [(24, 32)], rule=rule) for rule in ("mixed", "real"))
    a, b = (s.batch(4, (24, 32), torch.Generator().manual_seed(1)) for s in (mixed, real))
    assert torch.equal(a["hazy"], b["hazy"])


def test_drawn_depth_needs_no_depth_folder(frames: list[Frame]) -> None:
    source = DepthSource(without_depth(frames[0].clear.parent), [(24, 32)], rule="real")
    assert source.identity["depth"] == "drawn"
    batch = source.batch(2, (24, 32), torch.Generator().manual_seed(0))
    assert (batch["hazy"] - batch["clear"]).abs().max() > 0.05


def test_each_photo_without_depth_gets_several_layouts(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that show the whole photo, mirrored or not, hold exactly as many different depth maps."""
    seen: set[bytes] = set()

    def transmission(depth: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        seen.update(min(d.numpy().tobytes(), d.flip(-1).numpy().tobytes()) for d in depth)
        return depth

    monkeypatch.setattr("dehaze.haze.transmission", transmission)
    for _ in range(2):  # drawn again, they are the same
        source = DepthSource(without_depth(frames[0].clear.parent)[:1], [(48, 64)], zooms=(1.0,))
        assert len(source) == EPOCH_PER_FRAME
        source.batch(64, (48, 64), torch.Generator().manual_seed(0))
        assert len(seen) == LAYOUTS


def test_damaged_files_are_named(tmp_path: Path) -> None:
    frame = write_frame(tmp_path, "a")
    assert frame.depth is not None
    frame.depth.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"cannot read .*depth/a\.png"):
        DepthSource([frame], [(8, 8)])
    write_frame(tmp_path, "b", (10, 10))
    crossed = Frame(tmp_path / "clear" / "a.png", tmp_path / "depth" / "b.png")
    with pytest.raises(DataError, match=r"is 10 x 10 pixels, its picture .* is 64 x 48"):
        DepthSource([crossed], [(8, 8)])


def test_all_that_is_wrong_is_counted_before_training(tmp_path: Path) -> None:
    frames = [write_frame(tmp_path, name) for name in "abcdef"]
    for frame in frames[1:]:
        assert frame.depth is not None
        frame.depth.write_bytes(b"")
    assert frames[0].depth is not None
    cv2.imwrite(str(frames[0].depth), np.zeros((48, 64), np.uint8))
    with pytest.raises(DataError) as caught:
        DepthSource(frames, [(8, 8)])
    lines = caught.value.message.splitlines()
    assert lines[0] == "6 of 6 frames cannot be used:"
    assert "a.png is no depth map" in lines[1]
    assert len(lines) == 5
