"""The command line: one file a command, each a thin skin over one public function."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (`dehaze.cli.errors.ExitStatus`).

    Args:
        arguments: What follows `dehaze` on the command line; None for the process's own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        from dehaze.cli.app import build_app
        from dehaze.cli.errors import run
    except KeyboardInterrupt:  # importing takes a while
        sys.stderr.write("interrupted\n")
        return 130
    return run(build_app(next(iter(words), None)), arguments)
