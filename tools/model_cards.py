"""Write docs/models/NAME.md for every model of the manifest: `python tools/model_cards.py`.

Facts and figures come from the header, the curve from docs/models/notes/NAME.jsonl (the validation
lines of the run's log.jsonl), and what only a person can say from docs/models/notes/NAME.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from dehaze.weights import list_models, resolve
from dehaze.weights.card import card
from dehaze.weights.checkpoint import read_header

CARDS = Path(__file__).parents[1] / "docs" / "models"
CURVE_POINTS = 12


def main() -> None:
    """Write all cards."""
    for entry in list_models():
        if entry.source != "bundled":
            continue
        text = card(read_header(resolve(entry.name)), entry.name, entry.sha256)
        notes = CARDS / "notes" / f"{entry.name}.md"
        if notes.exists():
            text += "\n" + notes.read_text(encoding="utf-8").strip() + "\n"
        curve = CARDS / "notes" / f"{entry.name}.jsonl"
        if curve.exists():
            text += "\n" + _curve(curve)
        (CARDS / f"{entry.name}.md").write_text(text, encoding="utf-8")
        print(CARDS / f"{entry.name}.md")


def _curve(path: Path) -> str:
    points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    stride = max(1, -(-len(points) // CURVE_POINTS))
    kept = points[::stride] + ([points[-1]] if (len(points) - 1) % stride else [])
    sets = [key for key in kept[0] if key.startswith("psnr/")] or ["psnr"]
    titles = [f"{key.removeprefix('psnr/')}, dB" if "/" in key else "validation PSNR, dB" for key in sets]
    rows = [" | ".join([f"| {p['step']:,}", *(f"{p[key]:.2f}" for key in sets)]) + " |" for p in kept]
    head = [" | ".join(["| step", *titles]) + " |", "|---" * (len(sets) + 1) + "|"]
    return "\n".join(["## Curve", "", *head, *rows, ""])


if __name__ == "__main__":
    main()
