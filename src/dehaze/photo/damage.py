"""What is wrong inside a file."""

from __future__ import annotations


class DamagedError(ValueError):
    """A file's contents make no sense; the message ends the sentence "it is a damaged file: ..."."""
