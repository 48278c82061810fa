from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from dehaze.limits import Limits
from dehaze.training.recipe import Recipe, Stage
from dehaze.training.sources import DataSpec, build_data
from dehaze.training.validation import DehazeValidator, PairSet, SuperResolutionValidator
from dehaze.weights.checkpoint import Header

CPU = torch.device("cpu")
HEADER = Header(name="toy", architecture="student", config={}, parameters=0)


class Darker(nn.Module):
    """Takes a fifth off every value, which full-size transfer carries exactly."""

    limits = Limits()

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def picture(seed: int, height: int = 24, width: int = 32) -> npt.NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def pairs(*seeds: int) -> tuple[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], ...]:
    return tuple((picture(seed), picture(seed) // (seed + 2)) for seed in seeds)


def score(pair: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]) -> float:
    hazy, clear = pair
    return float(peak_signal_noise_ratio(clear, np.rint(hazy * 0.8).astype(np.uint8)))


def test_figures_are_the_mean_over_pictures_and_then_over_sets() -> None:
    sets = [PairSet("a", pairs(0)), PairSet("b", pairs(1, 2, 3))]
    judge = DehazeValidator(sets, CPU)
    figures = judge(Darker(), HEADER)
    means = {s.name: float(np.mean([score(pair) for pair in s.pairs])) for s in sets}
    assert figures == {
        "psnr": pytest.approx(np.mean(list(means.values())), abs=0.05),
        "psnr/a": pytest.approx(means["a"], abs=0.05),
        "psnr/b": pytest.approx(means["b"], abs=0.05),
    }
    assert abs(means["a"] - means["b"]) > 0.2  # or the order of the means would not show
    few = judge(Darker(), HEADER, limit=1)
    assert few["psnr/b"] == pytest.approx(score(sets[1].pairs[0]), abs=0.05)
    assert (judge.pictures(), judge.pictures(1)) == (4, 2)


def test_one_set_gives_one_figure() -> None:
    figures = DehazeValidator([PairSet("a", pairs(0, 1))], CPU)(Darker(), HEADER)
    assert figures == {"psnr": pytest.approx(np.mean([score(pair) for pair in pairs(0, 1)]), abs=0.05)}


class Nearest(nn.Module):
    """Enlarges by repeating pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_teacher_is_judged_on_what_it_enlarges() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (1, 3, 2), np.uint8)
    even = np.repeat(np.repeat(blocks, 64, 0), 64, 1)[..., [0, 1, 1]]
    clear = [picture(5, 25, 33), np.ascontiguousarray(even)]
    judge = SuperResolutionValidator(clear, 2, CPU)
    of_even = judge(Nearest(), HEADER)["psnr"] * 2 - judge(Nearest(), HEADER, limit=1)["psnr"]
    assert judge(Nearest(), HEADER, limit=1)["psnr"] < 35 < of_even
    reduced = torch.nn.functional.interpolate(
        torch.from_numpy(clear[0][:24, :32]).permute(2, 0, 1)[None].float() / 255,
        scale_factor=0.5,
        mode="bicubic",
        antialias=True,
    )
    answer = Nearest()(reduced).clamp(0, 1)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    expected = peak_signal_noise_ratio(clear[0][:24, :32], answer)
    assert judge(Nearest(), HEADER, limit=1)["psnr"] == pytest.approx(expected, abs=1e-6)


SCENES, LEVELS = 100, 2


@pytest.fixture(scope="module")
def reside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes whose pictures are one gray level each, their own."""
    root = tmp_path_factory.mktemp("ITS")
    for folder in ("clear", "hazy"):
        (root / folder).mkdir()
    for scene in range(SCENES):
        flat = np.full((16, 24, 3), 2 * scene, np.uint8)
        cv2.imwrite(str(root / "clear" / f"{scene}.png"), flat)
        for level in range(1, LEVELS + 1):
            cv2.imwrite(str(root / "hazy" / f"{scene}_{level}_0.8.png"), flat + level)
    return root


def recipe(task: str) -> Recipe:
    architecture = "teacher" if task == "super-resolution" else "student"
    return Recipe(task=task, architecture=architecture, stages=(Stage(((16, 24),), 50, steps=1),))  # type: ignore[arg-type]


def test_held_out_scenes_are_judged_and_never_trained_on(reside: Path) -> None:
    source, judge = build_data(DataSpec(roots=(reside,)), recipe("dehaze"), CPU)
    assert isinstance(judge, DehazeValidator)
    held = {int(clear[0, 0, 0]) // 2 for s in judge._sets for _, clear in s.pairs}
    generator = torch.Generator().manual_seed(0)
    batches = [source.batch(50, (16, 24), generator)["clear"] for _ in range(60)]
    trained = {int(value) // 2 for b in batches for value in (b[:, 0, 0, 0] * 255).round().tolist()}
    assert (len(held), judge.pictures()) == (2, 2 * LEVELS)
    assert trained == set(range(SCENES)) - held


def test_a_teacher_is_judged_on_each_truth_once(reside: Path) -> None:
    spec = DataSpec(roots=(reside,), validation=(reside,))
    held_out = build_data(DataSpec(roots=(reside,)), recipe("super-resolution"), CPU)[1]
    named = build_data(spec, recipe("super-resolution"), CPU)[1]
    assert (held_out.pictures(), named.pictures()) == (2, SCENES)
    assert build_data(spec, recipe("dehaze"), CPU)[1].pictures() == SCENES * LEVELS
