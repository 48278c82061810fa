"""`dehaze info`: what a bug report needs."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from dehaze.cli import options as opt
from dehaze.cli import output
from dehaze.errors import DehazeError
from dehaze.machine import available_cpus, cpu_name
from dehaze.version import __version__

EXTRAS = {
    "heic": ("pillow-heif",),
    "onnx": ("onnx", "onnxruntime"),
    "train": ("tensorboard",),
    "plot": ("matplotlib",),
}
"""Extra of the package -> the distributions it brings."""

LIBRARIES = (
    "torch",
    "numpy",
    "opencv-python-headless",
    "av",
    "pillow",
    "safetensors",
    "huggingface-hub",
    "typer",
)
SETTINGS = (
    "DEHAZE_MODEL",
    "DEHAZE_DEVICE",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)
"""Environment variables that change what we do; none of them holds a secret."""


def info(
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Show versions, devices, models and settings: what a bug report needs.

    dehaze info
    dehaze info --json | jq .devices
    """
    out = output.start(as_json=as_json, debug=debug)
    facts = collect()
    out.record(facts)
    if not as_json:
        for line in describe(facts):
            out.data(line)


def collect() -> dict[str, Any]:
    """Gather the facts; a part that is broken says so instead of ending the report."""
    return {
        "dehaze": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        **_compute(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "opencv": _opencv(),
        "ffmpeg": _ffmpeg(),
        "extras": {name: all(_version(part) for part in parts) for name, parts in EXTRAS.items()},
        "models": _models(),
        "cache": _cache(),
        "environment": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def describe(facts: dict[str, Any]) -> list[str]:
    """Put the facts into lines that people read: a name, then its value."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_word(item)}" for key, item in value.items()) or "none"
        elif isinstance(value, list):
            value = "; ".join(map(str, value)) or "none"
        lines.append(f"{name:<12} {_word(value)}")
    return lines


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _compute() -> dict[str, Any]:
    try:
        import torch

    except (ImportError, OSError) as error:
        return {"threads": None, "devices": [f"none, PyTorch does not load: {error}"]}
    devices = ["cpu"]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        capability = f"{found.major}.{found.minor}"
        devices.append(f"cuda:{index} {found.name}, {found.total_memory >> 20} MiB, capability {capability}")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "threads": available_cpus(),
        "devices": devices,
        "cuda": torch.version.cuda or "not in this PyTorch build",
    }


def _opencv() -> str:
    try:
        import cv2
    except (ImportError, OSError) as error:
        return f"does not load: {error}"
    return str(cv2.__version__)


def _ffmpeg() -> str:
    try:
        import av
    except (ImportError, OSError) as error:
        return f"does not load: {error}"
    libraries = (f"{name} {'.'.join(map(str, number))}" for name, number in av.library_versions.items())
    return f"{av.ffmpeg_version_info} ({', '.join(libraries)})"


def _models() -> dict[str, Any]:
    from dehaze.weights.manifest import read_manifest

    try:
        entries = read_manifest().values()
    except DehazeError as error:
        return {"default": None, "error": error.message}
    default = next((entry.name for entry in entries if entry.is_default), None)
    return {"default": default, "known": len(entries)}


def _cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return HF_HUB_CACHE
