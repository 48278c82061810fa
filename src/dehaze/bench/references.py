"""Points of reference that need no weights, so that a number means something.

A method is one file and one line in `REFERENCES`. A network re-implemented for reference is one file in
`dehaze.models` and one line in its registry; trained and bundled, it is named in `REFERENCE_MODELS`.
"""

from __future__ import annotations

from dehaze.bench.dark_channel import DarkChannel
from dehaze.bench.quality import Method, untouched

REFERENCES: dict[str, Method] = {"untouched": untouched, "dark-channel": DarkChannel()}
"""Name in reports -> method."""

REFERENCE_MODELS: tuple[str, ...] = ("aod-net",)
"""Bundled models that every run shows beside the ones asked for."""
