"""Write data sets in RESIDE's own names and layout from clear pictures with depth, by RESIDE's rules."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dehaze import haze
from dehaze.data import scenes
from dehaze.data.depth import find_frames, read_with_depth
from dehaze.data.reside import pictures_in, read_picture
from dehaze.errors import DataError, UsageError
from dehaze.parts import check_folder, write_whole

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Shot = Callable[[], tuple[Pixels, Floats]]
"""Gives a clear picture (H, W, 3) and its depth (H, W) when it is called."""

MOST_TEST_SCENES = 50
"""SOTS indoor has 50 scenes."""

_OURS = re.compile(r"\d+(_\d+)?(_[\d.]+)?\.png")


@dataclass(frozen=True)
class Layout:
    """How many scenes go where.

    Attributes:
        train: Scenes for ITS.
        test: Scenes for SOTS/indoor; their numbers follow those of ITS, as in RESIDE.
        per_scene: Hazy pictures of each ITS scene.
    """

    train: int
    test: int
    per_scene: int = 10

    @property
    def pictures(self) -> int:
        """Hazy pictures in all."""
        return self.train * self.per_scene + self.test * len(haze.SOTS_BETAS)


def plan(count: int, test: int | None = None, per_scene: int = 10) -> Layout:
    """Share scenes between ITS and SOTS.

    Args:
        count: Scenes there are.
        test: Scenes for SOTS; None takes a tenth, at least one of several and at most 50.
        per_scene: Hazy pictures of each ITS scene.

    Raises:
        UsageError: More test scenes than scenes.
    """
    if test is None:
        test = min(MOST_TEST_SCENES, max(1, round(count / 10))) if count > 1 else 0
    if not 0 <= test <= count:
        raise UsageError(f"--test is {test} but there are {count} scenes: expected 0 to {count}")
    return Layout(count - test, test, per_scene)


def shots_from_folders(clear: Path, depth: Path, border: int = 0, jobs: int | None = None) -> list[Shot]:
    """Clear pictures and the depth maps of the same name, in natural order; read when they are needed.

    Each is read once here, so that what cannot be used is told before anything is written. Depth maps are 8
    or 16 bit pictures (or float TIFF), larger is farther, the unit does not matter.

    Args:
        clear: Folder of clear pictures.
        depth: Folder of their depth maps.
        border: Pixels that are to be cut from each side.
        jobs: Threads; None takes one a CPU.

    Raises:
        DataError: See `dehaze.data.depth.find_frames` and `read_with_depth`.
        UsageError: The border leaves nothing of a picture.
    """
    shots: list[Shot] = [
        partial(read_with_depth, f.clear, f.depth) for f in find_frames(clear, depth) if f.depth
    ]
    with _pool(jobs) as pool:
        for shape in pool.map(lambda shot: shot()[1].shape, shots):
            check_border(border, *shape)
    return shots


def shots_from_scenes(
    count: int, size: tuple[int, int], seed: int = 0, textures: Path | None = None
) -> list[Shot]:
    """Procedural scenes, rendered when they are needed.

    Args:
        count: How many.
        size: Height and width.
        seed: Scene i of a seed is always the same.
        textures: Folder of photos to cover walls and ground with.

    Raises:
        DataError: The folder of textures holds no pictures, or damaged ones.
    """
    photos = [read_picture(path) for path in pictures_in(textures)] if textures else ()

    def shot(number: int) -> tuple[Pixels, Floats]:
        scene = scenes.render(np.random.default_rng((seed, number)), size, textures=photos)
        return scene.clear, scene.depth

    return [partial(shot, number) for number in range(1, count + 1)]


def write(
    shots: Sequence[Shot],
    root: Path,
    layout: Layout,
    *,
    seed: int = 0,
    border: int = 0,
    inputs: Sequence[Path] = (),
    overwrite: bool = False,
    jobs: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Write ``ITS/{clear,depth,hazy,trans}`` and ``SOTS/indoor/{gt,hazy}``.

    ITS (Li et al., 2019): each picture draws A in [0.7, 1] and beta in [0.6, 1.8]; A stands in its name.
    SOTS indoor: A = 1, beta = 0.5 + 0.1 k for k = 1..10. Both: t = exp(-beta d / max d), the maximum taken
    before any border is cut away. ``ITS/depth``, which RESIDE does not publish, serves `DepthSource` and its
    other kinds of haze: 16 bit PNG, 65535 is the scene's own maximum.

    Args:
        shots: One a scene.
        root: Where ITS and SOTS go.
        layout: See `plan`; train and test add up to the number of shots.
        seed: Equal seeds write equal files.
        border: Pixels to cut from each side; RESIDE cuts 10 from NYU's frames.
        inputs: Folders that the shots read from; they may not be among those that are written.
        overwrite: Replace an earlier data set; else folders that hold something are refused.
        jobs: Threads; None takes one a CPU.
        progress: Called after each scene.

    Raises:
        UsageError: See `check` and `check_border`.
        DataError: A picture or its depth cannot be used, or a file cannot be written.
    """
    assert layout.train + layout.test == len(shots)
    check(root, inputs, overwrite=overwrite)
    _prepare(root, layout)

    failed = threading.Event()

    def work(number: int) -> None:
        if failed.is_set():
            return
        try:
            make(number)
        except BaseException:
            failed.set()
            raise

    def make(number: int) -> None:
        picture, depth = shots[number - 1]()
        check_border(border, *depth.shape)
        clear = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        scene = _Scene(number, clear, torch.from_numpy(depth)[None, None], border)
        if number <= layout.train:
            _write_its(scene, root / "ITS", layout.per_scene, seed)
        else:
            _write_sots(scene, root / "SOTS" / "indoor")

    with _pool(jobs) as pool:
        for _ in pool.map(work, range(1, len(shots) + 1)):
            progress()


@dataclass(frozen=True)
class _Scene:
    """A scene's number, clear picture (1, 3, H, W) in [0, 1], depth (1, 1, H, W), and border to cut away."""

    number: int
    clear: Tensor
    depth: Tensor
    border: int

    def cut(self, pictures: Tensor) -> Tensor:
        """Take the border away."""
        b = self.border
        return pictures[..., b : pictures.shape[-2] - b, b : pictures.shape[-1] - b]


def _write_its(scene: _Scene, folder: Path, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + scene.number)
    airlight, beta = haze.sample_its(count, generator, "cpu")
    _save(folder / "clear" / f"{scene.number}.png", scene.cut(scene.clear))
    _save(folder / "depth" / f"{scene.number}.png", scene.cut(scene.depth / scene.depth.max()), np.uint16)
    for index, (a, b) in enumerate(zip(airlight.flatten().tolist(), beta.tolist(), strict=True), 1):
        name = f"{a:.5g}"  # the name is the truth: the picture is made with these digits
        t = haze.transmission(scene.depth, torch.tensor([b]))
        hazy = haze.add_haze(scene.clear, t, torch.tensor([[float(name)]]))
        _save(folder / "hazy" / f"{scene.number}_{index}_{name}.png", scene.cut(hazy))
        _save(folder / "trans" / f"{scene.number}_{index}.png", scene.cut(t))


def _write_sots(scene: _Scene, folder: Path) -> None:
    _save(folder / "gt" / f"{scene.number}.png", scene.cut(scene.clear))
    for level, beta in enumerate(haze.SOTS_BETAS, 1):
        t = haze.transmission(scene.depth, torch.tensor([beta]))
        hazy = haze.add_haze(scene.clear, t, torch.tensor([[haze.SOTS_AIRLIGHT]]))
        _save(folder / "hazy" / f"{scene.number}_{level}.png", scene.cut(hazy))


def _save(path: Path, picture: Tensor, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> None:
    """Write (1, C, H, W) in [0, 1] as a PNG of 8 or 16 bits, whole or not at all."""
    levels = (picture[0] * np.iinfo(dtype).max).round().permute(1, 2, 0).numpy()
    pixels = np.ascontiguousarray(levels[..., ::-1]).astype(dtype)  # cv2 writes BGR
    _, data = cv2.imencode(".png", pixels)
    try:
        write_whole(path, data.tobytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}",
            "make room or choose another folder with -o, and begin again with -y",
        ) from error


def check(root: Path, inputs: Sequence[Path] = (), *, overwrite: bool = False) -> None:
    """Refuse what `write` would refuse before its first picture; see there.

    Raises:
        UsageError: There is a file in the way, there is something in the folders already, or an input folder
            is one of them.
    """
    check_folder(root)
    folders = [folder for part in _folders(root) for folder in part]
    written = {folder.resolve() for folder in folders}
    for folder in inputs:
        if written & {folder.resolve(), *folder.resolve().parents}:
            raise UsageError(
                f"{folder} is to be read, and is one of the folders that are written",
                "choose another folder with -o",
            )
    filled = [folder for folder in folders if _is_filled(folder)]
    if filled and not overwrite:
        raise UsageError(
            f"{filled[0]} is not empty: pictures of two data sets would mix",
            "use -y to replace what is there",
        )


def check_border(border: int, height: int, width: int) -> None:
    """Refuse a border that leaves nothing of pictures of a size.

    Raises:
        UsageError: It leaves nothing.
    """
    if 2 * border >= min(height, width):
        raise UsageError(f"--border {border} leaves nothing of pictures of {width} x {height}")


def _folders(root: Path) -> tuple[list[Path], list[Path]]:
    """Those of ITS, and those of SOTS."""
    its = [root / "ITS" / name for name in ("clear", "depth", "hazy", "trans")]
    return its, [root / "SOTS" / "indoor" / name for name in ("gt", "hazy")]


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _prepare(root: Path, layout: Layout) -> None:
    """Make the folders, and take an earlier data set of ours out of them, all of it."""
    its, sots = _folders(root)
    for folder in filter(_is_filled, its + sots):
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
        with suppress(OSError):  # something else lies in it
            folder.rmdir()
    for folder in (its if layout.train else []) + (sots if layout.test else []):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _pool(jobs: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what is still to be done when the user interrupts."""
    pool = ThreadPoolExecutor(jobs or os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
