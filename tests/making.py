"""Small videos and pictures made for tests, networks of random weights, and a stand-in for one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from dehaze.models import build
from dehaze.upsample import LocalAffine, white
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint

WIDTH, HEIGHT, FRAMES = 64, 48, 10
WITHOUT_PYTORCH = """
import sys
from dehaze.cli import main
status = main(sys.argv[1:])
heavy = {"torch", "huggingface_hub", "onnx"} & sys.modules.keys()
raise SystemExit(f"imported {heavy}" if heavy else status)
"""
"""A program: `dehaze` with its arguments, which fails if something heavy was imported."""

TICKS = Fraction(1, 90_000)
STEP = 3600


class Affine:
    """Stands for a network: the same gain and offset for every pixel; remembers what it was shown."""

    def __init__(self, gain: float = 1.0, offset: float = 0.0) -> None:
        self.gain, self.offset = gain, offset
        self.seen: list[np.ndarray] = []

    def __call__(self, pixels: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
        raise AssertionError("frames larger than the working copy go through estimate")

    def estimate(self, pixels: np.ndarray) -> LocalAffine:
        self.seen.append(pixels)
        shape = (*self.working_shape(*pixels.shape[:2]), 3)
        return LocalAffine(np.full(shape, self.gain, np.float32), np.full(shape, self.offset, np.float32))

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        return max(1, height // 2), max(1, width // 2)


def wild(path: Path) -> Path:
    """Write a checkpoint of a network whose answers lie far outside 0 to 1."""
    tensors = build("lite").state_dict()
    tensors["tail.bias"] += 10  # of K and B in J = I + K I - B
    save_checkpoint(path, tensors, Header(name="wild", architecture="lite", working_size=32))
    return path


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A smooth frame with a bright spot at the top left, so that its orientation shows."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([60 + x + index * 3, 80 + y, 120 - x // 2 + y], axis=-1)
    frame[: height // 4, : width // 4] = 220
    return np.clip(frame, 0, 255).astype(np.uint8)


def make_video(
    path: Path,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    times: list[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    prepare: Callable[[Any, Any], None] = lambda container, stream: None,
    audio: bool = False,
) -> Path:
    """Write a video; ``times`` are in ticks of 1/90,000 s."""
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "bf": "2", "g": "6"} if codec.startswith("libx26") else {}
        stream: Any = container.add_stream(
            codec, rate=25, time_base=TICKS, width=size[0], height=size[1], options=options
        )
        stream.pix_fmt = pix_fmt
        sound: Any = container.add_stream("aac", rate=44_100) if audio else None
        prepare(container, stream)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, *size)).reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times[index] if times else index * STEP), TICKS
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(tone(index)))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def tone(index: int, samples: int = 1764) -> av.AudioFrame:
    at = np.arange(index * samples, (index + 1) * samples) / 44_100
    wave = np.tile(0.3 * np.sin(2 * np.pi * 440 * at), (2, 1)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 44_100, index * samples, Fraction(1, 44_100)
    return frame


def random_network(architecture: str = "lite") -> nn.Module:
    """A network that changes pictures: layers that start at zero would make it the identity."""
    torch.manual_seed(0)
    model = build(architecture)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def waves(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """A bright picture of smooth waves and fine noise, (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / 9
    noise = np.random.default_rng(0).normal(0, 0.02, (height, width, 3))
    colours = np.stack([np.sin(x + y / 3), np.cos(y), np.sin(x) * np.cos(y)], axis=-1)
    return (np.clip(0.6 + 0.3 * colours + noise, 0, 1) * white(np.dtype(dtype))).astype(dtype)
