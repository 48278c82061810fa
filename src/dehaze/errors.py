"""Every error a user can cause, each with the exit status that `docs` and `--help` promise.

The library raises these; only the command line turns them into messages and exit codes.
"""

from __future__ import annotations


class DehazeError(Exception):
    """Something failed that one clear sentence can explain.

    Args:
        message: What happened, where, what was found and what was expected; one sentence.
        hint: What to do next, ideally a command to type; empty if there is nothing to add.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DehazeError):
    """The request cannot be carried out as asked (exit status 2)."""

    exit_code = 2


class PhotoError(DehazeError):
    """A picture could not be read or written."""


class VideoError(DehazeError):
    """A video could not be read or written."""


class DataError(DehazeError):
    """A data set is missing, incomplete or not laid out as expected."""


class TrainingError(DehazeError):
    """A training run cannot go on."""


class ModelError(DehazeError):
    """A model is not available: unknown, missing, not a checkpoint, not reachable (exit status 4)."""

    exit_code = 4
