"""How unsteady dehazed video is: frame by frame, and smoothed over time as `dehaze video` does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import tee
from typing import Any

import numpy as np
import numpy.typing as npt

from dehaze.bench.contenders import Contender
from dehaze.bench.report import FlickerRow
from dehaze.errors import VideoError
from dehaze.flicker import flicker
from dehaze.upsample import apply
from dehaze.video.source import Source
from dehaze.video.steady import DEFAULT_SECONDS, Steadier
from dehaze.working_copy import shrink

Frame = tuple[npt.NDArray[Any], float]
"""(H, W, 3) uint8 RGB, and when it is shown, in seconds."""


def measure_flicker(
    contenders: Sequence[Contender],
    video: str,
    *,
    seconds: float | None = None,
    smooth: float = DEFAULT_SECONDS,
    progress: Callable[[], None] = lambda: None,
) -> list[FlickerRow]:
    """Measure every method frame by frame, and every network smoothed as well; see `dehaze.flicker`.

    Args:
        contenders: Methods; untouched is left out, for it has no flicker by definition.
        video: A file, or what else `dehaze video` reads.
        seconds: How much of it to look at; None for all.
        smooth: Time constant of the smoothing, seconds.
        progress: Called after each frame of each pass.

    Raises:
        VideoError: The video cannot be read, or no two frames show the same scene.
    """
    return [
        _measure(contender, video, seconds, constant, progress)
        for contender in contenders
        if contender.name != "untouched"
        for constant in ((0.0, smooth) if contender.dehazer else (0.0,))
    ]


def count_passes(contenders: Sequence[Contender]) -> int:
    """How many times `measure_flicker` goes through the video."""
    return sum(2 if c.dehazer else 1 for c in contenders if c.name != "untouched")


def _measure(
    contender: Contender, video: str, seconds: float | None, smooth: float, progress: Callable[[], None]
) -> FlickerRow:
    count = 0

    def counted() -> Iterator[Frame]:
        nonlocal count
        for frame in frames(video, seconds):
            count += 1
            progress()
            yield frame

    # flicker() takes a frame of each in turn, so tee holds one frame, not the video
    hazy, kept = tee(counted())
    try:
        value = flicker((pixels for pixels, _ in hazy), _answers(contender, kept, smooth))
    except ValueError as error:
        raise VideoError(f"cannot measure flicker on {video}: {error}") from error
    return FlickerRow(contender.name, video.rpartition("/")[2], count, smooth, value)


def frames(video: str, seconds: float | None = None) -> Iterator[Frame]:
    """Decode a video's frames, as they are coded."""
    with Source(video, duration=seconds) as source:
        for parcel in source.parcels():
            if parcel.frame is not None:
                pixels = parcel.frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(pixels), float(parcel.pts * source.time_base)


def _answers(contender: Contender, shown: Iterator[Frame], smooth: float) -> Iterator[npt.NDArray[Any]]:
    dehazer, steadier = contender.dehazer, Steadier(smooth)
    for pixels, time in shown:
        if dehazer is None or smooth == 0:
            yield contender.answer(pixels)
            continue
        affine = dehazer.estimate(pixels)
        guide = shrink(pixels, *affine.gain.shape[:2])
        yield apply(pixels, steadier(affine, guide, time))
