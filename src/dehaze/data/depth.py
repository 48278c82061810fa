"""Clear pictures with depth, kept as small integers on the training device; haze is made there, in batch.

With NYU frames and the ``its`` rule this *is* training on RESIDE ITS (Li et al., 2019), without its 13,990
files. Nothing is decoded inside the training loop.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dehaze import haze, working_copy
from dehaze.data.outdoor import pseudo_depth
from dehaze.data.reside import BORDER, pictures_in, read_picture
from dehaze.errors import DataError
from dehaze.limits import Reduction

Bytes = npt.NDArray[np.uint8]
HazeRule = Literal["its", "real", "mixed"]
View = Literal["whole", "crop"]
ZOOMS = (1.0, 1.15, 1.35)
"""Frames are kept at these multiples of the training size unless a recipe says otherwise."""
EPOCH_PER_FRAME = 10
"""RESIDE ITS has ten hazy pictures a clear one."""
LAYOUTS = 3
"""Depth maps drawn for a picture that comes without one; a batch takes any: nobody knows which is right."""
NEAREST_VIEW, TURN, STRETCH, TILT = 0.77, 4.0, 0.05, 0.03
"""Of a `warped` frame: the least share of its width and height; degrees to either side; deviation of the
logarithm of width over height; and how far a corner moves, as a share of its distance from the middle."""
_EXAMPLES = 3
_FRAME = 4
"""Pixels of a picture's edge that must be white to be a frame; NYU's is 6 to 8 wide."""
_WHITE = 240
_GRAY = 0.02
"""Difference between channels, as a share of the largest value, up to which a picture counts as gray."""


@dataclass(frozen=True)
class Frame:
    """One clear picture on disk and its depth map; None draws plausible ones (`dehaze.data.outdoor`)."""

    clear: Path
    depth: Path | None


def find_frames(clear: Path, depth: Path) -> list[Frame]:
    """Pair clear pictures with depth maps of the same stem, in natural order.

    Raises:
        DataError: A folder is missing or empty, or pictures lack their depth.
    """
    pictures, maps = _by_stem(clear), _by_stem(depth)
    missing = sorted(pictures.keys() - maps.keys())
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pictures)} pictures in {clear} have no depth map of the same name in "
            f"{depth}, for example {', '.join(missing[:3])}",
            "expected CLEAR/1.png with DEPTH/1.png",
        )
    order = sorted(pictures, key=lambda stem: (len(stem), stem))
    return [Frame(pictures[stem], maps[stem]) for stem in order]


def without_depth(clear: Path) -> list[Frame]:
    """Clear pictures whose depth is to be drawn, in natural order.

    Raises:
        DataError: The folder is missing or empty.
    """
    pictures = _by_stem(clear)
    return [Frame(pictures[stem], None) for stem in sorted(pictures, key=lambda stem: (len(stem), stem))]


def read_with_depth(clear: Path, depth: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Decode a clear picture and its depth map, both as their pixels are stored (EXIF does not turn them).

    Returns:
        Picture (H, W, 3) uint8 RGB and depth (H, W) in the file's own unit, finite, from 0 up.

    Raises:
        DataError: One cannot be read, they differ in size, or the second is no depth map: in colours, say.
    """
    picture = read_picture(clear)
    decoded = cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DataError(f"cannot read {depth}: not a picture, or damaged")
    values = np.asarray(decoded, np.float32)
    if values.ndim == 3:
        if np.ptp(values[..., :3], axis=2).max() > _GRAY * values[..., :3].max():
            raise DataError(
                f"{depth} is a picture in colours: expected a depth map, gray and larger for what is farther"
            )
        values = values[..., 0]
    if values.shape != picture.shape[:2]:
        raise DataError(
            f"{depth} is {values.shape[1]} x {values.shape[0]} pixels, its picture {clear} is "
            f"{picture.shape[1]} x {picture.shape[0]}: they must agree"
        )
    if not np.isfinite(values).all() or values.min() < 0 or values.max() <= 0:
        raise DataError(
            f"{depth} is no depth map: expected finite values from 0 up, larger for what is farther, "
            "not all of them 0"
        )
    return picture, values


def hazy_and_clear(frame: Frame) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A frame at full size with haze of SOTS indoor's kind (A = 1, beta = 1), and without: (H, W, 3) uint8.

    Raises:
        DataError: The picture or its depth cannot be read.
    """
    picture, (depth, *_) = _read_frame(frame)
    clear = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    one = torch.ones(1)
    t = haze.transmission(torch.from_numpy(depth)[None, None].float() / 255, beta=one, dmax=one)
    hazy = haze.add_haze(clear, t, torch.full((1, 1), haze.SOTS_AIRLIGHT))
    return (hazy[0].permute(1, 2, 0) * 255).round().byte().numpy(), picture


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in pictures_in(folder):
        other = found.setdefault(path.stem, path)
        if other != path:
            raise DataError(
                f"{folder} holds both {other.name} and {path.name}: pictures and depth maps are paired by "
                "name without ending, so each name may occur once",
                "rename or remove one of them",
            )
    return found


@dataclass(frozen=True)
class _Level:
    """All views of all frames at one resolution, padded to a common shape."""

    pictures: Tensor  # (N, 3, H, W) uint8
    depth: Tensor  # (N, maps, H, W) uint8, 255 is the frame's own maximum; several maps where they are drawn
    sizes: Tensor  # (N, 2) height and width of what is not padding


class DepthSource:
    """Batches of hazy and clear pictures made from clear + depth.

    Args:
        frames: What to train on.
        sizes: Every (height, width) that `batch` will be asked for; frames are kept reduced to fit them.
        device: Where frames stay and batches are made.
        rule: ``its``: gray airlight in [0.7, 1], beta in [0.6, 1.8] (RESIDE). ``real``: tinted and patchy
            haze through a camera (`dehaze.haze.sample_real`) before scenes of any brightness, some of
            which stays in the truth (`dehaze.haze.leave_some`).
            ``mixed``: half of each batch by either, chance deciding on an odd picture; but drawn depth is
            not what RESIDE's rule was made for.
        view: ``whole``: frames reduced until they just cover the size, so that a batch shows whole scenes.
            ``crop``: pieces of frames as they are.
        clear_share: Share of pictures left without haze, so that a network learns to leave them alone.
        white_share: Share of RESIDE's airlights that are 1 (`dehaze.haze.sample_its`).
        beta: Range of RESIDE's beta (`dehaze.haze.sample_its`).
        zooms: Multiples of the training size, from 1, at which ``whole`` frames are kept; a batch is cut
            from one of them.
        warps: Views of each ``whole`` frame kept instead of zooms, the first straight, the others `warped`;
            0 for zooms.
        varied_share: Share of pictures whose tones, colours and depth are bent (`dehaze.haze.vary`).
        painted_share: Share of pictures with a rectangle of pure colours (`dehaze.haze.paint`).
        kept_share: Share of the optical depth of real haze that stays in the truth.
        real: What real haze is drawn from.
        reduction: How ``whole`` frames are reduced. Where in a cell a channel has its ``minimum`` is decided
            under SOTS indoor's kind of haze (A = 1, beta = 1), for the mean of the depth maps if several are
            drawn; the cell's distance is the mean of its channels'.

    Raises:
        DataError: A picture or depth map cannot be read, or a crop does not fit into every frame.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        sizes: Iterable[tuple[int, int]],
        *,
        device: torch.device | str = "cpu",
        rule: HazeRule = "its",
        view: View = "whole",
        clear_share: float = 0.0,
        white_share: float = 0.0,
        beta: tuple[float, float] = haze.ITS_BETA,
        zooms: Sequence[float] = ZOOMS,
        warps: int = 0,
        varied_share: float = 0.0,
        painted_share: float = 0.0,
        kept_share: float = 0.1,
        real: haze.RealHaze = haze.REAL_HAZE,
        reduction: Reduction = "mean",
    ) -> None:
        self.device = torch.device(device)
        self.rule: HazeRule = rule
        self.clear_share = clear_share
        self.white_share = white_share
        self.beta = beta
        self.varied_share = varied_share
        self.painted_share = painted_share
        self.kept_share = kept_share
        self.real = real
        self._frames = len(frames)
        self._drawn = not all(f.depth for f in frames)
        self._zooms = (1.0,) if warps else tuple(zooms) if view == "whole" else (0.0,)
        sizes = list(sizes)
        wanted = sorted({_level_size(size, zoom) for size in sizes for zoom in self._zooms})
        self._levels = _build_levels(frames, wanted, self.device, reduction, warps)
        if view == "crop":
            _check_crops(self._levels[0, 0], sizes)
        files = [path for f in frames for path in (f.clear, f.depth) if path]
        names = "\n".join(f"{path.name} {path.stat().st_size}" for path in files)
        self.identity: dict[str, str | int] = {
            "kind": "clear+depth",
            "frames": len(frames),
            "rule": rule,
            "view": view,
            "clear_share": str(clear_share),
            "white_share": str(white_share),
            "varied_share": str(varied_share),
            "painted_share": str(painted_share),
            "zooms": " ".join(map(str, self._zooms)),
            "depth": "drawn" if self._drawn else "given",
            "sha256": hashlib.sha256(names.encode()).hexdigest()[:16],
        }
        if rule != "its":
            self.identity["kept_share"] = str(kept_share)
        if reduction != "mean":
            self.identity["reduction"] = reduction
        if warps:
            self.identity["warps"] = warps
        if rule != "real" and beta != haze.ITS_BETA:
            self.identity["beta"] = " ".join(map(str, beta))

    def __len__(self) -> int:
        return EPOCH_PER_FRAME * self._frames

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Make pictures: ``hazy`` and ``clear``, each (count, 3, height, width) float32 in [0, 1].

        Everything random comes from `generator`, so equal generators give equal batches.
        """
        zoom = self._zooms[int(torch.randint(len(self._zooms), (), generator=generator))]
        clear, depth = self._cut(self._levels[_level_size(size, zoom)], count, size, generator)
        if self.varied_share:
            clear, depth = haze.vary(clear, depth, self.varied_share, generator)
        if self.painted_share:
            clear, depth = haze.paint(clear, depth, self.painted_share, generator)
        if n := self._real(count, generator):
            clear = torch.cat((haze.relight(clear[:n], generator), clear[n:]))
        t, air = self._haze(depth, n, generator)
        hazy = haze.add_haze(clear, t, air)
        if n:
            truth = haze.leave_some(clear[:n], t[:n], air[:n], self.kept_share, self.real.hidden)
            camera_clear, camera_hazy = haze.photograph(truth, hazy[:n], generator)
            clear = torch.cat((camera_clear, clear[n:]))
            hazy = torch.cat((camera_hazy, hazy[n:]))
        return {"hazy": hazy, "clear": clear}

    def _real(self, count: int, generator: torch.Generator) -> int:
        """How many of a batch, its first, have real haze and a camera; the others follow RESIDE's rule."""
        if self.rule == "its":
            return 0
        if self.rule == "real" or self._drawn:
            return count
        odd = count % 2 and int(torch.randint(2, (), generator=generator))
        return count // 2 + odd

    def _cut(
        self, level: _Level, count: int, size: tuple[int, int], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(level.pictures), (count,), generator=generator)
        layout = torch.randint(level.depth.shape[1], (count,), generator=generator)
        room = level.sizes[index] - torch.tensor(size)  # (count, 2)
        corner = (torch.rand((count, 2), generator=generator) * (room + 1)).long().minimum(room)
        flip = torch.rand((count,), generator=generator) < 0.5
        columns = torch.arange(size[1]).repeat(count, 1)
        columns = torch.where(flip[:, None], columns.flip(1), columns) + corner[:, 1:]
        rows = torch.arange(size[0]) + corner[:, :1]
        frame, drawn, row, column = (  # non_blocking: a plain copy would wait for the device's current step
            values.to(self.device, non_blocking=True)
            for values in (index[:, None, None], layout[:, None, None], rows[:, :, None], columns[:, None, :])
        )
        clear = level.pictures.permute(0, 2, 3, 1)[frame, row, column].permute(0, 3, 1, 2).float() / 255
        depth = level.depth[frame, drawn, row, column][:, None].float() / 255
        return clear.contiguous(), depth

    def _haze(self, depth: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw haze for depth (N, 1, H, W) in [0, 1], real for the first n of them.

        Returns:
            Transmission (N, 1, H, W) and airlight (N, 3, H, W).
        """
        count, _, *size = depth.shape
        one = torch.ones(count, device=self.device)
        its_air, its_beta = haze.sample_its(count, generator, self.device, self.white_share, self.beta)
        air = its_air.view(-1, 1, 1, 1).expand(-1, 3, *size)
        beta = its_beta.view(-1, 1, 1, 1).expand(-1, 1, *size)
        if n:
            height, width = size
            real_air, real_beta, nearest = haze.sample_real(
                n, (height, width), generator, self.device, self.real
            )
            depth = torch.cat((nearest + (1 - nearest) * depth[:n], depth[n:]))
            air = torch.cat((real_air, air[n:]))
            beta = torch.cat((real_beta, beta[n:]))
        if self.clear_share:
            drawn = torch.rand((count, 1, 1, 1), generator=generator)
            beta = beta * (drawn.to(self.device, non_blocking=True) >= self.clear_share)
        return haze.transmission(depth, beta, one), air


def _check_crops(level: _Level, sizes: Iterable[tuple[int, int]]) -> None:
    """Refuse crops that are larger than a frame, those of late stages too."""
    smallest = level.sizes.amin(0).tolist()
    for size in sizes:
        if size[0] > smallest[0] or size[1] > smallest[1]:
            raise DataError(
                f"crops of {size[1]} x {size[0]} pixels do not fit into pictures as small as "
                f"{smallest[1]} x {smallest[0]}",
                'choose smaller sizes, or view = "whole", in the recipe',
            )


def _level_size(size: tuple[int, int], zoom: float) -> tuple[int, int]:
    """What a level must cover, (height, width); (0, 0) stands for frames as they are."""
    return round(size[0] * zoom), round(size[1] * zoom)


def _build_levels(
    frames: Sequence[Frame],
    wanted: list[tuple[int, int]],
    device: torch.device,
    reduction: Reduction,
    warps: int = 0,
) -> dict[tuple[int, int], _Level]:
    def load(frame: Frame) -> list[list[tuple[Bytes, Bytes]]] | DataError:
        try:
            return read_views(frame, wanted, reduction, warps)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max_workers=4) as pool:
        loaded = list(pool.map(load, frames))
    problems = [row for row in loaded if isinstance(row, DataError)]
    rows = [row for row in loaded if not isinstance(row, DataError)]
    if problems:
        raise _broken(problems, len(frames))
    return {
        size: _stack([p for row in rows for p, _ in row[i]], [d for row in rows for _, d in row[i]], device)
        for i, size in enumerate(wanted)
    }


def read_views(
    frame: Frame, sizes: Iterable[tuple[int, int]], reduction: Reduction = "mean", warps: int = 0
) -> list[list[tuple[Bytes, Bytes]]]:
    """Read a frame and reduce its views to cover each size: see `cover` and `DepthSource`.

    Returns:
        For each size the frame as it is and `warps` - 1 `warped` ones, always the same.

    Raises:
        DataError: The picture or its depth cannot be read.
    """
    picture, maps = _read_frame(frame)
    views = [(picture, np.stack(maps))]
    name = zlib.crc32(frame.clear.name.encode())
    for n in range(1, warps):
        views.append(warped(*views[0], np.random.default_rng((name, n))))
    return [[cover(*view, size, reduction) for view in views] for size in sizes]


def warped(picture: Bytes, depths: Bytes, generator: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Show a part of a frame as another camera might: nearer, a little turned, stretched and tilted.

    The part is `NEAREST_VIEW` to 1 of the frame's width and height. Each pixel is one of the frame's, never a
    mean of several, so that the minimum of a cell stays as dark as in a photo.

    Args:
        picture: (H, W, 3).
        depths: (maps, H, W); distances are not changed.
        generator: Decides which part, and how much of the rest.

    Returns:
        Both, of the same shapes.
    """
    height, width = picture.shape[:2]
    extent = np.array((width, height))
    stretch = np.exp(generator.normal(0, STRETCH) / 2)
    angle = np.deg2rad(generator.uniform(-TURN, TURN))
    turn = np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
    half = generator.uniform(NEAREST_VIEW, 1) * extent * (stretch, 1 / stretch) / 2
    corners = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * half @ turn
    corners *= 1 + generator.uniform(-TILT, TILT, (4, 2))
    corners *= min(1.0, (extent / np.ptp(corners, axis=0)).min())
    corners += generator.uniform(size=2) * (extent - np.ptp(corners, axis=0)) - corners.min(axis=0)
    whole = np.array(((0, 0), (width, 0), (width, height), (0, height)))
    middle = np.float32(0.5)  # corners lie at the edges of pixels, and OpenCV counts from their middles
    into = cv2.getPerspectiveTransform(whole.astype(np.float32) - middle, corners.astype(np.float32) - middle)

    def view(pixels: Bytes) -> Bytes:
        how = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        seen = cv2.warpPerspective(pixels, into, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(seen, np.uint8)

    return view(picture), np.stack([view(depth) for depth in depths])


def _broken(problems: Sequence[DataError], count: int) -> DataError:
    first = "\n".join(f"  {problem.message}" for problem in problems[:_EXAMPLES])
    more = "\n  ..." if len(problems) > _EXAMPLES else ""
    return DataError(
        f"{len(problems)} of {count} frames cannot be used:\n{first}{more}",
        "repair or remove them; a depth map has its picture's name and size, 8 or 16 bit, larger is farther",
    )


def _stack(
    pictures: list[npt.NDArray[np.uint8]], depths: list[npt.NDArray[np.uint8]], device: torch.device
) -> _Level:
    sizes = torch.tensor([p.shape[:2] for p in pictures])
    height, width = (int(v) for v in sizes.amax(0))
    stacked = torch.zeros((len(pictures), height, width, 3), dtype=torch.uint8)
    maps = max(d.shape[0] for d in depths)
    depth = torch.zeros((len(pictures), maps, height, width), dtype=torch.uint8)
    for i, (p, d) in enumerate(zip(pictures, depths, strict=True)):
        stacked[i, : p.shape[0], : p.shape[1]] = torch.from_numpy(p)
        depth[i, :, : d.shape[1], : d.shape[2]] = torch.from_numpy(d)
    return _Level(stacked.to(device).permute(0, 3, 1, 2), depth.to(device), sizes)


def _read_upright(path: Path) -> npt.NDArray[np.uint8]:
    """A photo turned as its EXIF says: layouts are drawn for pictures whose sky is at the top."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DataError(f"cannot read {path}: not a picture, or damaged")
    return np.asarray(pixels, dtype=np.uint8)


def _read_frame(frame: Frame) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.uint8]]]:
    """Picture (H, W, 3) and depth maps (H, W), scaled so that 255 is the frame's own maximum."""
    if frame.depth is None:
        picture = _read_upright(frame.clear)
        name = zlib.crc32(frame.clear.name.encode())
        return picture, [pseudo_depth(picture, np.random.default_rng((name, n))) for n in range(LAYOUTS)]
    picture, depth = read_with_depth(frame.clear, frame.depth)
    scaled = depth * (255 / max(float(depth.max()), 1e-6))
    picture, whole = _without_white_frame(picture, scaled.round().astype(np.uint8))
    return picture, [whole]


def _without_white_frame(
    picture: npt.NDArray[np.uint8], depth: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Cut the white frame off a picture of NYU Depth v2 as RESIDE does, 10 pixels from each side.

    White at a known depth is a gauge of the haze that no photo has: a network would learn to read it.
    """
    sides = (picture[:_FRAME], picture[-_FRAME:], picture[:, :_FRAME], picture[:, -_FRAME:])
    if min(picture.shape[:2]) <= 2 * BORDER or min(float(side.mean()) for side in sides) < _WHITE:
        return picture, depth
    inside = slice(BORDER, -BORDER)
    return picture[inside, inside], depth[inside, inside]


def cover(
    picture: Bytes, depths: Bytes, size: tuple[int, int], reduction: Reduction = "mean"
) -> tuple[Bytes, Bytes]:
    """Reduce (or enlarge) a frame so that it just covers a size; nothing is cut away.

    Args:
        picture: (H, W, 3).
        depths: (maps, H, W), 255 is farthest.
        size: Height and width; (0, 0) leaves the frame as it is.
        reduction: See `DepthSource`.

    Returns:
        Both, (h, w, 3) and (maps, h, w).
    """
    if size == (0, 0):
        return picture, depths
    scale = max(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(s, round(p * scale)) for s, p in zip(size, picture.shape[:2], strict=True))
    if scale < 1 and reduction == "minimum":
        return _minimum(picture, depths, height, width)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def resize(pixels: Bytes) -> Bytes:
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8)

    return resize(picture), np.stack([resize(depth) for depth in depths])


def _minimum(picture: Bytes, depths: Bytes, height: int, width: int) -> tuple[Bytes, Bytes]:
    scene = working_copy.places(picture, height, width)
    distance = working_copy.places(np.ascontiguousarray(depths.transpose(1, 2, 0)), height, width)
    t = np.exp(-distance).mean(-1, keepdims=True)
    hazy = haze.SOTS_AIRLIGHT + (scene - haze.SOTS_AIRLIGHT) * t
    at = working_copy.cells(hazy, height, width).argmin(2)[:, :, None]  # (height, width, 1, channels)
    seen = np.take_along_axis(working_copy.cells(scene, height, width), at, 2)[:, :, 0]
    distances = working_copy.cells(distance, height, width)
    far = np.mean([np.take_along_axis(distances, at[..., [c]], 2)[:, :, 0] for c in range(3)], axis=0)
    picture, depths = (np.asarray(np.rint(255 * values), np.uint8) for values in (seen, far))
    return picture, np.ascontiguousarray(depths.transpose(2, 0, 1))
