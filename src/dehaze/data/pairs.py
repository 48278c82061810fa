"""Hazy and clear pairs from disk, decoded once and then cut in batches on the training device."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dehaze.data.reside import Pair, PairSet, cut_to, picture_shape, read_picture
from dehaze.errors import DataError
from dehaze.limits import Reduction
from dehaze.working_copy import reduce

Pixels = npt.NDArray[np.uint8]

ZOOMS = (1.0, 1.25)
"""Pictures are kept so reduced that a crop of the training size sees all, or 1/1.25 of each side, of one."""

MEMORY_LIMIT = 2 * 1024**3
"""Bytes of pictures to hold in a CPU's memory; more goes to a memory-mapped file, which the system pages."""

_THREADS = 4


@dataclass(frozen=True)
class _Level:
    """All pictures reduced for one crop size, one after the other without padding.

    Attributes:
        pixels: (total, 3) uint8.
        starts: (pictures,) first pixel of each.
        sizes: (pictures, 2) height and width.
    """

    pixels: Tensor
    starts: Tensor
    sizes: Tensor


class PairSource:
    """Random crops of hazy and clear pairs; see `dehaze.data.Source`.

    Pictures larger than needed are reduced until they just cover the crop, which is what training a small
    working size wants; smaller ones are enlarged to it. Each clear picture is held once, however many hazy
    ones it has.

    Args:
        pairs: What to learn from.
        sizes: Every (height, width) that `batch` will be asked for.
        device: Where pictures stay and batches are made.
        view: ``whole``: pictures are reduced as said above. ``crop``: they stay as they are, unless smaller
            than the crop.
        cache: Folder for the memory-mapped files of sets above `memory_limit`; they are used again by later
            runs on the same data. None means ``$XDG_CACHE_HOME/dehaze/pairs``.
        memory_limit: Bytes to hold in memory on a CPU. On other devices all pictures must fit.
        reduction: How ``whole`` pictures are reduced; of a pair's pictures each shows its own minima,
            which are of the same places but where haze or truth jump within a cell.

    Raises:
        DataError: There are no pairs, a picture is damaged, or there is no room for them.
    """

    def __init__(
        self,
        pairs: PairSet,
        sizes: Iterable[tuple[int, int]],
        *,
        device: torch.device | str = "cpu",
        view: Literal["whole", "crop"] = "whole",
        cache: Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
        reduction: Reduction = "mean",
    ) -> None:
        if not len(pairs):
            raise DataError(f"{pairs.root} has no sound pairs to learn from:\n{pairs.report()}")
        self.device = torch.device(device)
        self.identity = dict(pairs.identity) | {"view": view}
        if reduction != "mean":
            self.identity["reduction"] = reduction
        self._zooms = ZOOMS if view == "whole" else (float("inf"),)
        self._pairs = len(pairs)
        pictures, self._hazy, self._clear = _number(pairs.pairs)
        layouts = {
            (size, zoom): tuple(_reduced(p.shape, size, zoom) for p in pictures)
            for size in sizes
            for zoom in self._zooms
        }
        plans = [_Plan(shapes) for shapes in dict.fromkeys(layouts.values())]
        fits = 3 * sum(plan.total for plan in plans) <= memory_limit
        folder = None if fits else cache or _default_cache()
        stored = _store(pictures, plans, folder, _key(pictures, reduction), reduction)
        levels = {plan.shapes: plan.level(s.to(self.device)) for plan, s in zip(plans, stored, strict=True)}
        self._levels = {key: levels[shapes] for key, shapes in layouts.items()}

    def __len__(self) -> int:
        return self._pairs

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw crops; half of them are mirrored. See `dehaze.data.Source.batch`."""
        zoom = self._zooms[int(torch.randint(len(self._zooms), (), generator=generator))]
        level = self._levels[size, zoom]
        index = torch.randint(self._pairs, (count,), generator=generator)
        where = torch.rand((count, 2), generator=generator)
        mirrored = torch.rand((count,), generator=generator) < 0.5
        hazy, clear = self._hazy[index], self._clear[index]
        corner = _corners(level.sizes[hazy], size, where)
        return {
            "hazy": _crop(level, hazy, corner, size, mirrored),
            "clear": _crop(level, clear, corner, size, mirrored),
        }


def _corners(sizes: Tensor, crop: tuple[int, int], where: Tensor) -> Tensor:
    """Upper left corners, (N, 2), uniform over where the crop fits; `where` is (N, 2) in [0, 1)."""
    room = sizes - torch.tensor(crop)
    return (where * (room + 1)).long().minimum(room)


def _crop(level: _Level, index: Tensor, corner: Tensor, size: tuple[int, int], mirrored: Tensor) -> Tensor:
    """Cut crops: (N, 3, h, w) float32 in [0, 1]."""
    device = level.pixels.device
    rows = corner[:, :1] + torch.arange(size[0])  # (N, h)
    columns = torch.arange(size[1]).repeat(len(index), 1)  # (N, w)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + corner[:, 1:]
    first = level.starts[index, None] + rows * level.sizes[index, 1:]  # (N, h)
    # non_blocking: a plain copy would wait for the step that the device is still at
    first, columns = (t.to(device, non_blocking=True) for t in (first, columns))
    at = first[:, :, None] + columns[:, None, :]  # (N, h, w)
    return level.pixels[at].permute(0, 3, 1, 2).contiguous().float() / 255


@dataclass(frozen=True)
class _Picture:
    """A file to decode and the (height, width) it must have, once a border is cut away."""

    path: Path
    shape: tuple[int, int]


def _number(pairs: Sequence[Pair]) -> tuple[list[_Picture], Tensor, Tensor]:
    """List each picture once.

    Returns:
        The pictures; for each pair the places of its hazy and of its clear picture among them.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        shapes = pool.map(lambda pair: picture_shape(pair.hazy), pairs)
    places: dict[_Picture, int] = {}
    numbers = [
        [places.setdefault(_Picture(path, shape), len(places)) for path in (pair.hazy, pair.clear)]
        for pair, shape in zip(pairs, shapes, strict=True)
    ]
    hazy, clear = torch.tensor(numbers).T
    return list(places), hazy, clear


def _reduced(shape: tuple[int, int], size: tuple[int, int], zoom: float) -> tuple[int, int]:
    """Shape of a picture reduced until it covers `zoom` times a size; enlarged only where it must be."""
    cover = max(want / have for want, have in zip(size, shape, strict=True))
    scale = max(cover, min(1.0, cover * zoom))
    height, width = (max(want, round(have * scale)) for want, have in zip(size, shape, strict=True))
    return height, width


def _resize(pixels: Pixels, shape: tuple[int, int], reduction: Reduction) -> Pixels:
    if pixels.shape[:2] == shape:
        return pixels
    if reduction == "minimum" and shape[0] <= pixels.shape[0] and shape[1] <= pixels.shape[1]:
        return np.rint(255 * reduce(pixels, *shape, reduction)).astype(np.uint8)
    how = cv2.INTER_AREA if shape[0] < pixels.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, shape[::-1], interpolation=how), np.uint8)


@dataclass(frozen=True)
class _Plan:
    """Where each picture of a level goes in its flat storage."""

    shapes: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """Tells plans for the same pictures apart."""
        return hashlib.sha256(repr(self.shapes).encode()).hexdigest()[:8]

    @cached_property
    def total(self) -> int:
        """Pixels of all pictures."""
        return sum(h * w for h, w in self.shapes)

    def starts(self) -> Tensor:
        """First pixel of each picture."""
        areas = torch.tensor([0] + [h * w for h, w in self.shapes[:-1]])
        return areas.cumsum(0)

    def level(self, pixels: Tensor) -> _Level:
        """The level, once `pixels` (3 * total,) are filled in."""
        return _Level(pixels.view(-1, 3), self.starts(), torch.tensor(self.shapes))


def _store(
    pictures: Sequence[_Picture],
    plans: Sequence[_Plan],
    folder: Path | None,
    key: str,
    reduction: Reduction,
) -> list[Tensor]:
    """Decode every picture once for every plan, into memory or, given a folder, into memory-mapped files.

    Returns:
        For each plan its (3 * total,) uint8 pixels.
    """
    if folder is None:
        stores = [torch.empty(3 * plan.total, dtype=torch.uint8) for plan in plans]
        _fill(pictures, plans, stores, reduction)
        return stores
    paths = [folder / f"{key}-{plan.name}.rgb" for plan in plans]
    missing = [(path, plan) for path, plan in zip(paths, plans, strict=True) if not _complete(path, plan)]
    if missing:
        _make_room(folder, sum(3 * plan.total for _, plan in missing))
        with tempfile.TemporaryDirectory(dir=folder, prefix=".decoding-") as temporary:
            parts = [Path(temporary) / path.name for path, _ in missing]
            todo = [plan for _, plan in missing]
            _fill(pictures, todo, [_mapped(p, plan) for p, plan in zip(parts, todo, strict=True)], reduction)
            for part, (path, _) in zip(parts, missing, strict=True):
                part.replace(path)
    return [_mapped(path, plan) for path, plan in zip(paths, plans, strict=True)]


def _complete(path: Path, plan: _Plan) -> bool:
    return path.is_file() and path.stat().st_size == 3 * plan.total


def _mapped(path: Path, plan: _Plan) -> Tensor:
    """A file as a (3 * total,) uint8 tensor, created if it is not there."""
    return torch.from_file(str(path), shared=True, size=3 * plan.total, dtype=torch.uint8)


def _make_room(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"decoded pictures need {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free",
            "set XDG_CACHE_HOME to a folder on a larger disk, or train at a smaller size",
        )


def _fill(
    pictures: Sequence[_Picture],
    plans: Sequence[_Plan],
    stores: Sequence[Tensor],
    reduction: Reduction,
) -> None:
    targets = [
        (plan, plan.starts().tolist(), store.view(-1, 3).numpy())
        for plan, store in zip(plans, stores, strict=True)
    ]

    def work(number: int) -> None:
        picture = pictures[number]
        pixels = cut_to(read_picture(picture.path), picture.shape, picture.path)
        for plan, starts, store in targets:
            height, width = plan.shapes[number]
            reduced = _resize(pixels, (height, width), reduction)
            store[starts[number] : starts[number] + height * width] = reduced.reshape(-1, 3)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, range(len(pictures))))  # a list, so that the first error is raised


def _key(pictures: Sequence[_Picture], reduction: Reduction) -> str:
    """Short hash of which files there are, when they were last changed, and how they are reduced."""
    digest = hashlib.sha256(reduction.encode())
    for picture in pictures:
        found = picture.path.stat()
        digest.update(f"{picture.path.resolve()} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "dehaze" / "pairs"
