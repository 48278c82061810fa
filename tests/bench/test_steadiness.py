from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dehaze.bench.contenders import Contender, gather
from dehaze.bench.steadiness import count_passes, frames, measure_flicker
from dehaze.dehazer import from_name
from dehaze.errors import VideoError
from dehaze.upsample import LocalAffine


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten frames of one still, textured scene."""
    path = tmp_path_factory.mktemp("clip") / "fog.mkv"
    coarse = np.random.default_rng(0).integers(60, 200, (12, 16, 3)).astype(np.uint8)
    still = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgr0"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


class Trembling:
    """Takes away a different amount of haze on every other frame."""

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._count = 0

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self._count += 1
        return pixels - np.uint8(10 + self._levels * (self._count % 2))


def test_flicker_is_the_change_of_what_is_taken_away(clip: str) -> None:
    contenders = [Contender(str(n), Trembling(n), str(n)) for n in (0, 4, 8)]
    rows = measure_flicker(contenders, clip)
    assert [row.flicker for row in rows] == pytest.approx([0, 4, 8], abs=0.05)
    assert {(row.video, row.frames, row.smooth) for row in rows} == {("fog.mkv", 10, 0.0)}


def test_networks_are_measured_frame_by_frame_and_smoothed(clip: str, checkpoints: dict[str, str]) -> None:
    contenders = gather([checkpoints["lite"]], device="cpu")
    seen: list[None] = []
    rows = measure_flicker(contenders, clip, seconds=0.2, progress=lambda: seen.append(None))
    assert [(r.method, r.smooth) for r in rows if r.method == "lite"] == [("lite", 0.0), ("lite", 0.5)]
    assert "untouched" not in {r.method for r in rows}
    assert len(rows) == count_passes(contenders)
    assert len(seen) == sum(r.frames for r in rows) == 5 * len(rows)


def test_smoothing_takes_most_of_the_trembling_away(clip: str, checkpoints: dict[str, str]) -> None:
    dehazer, count = from_name(checkpoints["lite"], device="cpu"), 0

    def estimate(pixels: np.ndarray) -> LocalAffine:
        nonlocal count
        count += 1
        gain = np.ones((36, 48, 3), np.float32)
        return LocalAffine(gain, gain * np.float32(-(10 + 8 * (count % 2)) / 255))

    dehazer.estimate = estimate
    single, smoothed = measure_flicker([Contender("t", Trembling(8), "t", dehazer=dehazer)], clip)
    assert single.flicker == pytest.approx(8, abs=0.05)
    assert 0.01 < smoothed.flicker < 2


def test_frames_come_with_their_times(clip: str) -> None:
    found = list(frames(clip))
    assert [time for _, time in found] == pytest.approx([i / 25 for i in range(10)], abs=0.001)
    assert {pixels.shape for pixels, _ in found} == {(96, 128, 3)}


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(VideoError):
        measure_flicker([Contender("a", lambda x: x, "a")], str(tmp_path / "a.mp4"))


def test_one_frame_has_no_flicker_to_measure(clip: str) -> None:
    with pytest.raises(VideoError, match="at least two frames"):
        measure_flicker([Contender("a", lambda x: x, "a")], clip, seconds=0.03)
