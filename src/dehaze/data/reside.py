"""Find the hazy and clear pictures of a data set laid out like RESIDE, and say what is wrong with it.

RESIDE (Li et al., "Benchmarking Single-Image Dehazing and Beyond", 2019) circulates in many copies. What they
share is a folder of hazy pictures beside a folder of clear ones, and names that begin alike.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dehaze.errors import DataError

Pixels = npt.NDArray[np.uint8]
Split = Literal["train", "test"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

LAYOUTS = """ITS/{clear,hazy}            1.png          with 1_1_0.90179.png
OTS/{clear,hazy}            0001.jpg       with 0001_0.8_0.04.jpg
SOTS/indoor/{gt,hazy}       1400.png       with 1400_1.png
SOTS/outdoor/{gt,hazy}      0001.png       with 0001_0.8_0.2.jpg
train/{GT,hazy}, or any     picture.png    with picture.png
folder of such a pair"""
"""What `discover` understands, for messages and --help."""

BORDER = 10
"""Some copies keep the 640 x 480 clear frames beside hazy ones whose border of 10 pixels is cut away."""

_HAZY = ("hazy", "haze", "hazy_images", "input")
_CLEAR = ("gt", "clear", "clear_images", "clean", "groundtruth", "ground_truth", "target")
_TRAIN = frozenset({"train", "training", "its", "its_v2", "ots", "ots_beta", "ots_alpha"})
_TEST = frozenset({"test", "testing", "val", "valid", "validation", "sots", "hsts"})
_PER_PAIR = re.compile(r"\d+_(\d+|\d+_(0\.\d+|1(\.0+)?)|(0\.\d+|1(\.0+)?)_0\.\d+)")
"""Names of RESIDE's hazy pictures; some copies give them, or their beginning, to the truths too."""
_ROLE_AT_END = re.compile(r"_(?:hazy|haze|gt|clear|clean|input|target)$", re.IGNORECASE)
_SEARCH_DEPTH = 4
_DECODE = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # so that headers tell the decoded size
_THREADS = 16
_TAIL_BYTES = 4096
_EXAMPLES = 3


@dataclass(frozen=True)
class Pair:
    """A hazy picture and its truth.

    Attributes:
        hazy: The hazy picture.
        clear: The same scene without haze.
        scene: What pairs of the same clear picture share: the clear picture's name.
        level: Number of the hazy picture within its scene, if its name tells.
        airlight: A of eq. 1, if the name tells.
        beta: Scattering coefficient, if the name tells.
    """

    hazy: Path
    clear: Path
    scene: str
    level: int | None = None
    airlight: float | None = None
    beta: float | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file.

    Attributes:
        kind: What is wrong, in words that follow a count: "3 hazy pictures without a clear one".
        path: Which file.
        detail: What was found; empty if `kind` says it all.
    """

    kind: str
    path: Path
    detail: str = ""


@dataclass(frozen=True)
class Subset:
    """A folder of hazy pictures beside a folder of clear ones.

    Attributes:
        name: Its path under the root, such as ``SOTS/indoor``.
        hazy: Folder of hazy pictures.
        clear: Folder of clear pictures.
        split: Whether its path says it is for training or testing; None if it says neither.
    """

    name: str
    hazy: Path
    clear: Path
    split: Split | None


@dataclass(frozen=True)
class PairSet:
    """What was found under a root.

    Attributes:
        root: Where it was looked for.
        subsets: The pairs of folders that were read.
        pairs: Sound pairs, in natural order.
        problems: Files that belong to no sound pair.
    """

    root: Path
    subsets: tuple[Subset, ...]
    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def name(self) -> str:
        """Names of the subsets, for people."""
        return ", ".join(s.name for s in self.subsets)

    @cached_property
    def identity(self) -> dict[str, str | int]:
        """What the data is: count and a hash over names and file sizes, wherever the root lies."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            for path in (pair.hazy, pair.clear):
                digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return {"kind": "pairs", "name": self.name, "pairs": len(self), "sha256": digest.hexdigest()[:16]}

    def report(self) -> str:
        """What is wrong, one line a kind: how many, and the first examples; empty if nothing is."""
        kinds: dict[str, list[Problem]] = {}
        for problem in self.problems:
            kinds.setdefault(problem.kind, []).append(problem)
        return "\n".join(_summary(kind, found, self.root) for kind, found in kinds.items())

    def require_sound(self) -> PairSet:
        """Return itself if every file found its place.

        Raises:
            DataError: The report, and the layouts that are understood.
        """
        if not self.problems:
            return self
        raise DataError(
            f"{self.root} ({self.name}) has {len(self.pairs)} sound pairs and {len(self.problems)} problems:"
            f"\n{self.report()}",
            f"complete or remove them; expected:\n{LAYOUTS}",
        )


def discover(root: Path, split: Split | None = None) -> PairSet:
    """Find the pairs of a data set: the root may be the set itself, a part of it, or a folder around it.

    Sizes and readability are checked from the first and last bytes of each file; nothing is decoded.

    Args:
        root: Where to look.
        split: Of several subsets take those for training (ITS, OTS, train) or testing (SOTS, test); ones that
            do not say which serve as either, if none does. None takes all.

    Raises:
        DataError: No such folder, or nothing in it that looks like pairs of pictures.
    """
    if not root.is_dir():
        raise DataError(f"no data set folder at {root}", f"expected one of:\n{LAYOUTS}")
    subsets = _choose(find_subsets(root), split)
    if not subsets:
        raise _nothing_found(root, split)
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for subset in subsets:
        found, missing = _match(subset)
        pairs += found
        problems += missing
    pairs, broken = _sound(pairs)
    result = PairSet(root, subsets, tuple(pairs), tuple(problems + broken))
    if not pairs and not problems and not broken:
        raise DataError(
            f"{root} has the folders of a data set ({result.name}) but no pictures in them",
            f"expected files ending in {', '.join(sorted(SUFFIXES))} as in:\n{LAYOUTS}",
        )
    return result


def _nothing_found(root: Path, split: Split | None) -> DataError:
    others = ", ".join(s.name for s in find_subsets(root))
    if not others:
        return DataError(
            f"{root} holds no folder of hazy pictures beside a folder of clear ones",
            f"expected one of:\n{LAYOUTS}",
        )
    wanted, other = ("training", "testing") if split == "train" else ("testing", "training")
    return DataError(
        f"{root} holds nothing for {wanted}: by their names these are for {other}: {others}",
        f"expected one of:\n{LAYOUTS}",
    )


def read_pair(pair: Pair) -> tuple[Pixels, Pixels]:
    """Decode a pair.

    Returns:
        Hazy and clear, (H, W, 3) uint8 RGB of one shape; a clear picture that has kept RESIDE's border of 10
        pixels loses it.

    Raises:
        DataError: A picture is damaged, or the sizes do not agree.
    """
    hazy, clear = read_picture(pair.hazy), read_picture(pair.clear)
    return hazy, cut_to(clear, (hazy.shape[0], hazy.shape[1]), pair.clear)


def pictures_in(folder: Path) -> list[Path]:
    """Pictures that lie in a folder, hidden files left out, in order of their names.

    Raises:
        DataError: The folder is missing or holds none.
    """
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not paths:
        raise DataError(f"no pictures in {folder}: expected files ending in {', '.join(sorted(SUFFIXES))}")
    return paths


def read_picture(path: Path) -> Pixels:
    """Decode one picture to (H, W, 3) uint8 RGB.

    Raises:
        DataError: It is no picture, or damaged.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, _DECODE) if data.size else None
    if pixels is None:
        raise DataError(f"cannot read {path}: not a picture, or damaged")
    return np.asarray(pixels, np.uint8)


def picture_shape(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header.

    Raises:
        DataError: It is no picture, or cut short.
    """
    look = _look(path)
    if isinstance(look, str):
        raise DataError(f"cannot read {path}: {look}")
    return look[1], look[0]


def cut_to(pixels: Pixels, shape: tuple[int, int], path: Path) -> Pixels:
    """Cut a picture to (height, width) by taking RESIDE's border away, if that is what it has too much.

    Raises:
        DataError: It has another size.
    """
    height, width = pixels.shape[:2]
    if (height, width) == shape:
        return pixels
    if not sizes_agree(shape, (height, width)):
        raise DataError(
            f"{path} is {width} x {height} pixels, its partner {shape[1]} x {shape[0]}: they must agree"
        )
    return pixels[BORDER:-BORDER, BORDER:-BORDER]


def sizes_agree(hazy: tuple[int, ...], clear: tuple[int, ...]) -> bool:
    """Whether a clear picture is as large as its hazy one, or larger by RESIDE's border all round."""
    grown = tuple(side + 2 * BORDER for side in hazy)
    return tuple(clear) in (tuple(hazy), grown)


def find_subsets(root: Path) -> tuple[Subset, ...]:
    """Every folder that holds hazy and clear ones: the root, below it, or just above a root that is one."""
    if root.name.lower() in _HAZY + _CLEAR and _subset(root.parent, root.parent):
        root = root.parent
    found: list[Subset] = []
    _search(root, root, _SEARCH_DEPTH, found)
    return tuple(found)


def _search(folder: Path, root: Path, depth: int, found: list[Subset], above: tuple[Path, ...] = ()) -> None:
    subset = _subset(folder, root)
    if subset:
        found.append(subset)
    elif depth:
        for child in sorted(_folders(folder, above), key=lambda p: _natural(p.name)):
            _search(child, root, depth - 1, found, (*above, folder))


def _subset(folder: Path, root: Path) -> Subset | None:
    names = {child.name.lower(): child for child in _folders(folder)}
    hazy = next((names[n] for n in _HAZY if n in names), None)
    clear = next((names[n] for n in _CLEAR if n in names), None)
    if hazy is None or clear is None:
        return None
    named, below = root.resolve().name, folder.relative_to(root).parts
    return Subset("/".join(below or (named,)), hazy, clear, _split((*reversed(below), named)))


def _split(parts: Iterable[str]) -> Split | None:
    for part in parts:
        words = set(re.split(r"[^a-z0-9]+", part.lower())) | {part.lower()}
        if words & _TEST:
            return "test"
        if words & _TRAIN:
            return "train"
    return None


def _choose(subsets: tuple[Subset, ...], split: Split | None) -> tuple[Subset, ...]:
    if split is None:
        return subsets
    marked = tuple(s for s in subsets if s.split == split)
    return marked or tuple(s for s in subsets if s.split is None)


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Take a few pairs from everywhere: scenes far apart, and of their levels of haze another one each time.

    Args:
        pairs: In any order; stays as it is.
        count: How many, at least 0; all where there are fewer.
    """
    scenes: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        scenes.setdefault(pair.scene, []).append(i)
    few = min(count, len(scenes))
    chosen = [list(scenes.values())[i * len(scenes) // few] for i in range(few)]
    rounds = range(max(map(len, chosen), default=0))
    diagonal = [of[(i + r) % len(of)] for r in rounds for i, of in enumerate(chosen) if r < len(of)]
    return [pairs[i] for i in sorted(diagonal[:count])]


def _folders(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Folders in a folder; no hidden ones, nor links back to it or to those it was reached through."""
    passed = {path.resolve() for path in (*above, folder)}
    with os.scandir(folder) as entries:
        found = [Path(e.path) for e in entries if e.name[0] != "." and e.is_dir()]
    return [path for path in found if path.resolve() not in passed]


def _pictures(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Pictures in a folder and below it, in linked folders too, which OTS's parts may be."""
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and path.name[0] != ".":
            yield path
    for child in _folders(folder, above):
        yield from _pictures(child, (*above, folder))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 2.png before 10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _match(subset: Subset) -> tuple[list[Pair], list[Problem]]:
    """Pair the files of a subset by name."""
    clear: dict[str, Path] = {}
    problems: list[Problem] = []
    for path in sorted(_pictures(subset.clear), key=lambda p: _natural(p.name)):
        first = clear.setdefault(_ROLE_AT_END.sub("", path.stem), path)
        if first != path:
            problems.append(Problem("clear pictures of the same name", path, f"also {first.name}"))
    pairs: list[Pair] = []
    for path in sorted(_pictures(subset.hazy), key=lambda p: _natural(p.name)):
        stem = _ROLE_AT_END.sub("", path.stem)
        scene = next((s for s in _shorter(stem) if s in clear), None)
        if scene is None:
            problems.append(Problem("hazy pictures without a clear one", path))
        else:
            pairs.append(Pair(path, clear[scene], *_meaning(scene, stem)))
    used = {pair.clear for pair in pairs}
    problems += [Problem("clear pictures without a hazy one", p) for p in clear.values() if p not in used]
    return pairs, problems


def _shorter(stem: str) -> Iterator[str]:
    """The stem, then the stem without its last part, and so on: 1_1_0.9, 1_1, 1."""
    while stem:
        yield stem
        stem, _, _ = stem.rpartition("_")


def _meaning(scene: str, stem: str) -> tuple[str, int | None, float | None, float | None]:
    """Scene, level, airlight and beta as a hazy picture's name tells them."""
    rest = stem[len(scene) + 1 :]
    if _PER_PAIR.fullmatch(stem) and (not rest or "." in rest):
        scene, _, rest = stem.partition("_")
    match rest.split("_"):
        case [level] if level.isdecimal():
            return scene, int(level), None, None
        case [first, second] if (a := _number(first)) is not None and (b := _number(second)) is not None:
            # ITS writes index_A, outdoor sets A_beta; A is at least 0.5 and outdoor beta below it.
            if first.isdecimal() and b >= 0.5:
                return scene, int(first), b, None
            return scene, None, a, b
    return scene, None, None, None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _sound(pairs: list[Pair]) -> tuple[list[Pair], list[Problem]]:
    """Keep the pairs whose files can be read and agree in size, by their headers."""
    files = sorted({path for pair in pairs for path in (pair.hazy, pair.clear)})
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = dict(zip(files, pool.map(_look, files), strict=True))
    problems = [
        Problem("files that cannot be read", p, look) for p, look in looks.items() if isinstance(look, str)
    ]
    sound: list[Pair] = []
    for pair in pairs:
        hazy, clear = looks[pair.hazy], looks[pair.clear]
        if isinstance(hazy, str) or isinstance(clear, str):
            continue
        if sizes_agree(hazy, clear):
            sound.append(pair)
        else:
            detail = f"{hazy[0]} x {hazy[1]}, its clear picture {clear[0]} x {clear[1]}"
            problems.append(Problem("hazy pictures of another size than their clear one", pair.hazy, detail))
    return sound, problems


def _look(path: Path) -> tuple[int, int] | str:
    """Width and height of a picture from its header, or what is wrong with it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if not size:
                return "empty file"
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
            file.seek(0)
            with Image.open(file) as picture:
                ending = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(picture.format or "", b"")
                if ending not in tail:
                    picture.load()  # raises if it is cut short; else something was appended to it
                return picture.size
    except UnidentifiedImageError:
        return "not a picture"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return str(error)


def _summary(kind: str, problems: list[Problem], root: Path) -> str:
    examples = [
        f"{_below(p.path, root)} ({p.detail})" if p.detail else _below(p.path, root)
        for p in problems[:_EXAMPLES]
    ]
    more = ", ..." if len(problems) > _EXAMPLES else ""
    return f"  {len(problems)} {kind}: {', '.join(examples)}{more}"


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
