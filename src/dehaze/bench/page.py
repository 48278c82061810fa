"""One HTML page with every table and the pictures themselves; opens from disk, needs no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np

from dehaze.bench.quality import Method, PicturePair, Pixels
from dehaze.bench.report import QualityReport
from dehaze.bench.sheets import Sheet

PICTURE_WIDTH = 480
"""Pictures are reduced to this for the page; figures beside them are of the full size."""

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--soft); }
ul.notes { color: #777; font-size: .88rem; padding-left: 1.1rem; }
.strip { display: flex; gap: .6rem; overflow-x: auto; padding-bottom: .6rem; }
figure { margin: 0; flex: 1 1 0; min-width: 180px; max-width: 480px; }
figure img { display: block; width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: .85rem; padding-top: .25rem; }
svg { max-width: 100%; height: auto; background: white; }
"""


def page(
    heading: str,
    lines: Sequence[str],
    sheets: Sequence[Sheet],
    strips: Sequence[tuple[str, Sequence[tuple[str, Pixels]]]] = (),
    chart: bytes = b"",
) -> str:
    """Write a self-contained page.

    Args:
        heading: Its title.
        lines: What it was measured on, and how.
        sheets: Tables.
        strips: Rows of pictures: title, then caption and (H, W, 3) uint8 RGB for each.
        chart: An SVG file; empty for none.
    """
    body = [f"<h1>{escape(heading)}</h1>", _notes(lines)]
    if chart:
        body.append("<h2>Quality against cost</h2>" + _inline_svg(chart))
    body += [_table(sheet) for sheet in sheets]
    body += [_strip(title, pictures) for title, pictures in strips]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def chosen_pictures(quality: QualityReport) -> dict[str, str]:
    """Pictures to show: name -> why. Each method's best and worst but the untouched input's."""
    reasons: dict[str, list[str]] = {}
    for row in quality.rows:
        if row.method != "untouched":
            reasons.setdefault(row.quality.best.name, []).append(f"best of {row.method}")
            reasons.setdefault(row.quality.worst.name, []).append(f"worst of {row.method}")
    return {name: ", ".join(why) for name, why in reasons.items()}


def picture_strip(
    pair: PicturePair, why: str, methods: Mapping[str, Method], quality: QualityReport
) -> tuple[str, list[tuple[str, Pixels]]]:
    """Show one pair through every method: untouched, answers, truth, each with its reported figures."""
    pictures = []
    for row in sorted(quality.rows, key=lambda row: row.method != "untouched"):
        score = next(s for s in row.scores if s.name == pair.name)
        caption = f"{row.method}: {score.psnr:.2f} dB / {score.ssim:.4f}"
        pictures.append((caption, methods[row.method](pair.hazy)))
    return f"{pair.name}: {why}", [*pictures, ("truth", pair.clear)]


def _notes(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">{items}</ul>' if lines else ""


def _table(sheet: Sheet) -> str:
    classes = [' class="number"' if sheet.numeric(i) else "" for i in range(len(sheet.columns))]

    def cells(tag: str, row: Sequence[str]) -> str:
        parts = (f"<{tag}{c}>{escape(cell)}</{tag}>" for c, cell in zip(classes, row, strict=True))
        return f"<tr>{''.join(parts)}</tr>"

    rows = "\n".join(cells("td", row) for row in sheet.rows)
    return (
        f'<h2>{escape(sheet.title)}</h2><div class="scroll"><table>'
        f"<thead>{cells('th', sheet.columns)}</thead><tbody>\n{rows}</tbody></table></div>"
        + _notes(sheet.notes)
    )


def _strip(title: str, pictures: Sequence[tuple[str, Pixels]]) -> str:
    figures = "".join(
        f'<figure><img src="{_data_uri(pixels)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, pixels in pictures
    )
    return f'<h2>{escape(title)}</h2><div class="strip">{figures}</div>'


def _data_uri(pixels: Pixels) -> str:
    height, width = pixels.shape[:2]
    scale = min(1.0, PICTURE_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    bgr = np.ascontiguousarray(small[..., ::-1])
    jpeg = bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _inline_svg(chart: bytes) -> str:
    """Cut the <svg> element out of an SVG file; inside HTML it needs neither prologue nor namespaces."""
    text = chart.decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
