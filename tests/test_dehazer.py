from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dehaze import dehazer
from dehaze.dehazer import Dehazer, from_name
from dehaze.errors import DehazeError, ModelError, UsageError
from dehaze.models import Limits, build
from dehaze.upsample import apply, fit, noise_variance, white
from dehaze.weights.checkpoint import Header, save_checkpoint
from dehaze.working_copy import reduce, shrink

DTYPES = [np.uint8, np.uint16, np.float32]


class Toy(nn.Module):
    """Answers 1.5 x - 0.2; counts what it is given."""

    limits = Limits()

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.seen: list[tuple[int, ...]] = []

    def __deepcopy__(self, memo: object) -> Toy:  # the dehazer's copy reports to the test's own list
        twin = type(self)()
        twin.seen = self.seen
        return twin

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return self.gain * x - 0.2


def _toy(working_size: int | None = None, **settings) -> tuple[Dehazer, Toy]:
    toy = Toy()
    return Dehazer(toy, Header("toy", "toy", working_size=working_size), device="cpu", **settings), toy


def _network(architecture: str) -> nn.Module:
    """Random weights; layers that start at zero too, or the network would be the identity."""
    torch.manual_seed(0)
    model = build(architecture)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model


def _dehazer(architecture: str, working_size: int | None = None, **settings) -> Dehazer:
    header = Header(architecture, architecture, working_size=working_size)
    return Dehazer(_network(architecture), header, device="cpu", **settings)


def _random(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).random((height, width, 3))
    return (values * white(np.dtype(dtype))).astype(dtype)


def _waves(height: int, width: int, dtype: type) -> np.ndarray:
    """A smooth picture: what a working copy can stand for."""
    y, x = np.mgrid[:height, :width] / 10
    values = 0.5 + 0.35 * np.stack([np.sin(x + y / 3), np.cos(y - x / 5), np.sin(x) * np.cos(y)], axis=-1)
    return (values * white(np.dtype(dtype))).astype(dtype)


def _expected(pixels: np.ndarray, strength: float = 1.0) -> np.ndarray:
    peak = white(pixels.dtype)
    x = pixels / peak
    return np.clip(x + strength * (1.5 * x - 0.2 - x), 0, 1) * peak


def _tolerance(dtype: type) -> float:
    return {"uint8": 0.51, "uint16": 1.0, "float32": 1e-6}[np.dtype(dtype).name]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_small_picture_gets_the_networks_own_answer(dtype: type, strength: float) -> None:
    dehaze, toy = _toy(working_size=50)
    pixels = _random(40, 50, dtype)
    result = dehaze(pixels, strength=strength)
    assert result.dtype == dtype
    assert toy.seen == [(1, 3, 40, 50)]
    np.testing.assert_allclose(result, _expected(pixels, strength), atol=_tolerance(dtype))


def test_pass_through_is_exact() -> None:
    """Bit for bit what the module itself answers, rounded."""
    dehaze = _dehazer("student", working_size=64)
    pixels = _random(48, 64)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        answer = _network("student").eval()(x)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    difference = np.abs(dehaze(pixels) - answer)
    assert difference.max() < 0.5 + 1e-3
    assert np.abs(answer - pixels).max() > 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_large_picture_is_seen_small_and_dehazed_in_full(dtype: type, strength: float) -> None:
    dehaze, toy = _toy(working_size=50)
    pixels = _waves(200, 150, dtype)
    result = dehaze(pixels, strength=strength)
    assert toy.seen == [(1, 3, 50, 38)]
    assert result.dtype == dtype
    error = np.abs(result.astype(float) - _expected(pixels, strength)) / white(np.dtype(dtype))
    assert error.max() < 0.01


def test_sixteen_bits_stay_sixteen_bits() -> None:
    dehaze, _ = _toy(working_size=16)
    ramp = np.linspace(30000, 33000, 256).round().astype(np.uint16)
    pixels = np.broadcast_to(ramp[None, :, None], (64, 256, 3)).copy()
    assert len(np.unique(dehaze(pixels))) == 256


@pytest.mark.parametrize("shape", [(40, 50), (200, 150)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_zero_is_the_input(shape: tuple[int, int], dtype: type) -> None:
    dehaze, toy = _toy(working_size=50)
    pixels = _random(*shape, dtype)
    result = dehaze(pixels, strength=0)
    np.testing.assert_array_equal(result, pixels)
    assert not np.shares_memory(result, pixels)
    assert toy.seen == []


@pytest.mark.parametrize(
    ("working_size", "resolution", "expected"),
    [
        (160, "auto", (90, 160)),
        (None, "auto", (720, 1280)),
        (160, "full", (1080, 1920)),
        (160, 640, (360, 640)),
        (160, 5000, (1080, 1920)),
        (160, 1, (1, 1)),
    ],
)
def test_working_shape(working_size: int | None, resolution: str | int, expected: tuple[int, int]) -> None:
    dehaze, _ = _toy(working_size=working_size, resolution=resolution)
    assert dehaze.working_shape(1080, 1920) == expected
    assert dehaze.working_shape(1920, 1080) == expected[::-1]


def test_sizes_may_be_numpys() -> None:
    dehaze, _ = _toy(resolution=np.int64(640), tile=np.int32(400))
    assert dehaze.working_shape(1080, 1920) == (360, 640)


def test_estimate_at_working_size_describes_the_networks_answer() -> None:
    dehaze, _ = _toy(working_size=64)
    pixels = _waves(32, 64, np.float32)
    affine = dehaze.estimate(pixels)
    assert affine.gain.shape == affine.offset.shape == (32, 64, 3)
    np.testing.assert_allclose(apply(pixels, affine), _expected(pixels), atol=0.005)


def test_the_checkpoint_says_how_far_answers_are_averaged() -> None:
    pixels, noise = _random(60, 80, np.float32), noise_variance(_random(60, 80, np.float32))
    for radius in (1, 4):
        dehaze = Dehazer(Toy(), Header("toy", "toy", working_size=40, transfer_radius=radius), device="cpu")
        guide = shrink(pixels, 30, 40)
        expected = fit(guide, dehaze.network(guide[None])[0], radius=radius, noise=noise)
        np.testing.assert_allclose(dehaze.estimate(pixels).gain, expected.gain, rtol=1e-5)


def test_the_checkpoint_says_what_of_a_picture_the_working_copy_shows() -> None:
    pixels, noise = _random(60, 80, np.float32), noise_variance(_random(60, 80, np.float32))
    for reduction in ("mean", "minimum"):
        dehaze = Dehazer(Toy(), Header("toy", "toy", working_size=40, reduction=reduction), device="cpu")
        guide = reduce(pixels, 30, 40, reduction)
        np.testing.assert_array_equal(dehaze.working_copy(pixels), guide)
        expected = fit(guide, dehaze.network(guide[None])[0], noise=noise)
        np.testing.assert_allclose(dehaze.estimate(pixels).offset, expected.offset, atol=1e-6)


class Shifted(Toy):
    """Answers that depend on where a pixel lies, so that a mirrored look differs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * torch.linspace(0, 1, x.shape[3])


@pytest.mark.parametrize("second", [20, 40, 50])
def test_the_checkpoint_says_whether_the_mirrored_picture_is_looked_at_too(second: int) -> None:
    """The mean of both looks' maps, the smaller of them enlarged as in use."""
    pixels, noise = _random(60, 80, np.float32), noise_variance(_random(60, 80, np.float32))
    dehaze = Dehazer(Shifted(), Header("toy", "toy", working_size=40, second_look=second), device="cpu")
    looks = [(30, 40), (second * 3 // 4 if second != 50 else 38, second)]
    assert dehaze.looks(60, 80) == looks
    parts = []
    for (height, width), step in zip(looks, (1, -1), strict=True):
        guide = shrink(pixels, height, width)
        answer = dehaze.network(np.ascontiguousarray(guide[:, ::step])[None])[0][:, ::step]
        part = fit(guide, answer, noise=noise)
        size = max(looks)[::-1]
        parts.append([cv2.resize(values, size) for values in (part.gain, part.offset)])
    found = dehaze.estimate(pixels)
    np.testing.assert_allclose(found.gain, (parts[0][0] + parts[1][0]) / 2, atol=1e-6)
    np.testing.assert_allclose(found.offset, (parts[0][1] + parts[1][1]) / 2, atol=1e-6)
    once = Dehazer(Shifted(), Header("toy", "toy", working_size=40), device="cpu").estimate(pixels)
    assert np.abs(once.offset - found.offset[: once.offset.shape[0], : once.offset.shape[1]]).max() > 0.01


def test_there_is_no_second_look_where_it_would_not_serve() -> None:
    header = Header("toy", "toy", working_size=40, second_look=30)
    assert Dehazer(Toy(), header, device="cpu").looks(30, 40) == [(30, 40)]
    for resolution, shape in ((20, (15, 20)), ("full", (60, 80))):
        dehaze = Dehazer(Toy(), header, device="cpu", resolution=resolution)  # type: ignore[arg-type]
        assert dehaze.looks(60, 80) == [shape]


class Squared:
    """A colour space whose values are square roots of sRGB's; notes what passes through."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def to_srgb(self, pixels: np.ndarray, *, clip: bool = True) -> np.ndarray:
        assert not clip
        self.sizes.append(pixels.shape)
        return pixels**2

    def from_srgb(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        return pixels**0.5


def test_colour_is_converted_on_the_working_copy_only() -> None:
    dehaze, _ = _toy(working_size=32)
    colour = Squared()
    pixels = np.full((128, 64, 3), 0.8, np.float32)
    result = dehaze(pixels, colour=colour)
    assert colour.sizes == [(32, 16, 3)]
    np.testing.assert_allclose(result, (1.5 * 0.8**2 - 0.2) ** 0.5, atol=1e-3)


def test_colour_is_converted_at_or_below_the_working_size_too() -> None:
    dehaze, _ = _toy(working_size=32)
    pixels = _random(20, 32, np.float32)
    expected = np.clip(1.5 * pixels**2 - 0.2, 0, 1) ** 0.5
    np.testing.assert_allclose(dehaze(pixels, colour=Squared()), expected, atol=1e-6)


class Wide(Squared):
    """A space twice as wide as sRGB."""

    def to_srgb(self, pixels: np.ndarray, *, clip: bool = True) -> np.ndarray:
        assert not clip
        return pixels * 2

    def from_srgb(self, pixels: np.ndarray) -> np.ndarray:
        return pixels / 2


def test_colours_outside_srgb_stay_outside() -> None:
    """The network sees 1 where the colour is 1.6 and answers 1; the 0.6 beyond comes back."""
    dehaze, _ = _toy(working_size=32)
    pixels = np.full((16, 16, 3), 0.8, np.float32)
    np.testing.assert_allclose(dehaze(pixels, colour=Wide()), 0.8, atol=1e-6)


@pytest.mark.parametrize("architecture", ["lite", "student", "aod-net"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (70, 1), (3, 2), (90, 70)])
def test_any_picture_gives_finite_results_of_its_own_shape(architecture: str, shape: tuple[int, int]) -> None:
    dehaze = _dehazer(architecture, working_size=32)
    for value in (0.0, 1.0, 0.5, None):
        pixels = _random(*shape, np.float32) if value is None else np.full((*shape, 3), value, np.float32)
        result = dehaze(pixels)
        assert result.shape == pixels.shape
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1


class Excited(Toy):
    """Answers pure green with more than float16 holds; in half precision with infinity."""

    def __deepcopy__(self, memo: object) -> Excited:
        return Excited()

    def forward(self, x: Tensor) -> Tensor:
        green = (x[:, 1:2] > 0.9) & (x[:, :1] < 0.1)
        much = 1e8 if self.gain.dtype == torch.float32 else torch.inf
        return torch.where(green, much, self.gain * x - 0.2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_an_answer_runs_away_the_picture_stays(precision: str) -> None:
    """As that of a network before colours that it never saw."""
    dehaze = Dehazer(Excited(), Header("toy", "toy", working_size=128), device="cpu", precision=precision)
    pixels = np.full((256, 256, 3), 0.5, np.float32)
    pixels[:32, :32] = (0, 1, 0)
    plain = dehaze(np.full((256, 256, 3), 0.5, np.float32))
    np.testing.assert_allclose(plain, 0.55, atol=0.01)
    assert not dehaze.warnings
    clear = dehaze(pixels)
    dehaze(pixels)
    (warning,) = dehaze.warnings
    assert warning.startswith("model 'toy' has no answer to some colours it was shown")
    np.testing.assert_allclose(clear[:28, :28], pixels[:28, :28], atol=0.01)
    np.testing.assert_allclose(clear[36:52, 36:52], 0.5, atol=0.01)
    np.testing.assert_allclose(clear[112:], 0.55, atol=0.01)
    fading = clear[48:112, 0, 0]
    assert np.diff(fading).min() > -0.001
    assert 0.52 < fading[32] < 0.53


def test_what_a_wide_gamut_shows_stays_where_an_answer_runs_away() -> None:
    dehaze = Dehazer(Excited(), Header("toy", "toy", working_size=64), device="cpu")
    pixels = np.full((64, 64, 3), (0, 1, 0), np.float32)
    np.testing.assert_allclose(dehaze(pixels, colour=Squared()), pixels, atol=1e-6)


def test_an_answer_that_is_not_finite_is_an_error() -> None:
    dehaze, _ = _toy()
    with pytest.raises(
        DehazeError, match="model 'toy' cannot compute this picture: its answer is not finite"
    ):
        dehaze.network(np.full((1, 4, 4, 3), np.nan, np.float32))


def test_network_takes_batches() -> None:
    dehaze = _dehazer("lite")
    batch = np.random.default_rng(0).random((3, 20, 30, 3)).astype(np.float32)
    answers = dehaze.network(batch)
    assert answers.flags.c_contiguous
    for one, answer in zip(batch, answers, strict=True):
        np.testing.assert_allclose(dehaze.network(one[None])[0], answer, atol=1e-5)


def test_full_resolution_in_tiles_equals_the_whole() -> None:
    """AOD-Net looks 7 pixels far, so tiles must not show at all (one level: ties in rounding)."""
    pixels = _random(150, 230)
    whole = _dehazer("aod-net", resolution="full", tile="off")
    tiles = _dehazer("aod-net", resolution="full", tile=64)
    assert np.abs(tiles(pixels).astype(int) - whole(pixels)).max() <= 1
    assert tiles.warnings == []


def test_tiles_of_a_network_with_global_statistics_are_warned_of() -> None:
    warned = _dehazer("student", resolution="full", tile=64)
    assert [w for w in warned.warnings if "tiles" in w]
    assert _dehazer("student", resolution="full").warnings == []
    assert _dehazer("student", tile="off").warnings == []


def test_tile_size_without_full_resolution_is_warned_of() -> None:
    assert "full" in _toy(tile=128)[0].warnings[0]


def test_auto_tiles_only_what_does_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    dehaze, toy = _toy(resolution="full")
    large = np.zeros((800, 900, 3), np.uint8)
    dehaze(large)
    monkeypatch.setattr(dehazer, "available_memory", lambda: 10**6)
    dehaze(large)
    assert toy.seen == [(1, 3, 800, 900)] + 4 * [(1, 3, 768, 768)]


def test_info_says_what_runs() -> None:
    info = _dehazer("lite", working_size=160).info
    assert (info.name, info.architecture, info.working_size) == ("lite", "lite", 160)
    assert (info.device, info.precision) == ("cpu", "fp32")
    assert info.parameters == sum(p.numel() for p in _network("lite").parameters())
    assert info.limits.tiling == "discouraged"


def test_bfloat16_on_the_cpu_stays_close() -> None:
    pixels = _random(60, 80)
    full, half = _dehazer("lite"), _dehazer("lite", precision="bf16")
    assert half.info.precision == "bf16"
    assert np.abs(full(pixels).astype(int) - half(pixels)).mean() < 0.5


def test_the_callers_network_is_left_alone() -> None:
    model = _network("lite").train()
    Dehazer(model, Header("lite", "lite"), device="cpu", precision="bf16")
    assert model.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())


def test_denormals_are_flushed() -> None:
    _toy()
    assert (torch.tensor([1e-39]) * 0.5).item() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16"}, "not for CPUs"),
        ({"precision": "int8"}, "unknown precision"),
        ({"resolution": 0}, "at least 1"),
        ({"resolution": "huge"}, "expected auto, full or a number"),
        ({"tile": 63, "resolution": "full"}, "at least 64"),
        ({"tile": "on"}, "expected auto, off or a number"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _toy(**settings)


def test_super_resolution_teacher_is_refused() -> None:
    with pytest.raises(UsageError, match="teacher"):
        Dehazer(build("teacher"), Header("teacher", "teacher"))


def test_network_that_does_not_hold_in_half_precision_is_refused() -> None:
    toy = Toy()
    toy.limits = Limits(half=False)
    with pytest.raises(UsageError, match="half precision"):
        Dehazer(toy, Header("toy", "toy"), device="cpu", precision="bf16")


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float64),
        np.zeros((4, 4, 3), np.int16),
    ],
)
def test_what_is_not_a_picture_is_refused(pixels: np.ndarray) -> None:
    dehaze, _ = _toy()
    for call in (dehaze, dehaze.estimate):
        with pytest.raises(UsageError, match="pixels"):
            call(pixels)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match="0 to 1"):
        _toy()[0](np.zeros((4, 4, 3), np.uint8), strength=strength)


def test_from_name_loads_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, _network("lite").state_dict(), Header("x", "lite", working_size=32))
    dehaze = from_name(str(path), device="cpu", resolution=16)
    assert dehaze.info.name == "x"
    pixels = _random(64, 48)
    np.testing.assert_array_equal(dehaze(pixels), _dehazer("lite", resolution=16)(pixels))
    with pytest.raises(ModelError):
        from_name(str(tmp_path / "missing.safetensors"))
