"""Model cards for the Hub: what a checkpoint's header says, for people and for the Hub's search."""

from __future__ import annotations

import json
import re
from typing import Any

from dehaze.weights.checkpoint import Header

_HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
)
"""Those of the Hub's licence identifiers that weights trained on public data usually have."""


def card(header: Header, address: str, sha256: str) -> str:
    """Write the README of a checkpoint's repository.

    Args:
        header: The checkpoint's header.
        address: What `-m` takes to get the file.
        sha256: Of the file.
    """
    size = f"{header.working_size} pixels" if header.working_size else "any"
    lines = [
        *_front_matter(header),
        f"# {header.name}",
        "",
        *_use(header, address),
        "",
        "| | |",
        "|---|---|",
        f"| Architecture | `{header.architecture}` |",
        f"| Learned values | {header.parameters:,} |",
        f"| Working long side | {size} |",
        f"| Transfer radius | {header.transfer_radius} |",
        f"| Working copy | {header.reduction} of each cell |",
        f"| Second look | {f'mirrored, at {header.second_look} pixels' if header.second_look else 'none'} |",
        f"| Licence | {header.licence or 'not stated'} |",
        f"| Source commit | `{header.source_commit or 'unknown'}` |",
        f"| sha256 | `{sha256}` |",
        "",
        *_measured(header.metrics),
        *_block("Training data", header.data),
        *_block("Training recipe", header.recipe),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _use(header: Header, address: str) -> list[str]:
    if header.architecture == "teacher":
        what = "A super-resolution teacher: it guides the training of dehazing networks with `dehaze-cli`"
        command = f"dehaze distill --data ./RESIDE --teacher {address}"
    else:
        what = "Clears haze and fog from photos and video with `dehaze-cli`"
        command = f"dehaze run foggy.jpg -m {address}"
    return [f"{what}:", "", "```", "pip install dehaze-cli", command, "```"]


def _front_matter(header: Header) -> list[str]:
    licence = header.licence.lower()
    named = [f"license: {licence}"] if licence in _HUB_LICENCES else []
    if licence and not named:
        short = re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")[:60]
        named = ["license: other", f"license_name: {short}"]
    tags = ["dehazing", "image-restoration", f"dehaze-{header.architecture}"]
    return [
        "---",
        *named,
        "library_name: dehaze-cli",
        "pipeline_tag: image-to-image",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
    ]


def _measured(metrics: dict[str, Any]) -> list[str]:
    if not metrics:
        return []
    lines = ["## Measured", ""]
    for on, figures in metrics.items():
        shown = figures if isinstance(figures, dict) else {"value": figures}
        values = ", ".join(f"{key} {value}" for key, value in shown.items() if key != "command")
        command = f" (`{shown['command']}`)" if "command" in shown else ""
        lines.append(f"* {on}: {values}{command}")
    return [*lines, ""]


def _block(title: str, values: dict[str, Any]) -> list[str]:
    if not values:
        return []
    return [f"## {title}", "", "```json", json.dumps(values, indent=2, ensure_ascii=False), "```", ""]
