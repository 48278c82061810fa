"""Validation as a user would judge: whole pictures at full size, through the same path as `dehaze run`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dehaze.metrics import PSNR_CAP, psnr
from dehaze.weights.checkpoint import Header

Pixels = npt.NDArray[np.uint8]


class Validator(Protocol):
    """Judges a network."""

    def __call__(self, model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
        """Return named figures; ``psnr`` (dB, larger is better) decides which checkpoint is kept."""
        ...


@dataclass(frozen=True)
class PairSet:
    """Named hazy and clear pictures, (H, W, 3) uint8 each."""

    name: str
    pairs: tuple[tuple[Pixels, Pixels], ...]


def _fingerprint(pictures: Iterable[Pixels]) -> str:
    """Count and checksum of pictures."""
    count, checksum = 0, 0
    for picture in pictures:
        count, checksum = count + 1, zlib.crc32(np.ascontiguousarray(picture).data, checksum)
    return f"{count} pictures, crc32 {checksum:08x}"


class DehazeValidator:
    """PSNR after dehazing and transfer to full resolution; several sets count equally.

    Args:
        sets: The pictures.
        device: Where the network runs.

    Attributes:
        identity: What is judged on: a resumed run's best is only comparable on the same pictures.
    """

    def __init__(self, sets: Sequence[PairSet], device: torch.device) -> None:
        self._sets = sets
        self._device = device
        self.identity = {s.name: _fingerprint(p for pair in s.pairs for p in pair) for s in sets}

    def pictures(self, limit: int | None = None) -> int:
        """How many pictures a call with this limit judges."""
        return sum(len(s.pairs[:limit]) for s in self._sets)

    def __call__(self, model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
        """See `Validator`."""
        from dehaze.dehazer import Dehazer

        dehazer = Dehazer(model, header, device=str(self._device), precision="fp32")
        means = {
            s.name: float(np.mean([min(psnr(dehazer(h), c), PSNR_CAP) for h, c in s.pairs[:limit]]))
            for s in self._sets
        }
        figures = {"psnr": float(np.mean(list(means.values())))}
        return figures if len(means) == 1 else figures | {f"psnr/{k}": v for k, v in means.items()}


class SuperResolutionValidator:
    """PSNR of a teacher that enlarges reduced clear pictures.

    Args:
        clear: (H, W, 3) uint8 pictures.
        scale: 2 or 4.
        device: Where the network runs.

    Attributes:
        identity: See `DehazeValidator`.
    """

    def __init__(self, clear: Sequence[Pixels], scale: int, device: torch.device) -> None:
        self._clear = [c[: c.shape[0] // scale * scale, : c.shape[1] // scale * scale] for c in clear]
        self._scale = scale
        self._device = device
        self.identity = {"clear": _fingerprint(clear)}

    def pictures(self, limit: int | None = None) -> int:
        """How many pictures a call with this limit judges."""
        return len(self._clear[:limit])

    def __call__(self, model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
        """See `Validator`."""
        return {"psnr": float(np.mean([self._score(model, clear) for clear in self._clear[:limit]]))}

    def _score(self, model: nn.Module, clear: Pixels) -> float:
        from dehaze.training.tasks import downscale

        truth = torch.from_numpy(clear).to(self._device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            answer = model(downscale(truth, self._scale)).clamp(0, 1)
        pixels = (answer[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return min(psnr(pixels, clear), PSNR_CAP)
