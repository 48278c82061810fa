"""The command line: one file a command, each a thin skin over one public function."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (`dehaze.cli.errors.ExitStatus`).

    Args:
        arguments: What follows `dehaze` on the command line; None for the process's own.
    """
    # Read when NumPy is imported. Our products are small: more threads of OpenBLAS wait for each other by
    # spinning, which doubles the CPU time of a photo and makes it no sooner (benchmarks/startup.py).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Read when PyTorch is imported, by GNU's OpenMP. On a machine that does other work its threads wait in
    # vain for one that is not running: the default is thirty times as long (docs/experiments.md, 34).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    words = sys.argv[1:] if arguments is None else arguments
    try:
        from dehaze.cli.app import build_app
        from dehaze.cli.errors import run

        app = build_app(next(iter(words), None))
    except KeyboardInterrupt:  # importing takes a while
        sys.stderr.write("interrupted\n")
        return 130
    return run(app, arguments)
