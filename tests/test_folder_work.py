"""Directories: what is taken, where it goes, and that nothing stops the rest or is lost."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dehaze import photo
from dehaze.errors import DehazeError, PhotoError, UsageError
from dehaze.folder import (
    Album,
    FolderSettings,
    Outcome,
    Plan,
    dehaze_folder,
    parse_shard,
    plan_folder,
)
from dehaze.folder import work as work_module
from dehaze.parts import part_path
from dehaze.upsample import LocalAffine
from making import make_video


class Brighter:
    """Stands for a network: adds 20 levels."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: np.ndarray, *, strength: float = 1.0, colour: object = None) -> np.ndarray:
        self.calls += 1
        return np.clip(pixels.astype(np.int32) + round(20 * strength), 0, 255).astype(pixels.dtype)

    def estimate(self, pixels: np.ndarray, *, colour: object = None) -> LocalAffine:
        shape = (*self.working_shape(*pixels.shape[:2]), 3)
        return LocalAffine(np.ones(shape, np.float32), np.full(shape, 20 / 255, np.float32))

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        return max(1, height // 2), max(1, width // 2)


def make(path: Path, level: int = 100, size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


def level(path: Path) -> float:
    with Image.open(path) as image:
        return float(np.asarray(image.convert("RGB")).mean())


def names(plan: Plan) -> list[str]:
    return [job.source.relative_to(plan.root).as_posix() for job in plan.jobs]


def targets(plan: Plan) -> dict[str, str]:
    return {
        job.source.relative_to(plan.root).as_posix(): job.target.relative_to(plan.output).as_posix()
        for job in plan.jobs
    }


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def work(plan: Plan, dehazer: Any = None, **settings: Any) -> list[Outcome]:
    return list(dehaze_folder(plan, dehazer or Brighter(), FolderSettings(**settings)))


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    root = tmp_path / "trip"
    for name in ("b.jpg", "a.PNG", "day1/x.jpg", "day2/x.jpg"):
        make(root / name)
    return root


# --- the plan


def test_only_the_directory_itself_unless_recursive(trip: Path) -> None:
    assert names(plan_folder(trip)) == ["a.PNG", "b.jpg"]
    plan = plan_folder(trip, recursive=True)
    assert names(plan) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg"]
    assert plan.output == trip.with_name("trip_dehazed")
    assert targets(plan) == {name: name for name in names(plan)}


def test_the_working_directory_has_a_name_too(trip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trip)
    assert plan_folder(Path()).output == trip.with_name("trip_dehazed")
    monkeypatch.chdir(trip / "day1")
    assert plan_folder(Path("..")).output == trip.with_name("trip_dehazed")


def test_litter_and_what_nobody_can_read_is_left_alone(trip: Path) -> None:
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._b.jpg", ".hidden/c.jpg", "__MACOSX/b.jpg"):
        path = trip / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (trip / "notes.txt").write_text("x")
    (trip / "README").write_text("x")
    plan = plan_folder(trip, recursive=True)
    assert names(plan) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg"]
    assert plan.ignored == {".txt": 1, "no suffix": 1}


def test_what_dehaze_made_is_never_an_input(trip: Path) -> None:
    for name in ("b_dehazed.jpg", "b_compare.jpg", "b_dehazed.partial.mp4", "day1_dehazed/x.jpg"):
        make(trip / name) if name.endswith("jpg") else (trip / name).write_bytes(b"x")
    make(trip / "lonely_dehazed.jpg")
    plan = plan_folder(trip, recursive=True)
    assert names(plan) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg", "lonely_dehazed.jpg"]
    assert plan.own == 4


def test_an_output_within_the_input_is_not_taken_up(trip: Path) -> None:
    work(plan_folder(trip, trip / "clear", recursive=True))
    again = plan_folder(trip, trip / "clear", recursive=True)
    assert names(again) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg"]
    assert again.todo == []


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        (["*.jpg"], ["b.jpg", "day1/x.jpg", "day2/x.jpg"]),
        (["*.png"], ["a.PNG"]),
        (["day1/*"], ["day1/x.jpg"]),
        (["a*", "b*"], ["a.PNG", "b.jpg"]),
    ],
)
def test_globs_choose(trip: Path, globs: list[str], found: list[str]) -> None:
    assert names(plan_folder(trip, recursive=True, globs=globs)) == found


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_every_file_among_them(trip: Path, count: int) -> None:
    whole = names(plan_folder(trip, recursive=True))
    parts = [names(plan_folder(trip, recursive=True, shard=(i, count))) for i in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_does_not_depend_on_what_is_done(trip: Path) -> None:
    before = names(plan_folder(trip, recursive=True, shard=(2, 2)))
    work(plan_folder(trip, recursive=True, shard=(1, 2)))
    assert names(plan_folder(trip, recursive=True, shard=(2, 2))) == before


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected I/N"):
        parse_shard(text)


def test_shards_are_read() -> None:
    assert parse_shard("2/8") == (2, 8)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_once(trip: Path, tmp_path: Path) -> None:
    (trip / "day1" / "up").symlink_to(trip)
    (trip / "a_link").symlink_to(trip / "day2")
    elsewhere = make(tmp_path / "elsewhere" / "z.jpg").parent
    (trip / "far").symlink_to(elsewhere)
    (trip / "gone.jpg").symlink_to(trip / "nowhere.jpg")
    (trip / "self").symlink_to(trip / "self")
    plan = plan_folder(trip, recursive=True)
    assert names(plan) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg", "far/z.jpg", "gone.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in directories on Windows")
def test_a_pipe_named_like_a_photo_does_not_block(trip: Path) -> None:
    os.mkfifo(trip / "pipe.jpg")
    assert "pipe.jpg" not in names(plan_folder(trip))


def test_outputs_of_one_name_all_survive(tmp_path: Path) -> None:
    root = tmp_path / "trip"
    for name in ("a.jpg", "a.png", "a.bmp", "b.jpg"):
        make(root / name)
    plan = plan_folder(root, format="png")
    assert targets(plan) == {
        **{"a.bmp": "a_bmp.png", "a.jpg": "a_jpg.png", "a.png": "a_png.png"},
        "b.jpg": "b.png",
    }
    work(plan)
    assert tree(plan.output) == ["a_bmp.png", "a_jpg.png", "a_png.png", "b.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_names_do_not_depend_on_what_globs_choose(tmp_path: Path, overwrite: bool) -> None:
    make(tmp_path / "trip" / "x.jpg", level=50)
    make(tmp_path / "trip" / "x.png", level=200)
    for glob in ("*.jpg", "*.png", "*", "*.jpg"):
        work(plan_folder(tmp_path / "trip", globs=[glob], format="png", overwrite=overwrite))
    output = tmp_path / "trip_dehazed"
    assert tree(output) == ["x_jpg.png", "x_png.png"]
    assert level(output / "x_jpg.png") == pytest.approx(70, abs=1)
    assert level(output / "x_png.png") == 220


@pytest.mark.parametrize(("first", "second"), [("a.gif", "a.png"), ("clip.wmv", "clip.mp4")])
def test_a_later_arrival_gets_its_own_answer(tmp_path: Path, first: str, second: str) -> None:
    root = tmp_path / "trip"
    root.mkdir()
    (root / first).write_bytes(b"x")
    plan = plan_folder(root)
    plan.output.mkdir()
    (plan.jobs[0].target).write_bytes(b"answer to the first")
    (root / second).write_bytes(b"x")
    again = plan_folder(root)
    assert again.todo == again.jobs
    assert plan.jobs[0].target not in [job.target for job in again.jobs]
    assert (again.stale, plan.stale) == ([plan.jobs[0].target], [])


def test_names_that_still_collide_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "trip"
    for name in ("a.jpg", "a.png", "a_jpg.png"):
        make(root / name)
    with pytest.raises(UsageError, match=r"a\.jpg and .*a_jpg\.png would both be written to"):
        plan_folder(root, format="png")


def test_names_that_collide_are_refused_whichever_globs_choose(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a_jpg.png", "b.jpg"):
        make(tmp_path / "trip" / name)
    with pytest.raises(UsageError, match="would both be written to"):
        plan_folder(tmp_path / "trip", format="png", globs=["a.jpg"])
    assert names(plan_folder(tmp_path / "trip", format="png", globs=["b.jpg"])) == ["b.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("how", ["within", "link", "hard link"])
def test_an_original_is_never_an_output(tmp_path: Path, how: str, overwrite: bool) -> None:
    root, output = tmp_path / "in", tmp_path / "out"
    original = make(root / "sub" / "a.jpg")
    if how == "within":
        make(root / "in" / "sub" / "a.jpg")
        output = tmp_path
    if how == "link":
        output.mkdir()
        (output / "sub").symlink_to(root / "sub")
    if how == "hard link":
        (output / "sub").mkdir(parents=True)
        os.link(original, output / "sub" / "a.jpg")
    with pytest.raises(UsageError, match=r"original .* are one file"):
        plan_folder(root, output, recursive=True, overwrite=overwrite)


def test_a_before_and_after_picture_must_not_be_another_output(tmp_path: Path) -> None:
    make(tmp_path / "trip" / "a.jpg")
    make(tmp_path / "trip" / "a_compare.webp")
    assert names(plan_folder(tmp_path / "trip")) == ["a.jpg"]
    (tmp_path / "trip" / "a_compare.webp").rename(tmp_path / "trip" / "A_compare.webp")
    plan = plan_folder(tmp_path / "trip", format="png", compare=True)
    assert targets(plan) == {"A_compare.webp": "A_compare.png", "a.jpg": "a.png"}


def test_suffixes_of_outputs(tmp_path: Path) -> None:
    root = tmp_path / "trip"
    for name in ("a.gif", "b.JPG"):
        make(root / name)
    for name in ("c.mkv", "d.MOV", "e.webm", "f.wmv"):
        (root / name).write_bytes(b"x")
    assert targets(plan_folder(root)) == {
        **{"a.gif": "a.png", "b.JPG": "b.JPG"},
        **{"c.mkv": "c.mkv", "d.MOV": "d.MOV", "e.webm": "e.mp4", "f.wmv": "f.mp4"},
    }


def test_impossible_directories_are_refused(trip: Path, tmp_path: Path) -> None:
    with pytest.raises(DehazeError, match="there is no directory"):
        plan_folder(tmp_path / "none")
    with pytest.raises(UsageError, match="is a file, expected a directory"):
        plan_folder(trip / "b.jpg")
    with pytest.raises(UsageError, match="is the input itself"):
        plan_folder(trip, trip / "day1" / "..")
    with pytest.raises(UsageError, match="is a file, expected a directory"):
        plan_folder(trip, trip / "b.jpg")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_directory_that_cannot_be_listed_is_told(trip: Path) -> None:
    (trip / "day1").chmod(0)
    try:
        plan = plan_folder(trip, recursive=True)
    finally:
        (trip / "day1").chmod(0o755)
    assert plan.unreadable == [(trip / "day1", "Permission denied")]
    assert names(plan) == ["a.PNG", "b.jpg", "day2/x.jpg"]


# --- the work


def test_the_tree_is_made_again_with_every_photo_dehazed(trip: Path) -> None:
    plan = plan_folder(trip, recursive=True)
    outcomes = work(plan)
    assert [outcome.job for outcome in outcomes] == plan.jobs
    assert all(outcome.status == "done" for outcome in outcomes)
    assert tree(plan.output) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg"]
    for name in tree(plan.output):
        assert level(plan.output / name) == pytest.approx(120, abs=1)
        assert level(trip / name) == pytest.approx(100, abs=1)
    assert (outcomes[0].width, outcomes[0].height) == (16, 12)


def test_strength_reaches_the_network(trip: Path) -> None:
    plan = plan_folder(trip)
    work(plan, strength=0.5)
    assert level(plan.output / "a.PNG") == 110


def test_photos_and_videos_side_by_side(trip: Path) -> None:
    make_video(trip / "clip.mp4")
    shown: list[tuple[str, int, int | None]] = []
    plan = plan_folder(trip)
    outcomes = list(
        dehaze_folder(
            plan, Brighter(), frames=lambda job, done, total: shown.append((job.source.name, done, total))
        )
    )
    assert [outcome.job.source.name for outcome in outcomes] == ["a.PNG", "b.jpg", "clip.mp4"]
    assert outcomes[2].video is not None
    assert outcomes[2].video.frames == 10
    assert (outcomes[2].width, outcomes[2].height) == (64, 48)
    assert tree(plan.output) == ["a.PNG", "b.jpg", "clip.mp4"]
    assert shown[-1] == ("clip.mp4", 10, 10)


def test_one_broken_file_stops_no_other(trip: Path) -> None:
    (trip / "b.jpg").write_bytes(b"not a picture")
    (trip / "day1" / "clip.mp4").write_bytes(b"not a video")
    plan = plan_folder(trip, recursive=True)
    failed = {outcome.job.source.name: outcome.error for outcome in work(plan) if outcome.error}
    assert set(failed) == {"b.jpg", "clip.mp4"}
    assert all(isinstance(error, DehazeError) for error in failed.values())
    assert tree(plan.output) == ["a.PNG", "day1/x.jpg", "day2/x.jpg"]


def test_a_network_that_fails_on_one_picture_stops_no_other(trip: Path) -> None:
    class Moody(Brighter):
        def __call__(self, pixels: np.ndarray, **settings: Any) -> np.ndarray:
            answer = super().__call__(pixels, **settings)
            if self.calls == 2:
                raise MemoryError
            return answer

    plan = plan_folder(trip, recursive=True)
    assert [outcome.status for outcome in work(plan, Moody())] == ["done", "failed", "done", "done"]


def test_fail_fast_stops_at_the_first(trip: Path) -> None:
    (trip / "a.PNG").write_bytes(b"not a picture")
    plan = plan_folder(trip, recursive=True)
    outcomes = work(plan, fail_fast=True, threads=1)
    assert [outcome.status for outcome in outcomes] == ["failed"]
    assert isinstance(outcomes[0].error, PhotoError)


def test_what_is_done_is_skipped_and_the_rest_done(trip: Path) -> None:
    work(plan_folder(trip, recursive=True))
    output = trip.with_name("trip_dehazed")
    (output / "day1" / "x.jpg").unlink()
    (output / "b.jpg").write_bytes(b"kept as it is")
    plan = plan_folder(trip, recursive=True)
    assert [job.source.name for job in plan.todo] == ["x.jpg"]
    assert len(work(plan)) == 1
    assert (output / "b.jpg").read_bytes() == b"kept as it is"
    assert (output / "day1" / "x.jpg").exists()
    assert len(plan_folder(trip, recursive=True, overwrite=True).todo) == 4


def test_a_broken_off_run_leaves_whole_files_only(trip: Path) -> None:
    """Stopped after the first outcome, then done again: together everything, nothing twice, no litter."""
    outcomes = dehaze_folder(plan_folder(trip, recursive=True), Brighter(), FolderSettings(threads=1))
    next(outcomes)
    outcomes.close()
    output = trip.with_name("trip_dehazed")
    whole = tree(output)
    assert "a.PNG" in whole
    assert all(level(output / name) == pytest.approx(120, abs=1) for name in whole)
    rest = plan_folder(trip, recursive=True)
    assert len(rest.todo) == 4 - len(whole)
    work(rest)
    assert tree(output) == ["a.PNG", "b.jpg", "day1/x.jpg", "day2/x.jpg"]


@pytest.mark.skipif(os.name != "posix", reason="asks POSIX which processes run")
def test_what_a_killed_run_left_half_is_swept_up(trip: Path) -> None:
    output = trip.with_name("trip_dehazed")
    output.mkdir()
    child = os.fork()
    if child == 0:
        part_path(output / "b.jpg").write_bytes(b"half")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(tree(output)) == 1
    work(plan_folder(trip))
    assert tree(output) == ["a.PNG", "b.jpg"]


def test_before_and_after_pictures(trip: Path) -> None:
    plan = plan_folder(trip, compare=True)
    work(plan)
    assert tree(plan.output) == ["a.PNG", "a_compare.PNG", "b.jpg", "b_compare.jpg"]


def test_a_comparison_is_added_to_an_answer_that_stays_as_it_is(trip: Path) -> None:
    work(plan_folder(trip))
    answer = trip.with_name("trip_dehazed") / "b.jpg"
    answer.write_bytes(b"made with other settings")
    plan = plan_folder(trip, compare=True)
    assert [job.missing for job in plan.todo] == [(job.compare,) for job in plan.jobs]
    work(plan)
    assert tree(plan.output) == ["a.PNG", "a_compare.PNG", "b.jpg", "b_compare.jpg"]
    assert answer.read_bytes() == b"made with other settings"
    answer.unlink()
    assert [job.missing for job in plan_folder(trip, compare=True).todo] == [
        (answer, answer.with_name("b_compare.jpg"))
    ]


def test_a_full_disk_ends_the_work_with_what_to_do(trip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(after: photo.Photo, target: Path, **settings: Any) -> None:
        written.append(target)
        raise PhotoError(f"cannot write {target}") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work_module.photo, "write", write)
    with pytest.raises(DehazeError, match="No space left on device") as caught:
        work(plan_folder(trip, recursive=True), threads=1)
    assert "run the same command again" in caught.value.hint
    assert len(written) < 5
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("read", "write"))
    ] == []


def test_an_output_directory_that_vanishes_is_not_made_again(trip: Path) -> None:
    output = trip.with_name("trip_dehazed")

    class Vandal(Brighter):
        def __call__(self, pixels: np.ndarray, **settings: Any) -> np.ndarray:
            if output.exists():
                output.rmdir()
            return super().__call__(pixels, **settings)

    with pytest.raises(DehazeError, match=r"output directory .* is gone"):
        work(plan_folder(trip), Vandal(), threads=1)
    assert not output.exists()


def test_an_output_directory_that_cannot_be_made(trip: Path) -> None:
    (trip.parent / "file").write_bytes(b"x")
    with pytest.raises(DehazeError, match="cannot make the directory"):
        work(plan_folder(trip, trip.parent / "file" / "out"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_an_output_directory_that_leads_to_itself(trip: Path) -> None:
    loop = trip.parent / "loop"
    loop.symlink_to(loop)
    with pytest.raises(DehazeError, match="cannot make the directory"):
        work(plan_folder(trip, loop))


def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the photos that are read and not yet written."""
    lock, held, most = threading.Lock(), 0, 0
    read, write = photo.read, photo.write

    def counted_read(*arguments: Any, **settings: Any) -> photo.Photo:
        nonlocal held, most
        result = read(*arguments, **settings)
        with lock:
            held += 1
            most = max(most, held)
        return result

    def counted_write(*arguments: Any, **settings: Any) -> None:
        nonlocal held
        write(*arguments, **settings)
        with lock:
            held -= 1

    monkeypatch.setattr(work_module.photo, "read", counted_read)
    monkeypatch.setattr(work_module.photo, "write", counted_write)
    return lambda: most


def test_few_photos_are_held_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(60):
        make(tmp_path / "many" / f"{index:03d}.png")
    most = watched(monkeypatch)
    assert len(work(plan_folder(tmp_path / "many"), threads=2)) == 60
    assert 1 <= most() <= 8


def test_large_photos_are_held_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        make(tmp_path / "large" / f"{index}.png", size=(200, 100))
    most = watched(monkeypatch)
    monkeypatch.setattr(work_module, "_MAX_MEMORY", 200 * 100 * work_module._BYTES_PER_PIXEL)
    assert len(work(plan_folder(tmp_path / "large"), threads=4)) == 6
    assert most() == 1


# --- the gallery


def test_the_gallery_shows_what_was_made_now_and_before(trip: Path) -> None:
    make_video(trip / "clip.mp4")
    work(plan_folder(trip))
    (trip.with_name("trip_dehazed") / "b.jpg").unlink()
    (trip / "day1" / "x.jpg").write_bytes(b"broken")
    plan = plan_folder(trip, recursive=True)
    album = Album(plan)
    failed = {o.job.target for o in dehaze_folder(plan, Brighter(), look=album.look) if o.error}
    told: list[tuple[int, int]] = []
    assert album.complete(failed, lambda done, total: told.append((done, total))) == []
    assert told[-1] == (2, 2)
    page = album.write()
    assert page == plan.output / "gallery.html"
    text = page.read_text()
    assert [name in text for name in ("a.PNG", "b.jpg", "clip.mp4", "day1/x.jpg", "day2/x.jpg")] == [
        *(True, True, True, False, True)
    ]
    assert "4 of 5 shown" in text


def test_each_shard_has_its_own_gallery(trip: Path) -> None:
    plan = plan_folder(trip, shard=(1, 2))
    work(plan)
    album = Album(plan)
    album.complete(set(), lambda done, total: None)
    assert album.write().name == "gallery-1-of-2.html"


def test_a_picture_that_cannot_be_shown_any_more_is_named(trip: Path) -> None:
    work(plan_folder(trip))
    (trip.with_name("trip_dehazed") / "b.jpg").write_bytes(b"broken")
    album = Album(plan_folder(trip))
    assert album.complete(set(), lambda done, total: None) == [trip / "b.jpg"]
