"""One HTML page of before/after sliders that needs nothing else: pictures, style and script are inside."""

from __future__ import annotations

import base64
import html
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dehaze.parts import sweep, write_whole

THUMBNAIL_SIDE = 800
"""Long side of the embedded pictures in pixels."""

MAX_PAIRS = 400
"""Pairs on a page; of more, a regular choice is shown. So many are some 50 MB."""

_QUALITY = 82

Pixels = npt.NDArray[Any]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A picture before and after.

    Attributes:
        title: Shown as text, whatever it holds.
        before: A JPEG file.
        after: A JPEG file.
        width: Of both, in pixels.
        height: Of both.
    """

    title: str
    before: bytes
    after: bytes
    width: int
    height: int


def make_pair(
    title: str, before: Pixels, after: Pixels, *, to_srgb: Callable[[Map], Map] | None = None
) -> Pair:
    """Reduce two pictures to a pair for the page.

    Args:
        title: The pair's.
        before: (H, W, 3) RGB, uint8 or uint16.
        after: The same.
        to_srgb: From the pictures' colours to sRGB, both (h, w, 3) in [0, 1]; None if they are sRGB.
    """
    small = _reduce(before, to_srgb), _reduce(after, to_srgb)
    height, width = small[0].shape[:2]
    return Pair(title, _jpeg(small[0]), _jpeg(small[1]), width, height)


class Gallery:
    """Collects pairs and writes the page; safe to add to from several threads.

    Args:
        total: How many pairs there could be at most; beyond `MAX_PAIRS` a regular choice is kept.
    """

    def __init__(self, total: int) -> None:
        self._step = -(-max(total, 1) // MAX_PAIRS)
        self._pairs: dict[int, Pair] = {}
        self._lock = threading.Lock()

    def wants(self, index: int) -> bool:
        """Whether the pair of this number is shown."""
        return index % self._step == 0

    def add(self, index: int, pair: Pair) -> None:
        """Put a pair in its place."""
        with self._lock:
            self._pairs[index] = pair

    def __contains__(self, index: int) -> bool:
        return index in self._pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def write(self, path: Path, title: str, subtitle: str = "") -> None:
        """Write the page; the file appears whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        pairs = [self._pairs[index] for index in sorted(self._pairs)]
        sweep([path])
        write_whole(path, b"".join(text.encode(errors="replace") for text in _page(pairs, title, subtitle)))


def _reduce(pixels: Pixels, to_srgb: Callable[[Map], Map] | None) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) / np.float32(np.iinfo(pixels.dtype).max)
    if to_srgb is not None:
        small = to_srgb(small)
    levels: Map = np.rint(np.clip(small, 0, 1) * 255)
    return levels.astype(np.uint8)


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    assert done
    return data.tobytes()


def _page(pairs: Iterable[Pair], title: str, subtitle: str) -> Iterable[str]:
    name = html.escape(title)
    yield f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{name}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{name}</h1><p>{html.escape(subtitle)}</p>
<p class="help">Drag across a picture, or reach it with Tab and use the arrow keys.</p></header>
<main>
"""
    for pair in pairs:
        yield _figure(pair)
    yield f"</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _figure(pair: Pair) -> str:
    name = html.escape(pair.title)
    size = f'width="{pair.width}" height="{pair.height}" loading="lazy" decoding="async" draggable="false"'
    return f"""<figure>
<div class="pair" style="aspect-ratio:{pair.width}/{pair.height}">
<img {size} alt="{name}, after" src="{_data(pair.after)}">
<img class="before" {size} alt="{name}, before" src="{_data(pair.before)}">
<span class="tag left" aria-hidden="true">before</span><span class="tag right" aria-hidden="true">after</span>
<span class="bar" aria-hidden="true"></span>
<input type="range" min="0" max="100" value="50" step="1" aria-label="{name}: how much of before is shown">
</div>
<figcaption>{name}</figcaption>
</figure>
"""


def _data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Lets the browser itself refuse anything that is not on the page."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f23;--soft:#5b6670;--page:#f6f7f8;--card:#fff;--line:#d7dce0;
--key:#0a63c9}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#9aa5ae;--page:#14171a;--card:#1d2125;
--line:#333a40;--key:#6cb1ff}}
*{box-sizing:border-box}
body{margin:0;padding:1.5rem clamp(1rem,4vw,3rem);background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{margin:0;font-size:1.5rem;overflow-wrap:anywhere}
header p{margin:.15rem 0;color:var(--soft)}
main{display:grid;gap:1.25rem;margin-top:1.25rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));align-items:start}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.6rem;overflow:hidden;
content-visibility:auto;contain-intrinsic-size:auto 26rem 20rem}
figcaption{padding:.5rem .75rem;color:var(--soft);font-size:.875rem;overflow-wrap:anywhere}
.pair{--at:50%;position:relative;width:100%;overflow:hidden;cursor:ew-resize;
touch-action:pan-y;user-select:none;-webkit-user-select:none}
.pair img{position:absolute;inset:0;width:100%;height:100%;display:block;pointer-events:none}
.pair .before{clip-path:inset(0 calc(100% - var(--at)) 0 0)}
.bar{position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 4px rgba(0,0,0,.6);pointer-events:none}
.bar::after{content:"";position:absolute;top:50%;left:50%;width:1.75rem;height:1.75rem;
transform:translate(-50%,-50%);border-radius:50%;background:rgba(255,255,255,.92);
box-shadow:0 0 4px rgba(0,0,0,.6)}
.tag{position:absolute;top:.6rem;padding:.05rem .5rem;border-radius:1rem;background:rgba(0,0,0,.6);color:#fff;
font-size:.75rem;pointer-events:none}
.left{left:.6rem}.right{right:.6rem}
.pair input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;pointer-events:none}
.pair:focus-within{outline:3px solid var(--key);outline-offset:-3px}
@media print{.help{display:none}}
"""

_SCRIPT = """
"use strict";
for (const pair of document.querySelectorAll(".pair")) {
  const input = pair.querySelector("input");
  const show = () => {
    pair.style.setProperty("--at", input.value + "%");
    input.setAttribute("aria-valuetext", input.value + " percent before");
  };
  const follow = (event) => {
    const box = pair.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    input.value = Math.round(100 * Math.min(1, Math.max(0, share)));
    show();
  };
  input.addEventListener("input", show);
  pair.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pair.setPointerCapture(event.pointerId);
    input.focus({preventScroll: true});
    follow(event);
  });
  // Otherwise the click itself would take the focus away again.
  pair.addEventListener("mousedown", (event) => event.preventDefault());
  pair.addEventListener("pointermove", (event) => {
    if (pair.hasPointerCapture(event.pointerId)) follow(event);
  });
  show();
}
"""
