"""What a network asks of its input, stated once so that callers need not know the architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Reduction = Literal["mean", "minimum"]
"""What stands for a cell of the working copy that a network was trained on (`dehaze.working_copy.reduce`)."""

REDUCTIONS = get_args(Reduction)


@dataclass(frozen=True)
class Limits:
    """Promises of an architecture; every network in the registry is tested against them.

    Attributes:
        multiple: Height and width are padded up to this internally; callers need not care.
        half: Whether float16 and bfloat16 inference stays within one 8-bit level of float32 on a GPU.
        tiling: ``ok`` if a pixel's answer depends on a bounded neighbourhood only, ``discouraged`` if the
            network uses statistics of the whole picture, so that tiles differ from the whole.
        scale: Output size over input size; 1 for dehazing networks, 2 or 4 for super-resolution teachers.
    """

    multiple: int = 1
    half: bool = True
    tiling: Literal["ok", "discouraged"] = "ok"
    scale: int = 1
