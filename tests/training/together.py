"""Run a lesson of lessons.py in several processes that find each other on 127.0.0.1."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

LESSONS = Path(__file__).with_name("lessons.py")
LIMIT_S = 300


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    return os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def together(name: str, folder: Path, world: int = 2) -> list[Any]:
    """Run a lesson in `world` processes; what each said, by rank; None for one that said nothing."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, str(LESSONS), name, str(folder)],
            env=environment(rank, world, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        for process in processes:
            process.communicate(timeout=LIMIT_S)
    finally:
        for process in processes:
            process.kill()
    files = [folder / f"{rank}.json" for rank in range(world)]
    return [json.loads(file.read_text()) if file.is_file() else None for file in files]
