"""Runs our command in processes of their own, where the Hub's client reads its settings anew, yet quickly.

They are forked from a server that has the slow imports behind it, but not the Hub's client.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from dehaze.cli import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "dehaze.cli.app",
        "dehaze.models",
        "dehaze.weights.library",
        "safetensors.torch",
        "httpx2",
        "rich.console",
    ]
)


@dataclass
class Result:
    status: int | None
    out: str
    err: str

    def record(self) -> dict[str, Any]:
        assert self.status == 0, self.err
        values: dict[str, Any] = json.loads(self.out)
        return values


@dataclass
class Running:
    process: ForkServerProcess
    out: Path
    err: Path

    def result(self) -> Result:
        self.process.join(240)
        return Result(self.process.exitcode, self.out.read_text(), self.err.read_text())


@dataclass
class Client:
    """Runs `dehaze models` with the settings of one user."""

    folder: Path
    endpoint: str
    count: int = 0
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "DEHAZE_"))}
        home = str(self.folder / "home")
        self.environment = kept | {"HF_ENDPOINT": self.endpoint, "HF_HOME": home}

    def start(self, *arguments: str, prepare: Callable[[], None] | None = None, **settings: str) -> Running:
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        process = _CONTEXT.Process(
            target=_run, args=(arguments, self.environment | settings, out, err, prepare or quick)
        )
        process.start()
        return Running(process, out, err)

    def __call__(self, *arguments: str, prepare: Callable[[], None] | None = None, **settings: str) -> Result:
        return self.start(*arguments, prepare=prepare, **settings).result()

    def blobs(self) -> list[Path]:
        """Every file of the cache that holds a model's bytes, whole or not."""
        return list((self.folder / "home" / "hub").glob("models--*/blobs/*"))


def quick() -> None:
    """Leave out the pauses between the client's attempts."""
    time.sleep = lambda _: None


def impatient() -> None:
    """Wait less than a second for bytes; the client's own setting is in whole seconds."""
    from huggingface_hub import constants

    quick()
    constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.2  # type: ignore[assignment]


def full_disk() -> None:
    """Let the download meet a full disk."""
    import errno

    from huggingface_hub import file_download

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file_download.http_get = no_space


def watched() -> None:
    """Print every progress report as a line of JSON."""
    from dehaze.weights import library

    fetch = library.fetch

    def report(done: float, total: float | None) -> None:
        sys.stdout.write(json.dumps([done, total]) + "\n")

    def printing(name: str, **options: Any) -> library.Found:
        return fetch(name, **{**options, "progress": report})

    library.fetch = printing  # type: ignore[assignment]


def with_manifest(path: Path) -> None:
    """Take another manifest for the package's own."""
    from dehaze.weights import manifest

    quick()
    manifest.manifest_path = lambda: path


def with_manifest_updated(path: Path) -> None:
    """Take another manifest for the package's own, and bring it up to date first."""
    from dehaze.weights import update

    with_manifest(path)
    update.manifest_path = lambda: path
    assert update.main([]) == 0


def _run(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    out: Path,
    err: Path,
    prepare: Callable[[], None],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    assert "huggingface_hub" not in sys.modules, "its settings would be those of another process"
    with out.open("w") as o, err.open("w") as e, contextlib.redirect_stdout(o), contextlib.redirect_stderr(e):
        prepare()
        status = main(["models", *arguments])
    sys.exit(status)
