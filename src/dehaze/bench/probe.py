"""A fresh process that dehazes one picture and says when it was done and how much memory it took.

`python -m dehaze.bench.probe REQUEST` is started by `dehaze.bench.cost`; REQUEST is JSON: ``picture`` (path),
``source`` (checkpoint path or name of a reference), ``settings`` (of `Dehazer`; null for a reference).
"""

from __future__ import annotations

import io
import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any


def measure(request: dict[str, Any]) -> dict[str, float | None]:
    """Dehaze one picture from file to file; imports only what the method needs."""
    from dehaze import photo

    if request["settings"] is None:
        from dehaze.bench.references import REFERENCES

        answer: Any = REFERENCES[request["source"]]
    else:
        from dehaze.dehazer import from_name

        answer = from_name(request["source"], pictures=1, **request["settings"])
    picture = photo.read(Path(request["picture"]))
    clear = replace(picture, pixels=answer(picture.pixels))
    photo.write(clear, io.BytesIO(), format="jpg")
    done = time.time()
    return {"done": done, "memory_mb": _peak_memory_mb(), "device_memory_mb": _device_memory_mb(request)}


def _peak_memory_mb() -> float | None:
    """Peak resident memory; None where the system does not tell."""
    try:  # not ru_maxrss: on Linux it starts from the parent's size at the moment of the fork
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else None
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return None


def _device_memory_mb(request: dict[str, Any]) -> float | None:
    if not str((request["settings"] or {}).get("device", "")).startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
