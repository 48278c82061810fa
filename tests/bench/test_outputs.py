from __future__ import annotations

import base64
import builtins
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from bench_reports import cost_row, quality, quality_row, report
from PIL import Image

from dehaze.bench.outputs import Outputs
from dehaze.bench.page import chosen_pictures
from dehaze.bench.plot import plot
from dehaze.bench.session import Plan, Session, run
from dehaze.errors import UsageError


class Page(HTMLParser):
    """Collects everything a browser would fetch, and whether tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def session(checkpoints: dict[str, str], indoor: Path) -> Session:
    measured = run(Plan(models=[checkpoints["lite"]], device="cpu", cost=None, data=[indoor]))
    cost = [cost_row("lite", 20.0), cost_row("dark-channel", 70.0), cost_row("untouched", 0.001)]
    return replace(measured, report=replace(measured.report, cost=cost))


def test_the_page_is_whole_and_fetches_nothing(session: Session, tmp_path: Path) -> None:
    Outputs(html=tmp_path / "r.html").write(session)
    text = (tmp_path / "r.html").read_text()
    found = Page(text)
    assert not found.open
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in found.links)
    assert not re.search(r"https?://|url\((?!#)|@import|<script", text)
    pictures = [link for link in found.links if link.startswith("data:")]
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].split(",")[1]))) as first:
        assert first.size == (64, 48)
    assert "best of lite" in text
    assert "worst of dark-channel" in text
    assert "<svg" in text


def test_names_from_outside_cannot_break_the_page(session: Session, tmp_path: Path) -> None:
    hostile = replace(session, report=replace(session.report, command="<script>alert(1)</script>"))
    Outputs(html=tmp_path / "r.html").write(hostile)
    assert "<script" not in (tmp_path / "r.html").read_text()


def test_plot_as_png_and_svg(session: Session, tmp_path: Path) -> None:
    Outputs(plot=tmp_path / "q.png").write(session)
    with Image.open(tmp_path / "q.png") as picture:
        assert picture.width > 800
    Outputs(plot=tmp_path / "q.SVG").write(session)
    root = ElementTree.parse(tmp_path / "q.SVG").getroot()
    assert root.tag.endswith("svg")


def test_the_plot_names_every_method() -> None:
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        text = plot(replace(report(), cost=[cost_row()]), "svg").decode()
    for words in ("student", "96,007 parameters", "53.4 GFLOPs", "log scale", "untouched, "):
        assert words in text


def test_markdown_and_csv_are_written_beside_each_other(session: Session, tmp_path: Path) -> None:
    Outputs(csv=tmp_path / "r.csv", markdown=tmp_path / "r.md").write(session)
    assert (tmp_path / "r.csv").read_text().startswith("kind,method,")
    assert (tmp_path / "r.md").read_text().startswith("# dehaze bench\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.csv", "r.md"]


@pytest.mark.parametrize(
    ("name", "plottable", "words"),
    [
        ("gone/q.png", True, "no directory"),
        ("q.pdf", True, r"expected a name ending in \.png or \.svg"),
        ("q.png", False, "--plot needs --data"),
    ],
)
def test_what_would_fail_later_is_said_first(tmp_path: Path, name: str, plottable: bool, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Outputs(plot=tmp_path / name).check(plottable=plottable, overwrite=False)


def test_two_reports_do_not_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write two things to"):
        Outputs(csv=tmp_path / "r", html=tmp_path / "r").check(plottable=False, overwrite=True)


def test_no_file_is_called_like_stdout() -> None:
    with pytest.raises(UsageError, match="not written to stdout"):
        Outputs(csv=Path("-")).check(plottable=False, overwrite=False)


def test_files_that_exist_are_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    (tmp_path / "r.csv").touch()
    with pytest.raises(UsageError, match="already exists"):
        Outputs(csv=tmp_path / "r.csv").check(plottable=False, overwrite=False)
    Outputs(csv=tmp_path / "r.csv").check(plottable=False, overwrite=True)


def test_without_matplotlib_the_install_line_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="Matplotlib") as caught:
        Outputs(plot=tmp_path / "q.png").check(plottable=True, overwrite=False)
    assert "pip install 'dehaze-cli[plot]'" in caught.value.hint


def test_the_best_and_the_worst_picture_of_each_method_are_shown() -> None:
    chosen = chosen_pictures(quality(quality_row(), quality_row("untouched", -10.0)))
    assert chosen == {"hazy/1406_3.png": "best of student", "hazy/1400_3.png": "worst of student"}
