"""Which output each input gets; what is refused before any work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dehaze.cli.targets import Job, plan
from dehaze.errors import UsageError


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """a.jpg, b.jpg and sub/a.jpg in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.jpg", "sub/a.jpg"):
        Path(name).write_bytes(name.encode())


def targets(*arguments: object, **settings: object) -> list[str]:
    return [job.target_name for job in plan(*arguments, **settings)]  # type: ignore[arg-type]


def test_default_is_beside_the_input() -> None:
    assert targets(["a.jpg", "sub/a.jpg"], None) == ["a_dehazed.jpg", str(Path("sub/a_dehazed.jpg"))]


def test_format_gives_unnamed_outputs_their_suffix() -> None:
    assert targets(["a.jpg"], None, format="png") == ["a_dehazed.png"]
    assert targets(["a.jpg"], "out/", format="png") == [str(Path("out/a.png"))]
    assert targets(["a.jpg"], "named.png", format="png") == ["named.png"]
    Path("c.heic.gif").touch()
    assert targets(["c.heic.gif"], None) == ["c.heic_dehazed.png"]


def test_a_directory_keeps_the_names() -> None:
    assert targets(["a.jpg", "b.jpg"], "out/") == [str(Path("out/a.jpg")), str(Path("out/b.jpg"))]
    Path("there").mkdir()
    assert targets(["a.jpg"], "there") == [str(Path("there/a.jpg"))]


def test_planning_writes_nothing() -> None:
    before = sorted(Path().rglob("*"))
    plan(["a.jpg", "b.jpg"], "out/", compare=True)
    assert sorted(Path().rglob("*")) == before


def test_streams() -> None:
    assert plan(["-"], None) == [Job(None, None)]
    assert plan(["-"], "c.png", compare=True) == [Job(None, Path("c.png"), Path("c_compare.png"))]
    assert plan(["a.jpg"], "-") == [Job(Path("a.jpg"), None)]
    assert plan(["-"], "-")[0].source_name == "-"


def test_compare_is_beside_the_output() -> None:
    Path("out").mkdir()
    jobs = plan(["a.jpg"], "out/clear.png", compare=True)
    assert jobs[0].outputs == [Path("out/clear.png"), Path("out/a_compare.png")]


@pytest.mark.parametrize(
    ("inputs", "target", "words"),
    [
        (["-", "-"], None, "twice"),
        (["a.jpg", "b.jpg"], "-", "stdout"),
        (["a.jpg", "b.jpg"], "out", "directory"),
        (["a.jpg", "b.jpg"], "b.jpg", "directory"),
        (["a.jpg"], "b.jpg/", "not a directory"),
        (["-"], "sub/", "no name"),
        (["a.jpg"], "missing/c.jpg", "no directory missing"),
        (["a.jpg"], "c.xyz", r"'\*\.xyz'"),
        (["a.jpg"], "c.gif", r"'\*\.gif'"),
        (["a.jpg", "sub/a.jpg"], "out/", "both be written"),
        (["a.jpg", "./a.jpg"], None, "both be written"),
        (["a.jpg", ""], None, "input's name is empty"),
        (["a.jpg"], "", "output's name is empty"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_refused_with_and_without_overwrite(
    inputs: list[str], target: str | None, words: str, overwrite: bool
) -> None:
    with pytest.raises(UsageError, match=words):
        plan(inputs, target, overwrite=overwrite)


@pytest.mark.parametrize(("format", "name"), [("png", "c.webp"), ("same", "c.png")])
def test_format_and_name_must_not_disagree(format: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is named .* but --format {format}"):
        plan(["a.jpg"], name, format=format)


@pytest.mark.parametrize(("format", "name"), [("jpg", "c.jpeg"), ("same", "c.JPG"), ("tiff", "c.tif")])
def test_formats_have_several_names(format: str, name: str) -> None:
    source = "a.jpg"
    assert targets([source], name, format=format) == [name]


@pytest.mark.parametrize("name", ["clear", "clear.v2"])
def test_with_a_format_the_name_needs_no_ending(name: str) -> None:
    assert targets(["a.jpg"], name, format="png") == [name]


def test_an_input_that_is_nowhere_does_not_stop_the_others() -> None:
    assert targets(["nowhere/a.jpg", "b.jpg"], None) == ["nowhere/a_dehazed.jpg", "b_dehazed.jpg"]


def test_compare_needs_a_file() -> None:
    with pytest.raises(UsageError, match="stdout"):
        plan(["a.jpg"], "-", compare=True)


def test_existing_output_needs_overwrite() -> None:
    with pytest.raises(UsageError, match=r"^b\.jpg already exists$"):
        plan(["a.jpg"], "b.jpg")
    assert targets(["a.jpg"], "b.jpg", overwrite=True) == ["b.jpg"]


def test_existing_compare_counts_too() -> None:
    Path("a_compare.jpg").touch()
    with pytest.raises(UsageError, match=r"a_compare\.jpg already exists"):
        plan(["a.jpg"], None, compare=True)


def test_several_existing_outputs_are_counted() -> None:
    Path("a_dehazed.jpg").touch()
    Path("b_dehazed.jpg").touch()
    with pytest.raises(UsageError, match=r"2 outputs already exist, a_dehazed\.jpg first"):
        plan(["a.jpg", "b.jpg"], None)


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "sub/../a.jpg", "hard.jpg", "soft.jpg"])
def test_the_input_itself_needs_overwrite_by_whatever_name(name: str) -> None:
    if name == "hard.jpg":
        os.link("a.jpg", name)
    if name == "soft.jpg":
        if sys.platform == "win32":
            pytest.skip("symbolic links need rights there")
        Path(name).symlink_to("a.jpg")
    with pytest.raises(UsageError, match="the input itself"):
        plan(["a.jpg"], name)
    assert targets(["a.jpg"], name, overwrite=True) == [str(Path(name))]


def test_another_input_is_never_overwritten() -> None:
    Path("a_dehazed.jpg").touch()
    with pytest.raises(UsageError, match="itself an input"):
        plan(["a.jpg", "a_dehazed.jpg"], None, overwrite=True)


def test_the_picture_to_compare_never_replaces_the_input() -> None:
    Path("x_compare.jpg").touch()
    with pytest.raises(UsageError, match="itself an input"):
        plan(["x_compare.jpg", "x.jpg"], None, compare=True, overwrite=True)


def test_a_directory_is_no_output_file() -> None:
    Path("a_dehazed.jpg").mkdir()
    with pytest.raises(UsageError, match="not a file"):
        plan(["a.jpg"], None, overwrite=True)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_links_that_lead_to_themselves() -> None:
    Path("loop.jpg").symlink_to("loop.jpg")
    assert targets(["a.jpg", "loop.jpg"], "out/") == [str(Path("out/a.jpg")), str(Path("out/loop.jpg"))]
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"the output loop\.jpg is a link that leads to itself"):
            plan(["a.jpg"], "loop.jpg", overwrite=overwrite)
