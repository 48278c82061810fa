"""The before/after page: self-contained, safe with any name, usable by mouse, touch and keyboard."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dehaze.folder.album import Album
from dehaze.folder.plan import Job, Plan
from dehaze.gallery import MAX_PAIRS, THUMBNAIL_SIDE, Gallery, make_pair
from dehaze.parts import part_path
from making import make_video

MAX_PROCESS = 2**22 + 1
"""A process that no system runs."""

BEFORE, AFTER = (200, 100, 50), (20, 160, 220)


def flat(colour: tuple[int, int, int], height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def write_page(path: Path, *titles: str) -> str:
    gallery = Gallery(len(titles))
    for index, title in enumerate(titles):
        gallery.add(index, make_pair(title, flat(BEFORE), flat(AFTER)))
    gallery.write(path, "trip", "of two")
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_each_pair_is_a_labelled_slider_over_two_embedded_pictures(tmp_path: Path) -> None:
    page = Page(write_page(tmp_path / "g.html", "a.jpg", "b/c.png"))
    assert len(page.all("figure")) == 2
    assert [image["alt"] for image in page.all("img")] == [
        *("a.jpg, after", "a.jpg, before"),
        *("b/c.png, after", "b/c.png, before"),
    ]
    for slider in page.all("input"):
        assert slider["type"] == "range"
        assert slider["aria-label"]
    after, before = (decode(image["src"]) for image in page.all("img")[:2])
    assert np.abs(before.astype(int) - BEFORE).max() <= 3
    assert np.abs(after.astype(int) - AFTER).max() <= 3


def decode(source: str | None) -> np.ndarray:
    assert source is not None
    kind, data = source.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    text = write_page(tmp_path / "g.html", "a.jpg")
    page = Page(text)
    links = [
        value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")
    ]
    assert links
    assert all(link is not None and link.startswith("data:") for link in links)
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in str(page.all("meta"))


def test_names_are_shown_as_text_whatever_they_hold(tmp_path: Path) -> None:
    nasty = "<script>alert('1')</script>\"&'.jpg"
    page = Page(write_page(tmp_path / "g.html", nasty))
    assert len(page.all("script")) == 1
    assert nasty in page.text
    assert page.all("img")[0]["alt"] == f"{nasty}, after"


def test_large_deep_pictures_are_reduced_in_their_own_colours() -> None:
    deep = np.full((1000, 2000, 3), 257 * 100, np.uint16)
    pair = make_pair("x", deep, deep, to_srgb=lambda colours: colours * np.float32(2))
    assert (pair.width, pair.height) == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2)
    shown = cv2.imdecode(np.frombuffer(pair.before, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert np.abs(shown.astype(int) - 200).max() <= 2


def test_of_many_pairs_a_regular_choice_is_kept() -> None:
    assert [index for index in range(5) if Gallery(5).wants(index)] == [0, 1, 2, 3, 4]
    total = 3 * MAX_PAIRS + 1
    gallery = Gallery(total)
    kept = [index for index in range(total) if gallery.wants(index)]
    assert len(kept) <= MAX_PAIRS
    assert set(np.diff(kept)) == {4}


def test_pairs_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    gallery = Gallery(3)
    for index in (2, 0, 1):
        gallery.add(index, make_pair(f"{index}.jpg", flat(BEFORE), flat(AFTER)))
    gallery.write(tmp_path / "g.html", "t")
    page = Page((tmp_path / "g.html").read_text())
    assert [image["alt"] for image in page.all("img")[::2]] == [f"{i}.jpg, after" for i in range(3)]


def test_a_video_that_is_cut_short_is_shown_at_one_moment(tmp_path: Path) -> None:
    source, target = make_video(tmp_path / "cut.mkv", frames=60), tmp_path / "out" / "cut.mkv"
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    target.parent.mkdir()
    make_video(target, frames=36)
    album = Album(Plan(tmp_path, target.parent, jobs=[Job(source, target, "video")]))
    assert album.complete(set(), lambda done, total: None) == []
    after, before = (decode(image["src"]).astype(int) for image in Page(album.write().read_text()).all("img"))
    assert np.abs(after - before).mean() < 1  # three levels of red lie between a frame and the next


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_page(path, "a.jpg")
    assert [file.name for file in tmp_path.iterdir()] == ["g.html"]
    assert path.read_text() == "old"


def test_a_page_is_replaced_as_any_other_file(tmp_path: Path) -> None:
    real, link = tmp_path / "real.html", tmp_path / "g.html"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    mine = part_path(link)
    left_over = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{MAX_PROCESS}."))
    left_over.write_text("half")
    write_page(link, "a.jpg")
    assert link.is_symlink()
    assert real.read_text() != "old"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.html", "real.html"]


class Browser:
    """Headless Chromium, driven by the DevTools protocol over two pipes."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        os.set_inheritable(to_browser, True)
        os.set_inheritable(from_browser, True)
        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-component-update", "--disable-background-networking", "--disable-sync"),
            *("--remote-debugging-pipe", "--touch-events=enabled", f"--user-data-dir={profile}"),
        ]
        # The protocol's pipes are file descriptors 3 and 4, whatever numbers they have here.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, program, *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._buffer = 0, b""
        self._session: str | None = None

    def open(self, page: Path) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": 800, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=page.as_uri())
        self.run(READY)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]  # type: ignore[no-any-return]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)  # type: ignore[no-any-return]

    def run(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium to open the page in")
    opened = Browser(program, tmp_path / "profile")
    try:
        yield opened
    finally:
        opened.close()


SHARE = "parseFloat(getComputedStyle(document.querySelector('.pair')).getPropertyValue('--at'))"
READY = "new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', () => r()))"


def test_the_slider_follows_mouse_touch_and_keyboard(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "g.html"
    write_page(path, "a.jpg")
    browser.open(path)
    assert browser.run("document.title") == "trip"
    widths = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    assert browser.run(widths) == [80, 80]
    assert browser.run(SHARE) == 50
    box = browser.run(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('.pair').getBoundingClientRect())"
    )

    def at(share: float) -> dict[str, float]:
        return {"x": box[0] + share * box[2], "y": box[1] + box[3] / 2}

    def mouse(kind: str, share: float) -> None:
        browser.call(
            "Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at(share)
        )

    mouse("mousePressed", 0.25)
    assert browser.run(SHARE) == pytest.approx(25, abs=1)
    mouse("mouseMoved", 0.75)
    assert browser.run(SHARE) == pytest.approx(75, abs=1)
    mouse("mouseReleased", 0.75)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at(0.1))
    assert browser.run(SHARE) == pytest.approx(75, abs=1)

    key = {"key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37}
    before = browser.run(SHARE)
    for _ in range(3):
        browser.call("Input.dispatchKeyEvent", type="rawKeyDown", **key)
        browser.call("Input.dispatchKeyEvent", type="keyUp", **key)
    assert browser.run(SHARE) == before - 3
    spoken = browser.run("document.querySelector('input').getAttribute('aria-valuetext')")
    assert spoken == f"{before - 3:g} percent before"

    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at(0.4)])
    browser.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[at(0.3)])
    browser.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[at(0.2)])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert browser.run(SHARE) == pytest.approx(20, abs=2)

    shot = base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"])
    pixels = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    row = int(box[1] + box[3] * 0.8)
    left, right = (pixels[row, int(box[0] + box[2] * share), ::-1].astype(int) for share in (0.1, 0.6))
    assert np.abs(left - BEFORE).max() <= 6
    assert np.abs(right - AFTER).max() <= 6
