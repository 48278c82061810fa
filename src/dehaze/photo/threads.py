"""How many threads compress a picture."""

from __future__ import annotations

from dehaze.machine import available_cpus

_MOST = 4


def workers() -> int:
    """As many as this process has cores, up to four: beyond that memory is the limit."""
    return min(_MOST, available_cpus())
