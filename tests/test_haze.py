from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dehaze import haze


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _pictures(n: int = 2, height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(1))


def test_transmission_is_the_closed_form() -> None:
    depth = torch.tensor([[0.0, 1.0], [2.0, 4.0]]).view(1, 1, 2, 2)
    t = haze.transmission(depth, torch.tensor([1.2]))
    expected = [[1.0, math.exp(-0.3)], [math.exp(-0.6), math.exp(-1.2)]]
    torch.testing.assert_close(t[0, 0], torch.tensor(expected))


def test_transmission_does_not_depend_on_the_unit_of_depth() -> None:
    metres = torch.rand((2, 1, 5, 6)) * 10
    beta = torch.tensor([0.6, 1.8])
    torch.testing.assert_close(haze.transmission(metres, beta), haze.transmission(metres * 1000, beta))


def test_transmission_of_a_crop_uses_the_maximum_it_is_given() -> None:
    depth = torch.rand((1, 1, 8, 8))
    whole = haze.transmission(depth, torch.tensor([1.0]))
    crop = haze.transmission(depth[..., 2:5, 2:5], torch.tensor([1.0]), depth.amax((1, 2, 3)))
    torch.testing.assert_close(crop, whole[..., 2:5, 2:5])


def test_transmission_without_any_depth_is_clear() -> None:
    t = haze.transmission(torch.zeros((1, 1, 3, 3)), torch.tensor([1.5]))
    assert torch.equal(t, torch.ones((1, 1, 3, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_add_haze_is_equation_one(channels: int) -> None:
    clear, t = _pictures(), torch.rand((2, 1, 24, 40))
    airlight = torch.rand((2, channels))
    hazy = haze.add_haze(clear, t, airlight)
    a = airlight.expand(2, 3)
    for n, c, y, x in [(0, 0, 0, 0), (1, 2, 23, 39), (0, 1, 5, 17)]:
        expected = float(clear[n, c, y, x] * t[n, 0, y, x] + a[n, c] * (1 - t[n, 0, y, x]))
        assert float(hazy[n, c, y, x]) == pytest.approx(expected, abs=1e-6)


def test_clear_air_and_infinite_distance() -> None:
    clear, airlight = _pictures(), torch.tensor([[0.8], [0.9]])
    torch.testing.assert_close(haze.add_haze(clear, torch.ones((2, 1, 24, 40)), airlight), clear)
    fog = haze.add_haze(clear, torch.zeros((2, 1, 24, 40)), airlight)
    torch.testing.assert_close(fog, airlight.view(2, 1, 1, 1).expand_as(clear))


def test_its_draws_fill_the_published_ranges(generator: torch.Generator) -> None:
    airlight, beta = haze.sample_its(4000, generator, "cpu")
    assert airlight.shape == (4000, 1)
    assert beta.shape == (4000,)
    for values, low, high in ((airlight, 0.7, 1.0), (beta, 0.6, 1.8)):
        assert low <= float(values.min()) < low + 0.01
        assert high - 0.01 < float(values.max()) <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02)


def test_beta_is_drawn_from_the_range_asked_for(generator: torch.Generator) -> None:
    _, beta = haze.sample_its(4000, generator, "cpu", beta=(0.55, 1.55))
    assert 0.55 <= float(beta.min()) < 0.56
    assert 1.54 < float(beta.max()) <= 1.55


def test_a_share_of_reside_airlights_is_white() -> None:
    """Half are SOTS indoor's 1, the others still cover ITS's range; no share draws what was drawn before."""
    airlight, beta = haze.sample_its(4000, torch.Generator().manual_seed(0), "cpu", white_share=0.5)
    before, same_beta = haze.sample_its(4000, torch.Generator().manual_seed(0), "cpu")
    white = airlight == haze.SOTS_AIRLIGHT
    assert abs(float(white.float().mean()) - 0.5) < 0.03
    assert torch.equal(airlight[~white], before[~white])
    assert torch.equal(beta, same_beta)
    assert not (before == haze.SOTS_AIRLIGHT).any()


def test_a_share_of_scenes_is_bent_and_black_white_and_the_farthest_point_stay(
    generator: torch.Generator,
) -> None:
    clear = torch.rand((400, 3, 6, 8), generator=generator)
    depth = torch.rand((400, 1, 6, 8), generator=generator)
    for ends in (clear, depth):
        ends[..., 0, 0], ends[..., 0, 1] = 0.0, 1.0
    bent, moved = haze.vary(clear, depth, 0.25, generator)
    changed = (bent != clear).flatten(1).any(1)
    assert 70 < int(changed.sum()) < 130
    assert torch.equal(changed, (moved != depth).flatten(1).any(1))
    for ends in (bent, moved):
        assert torch.equal(ends[..., 0, 0], torch.zeros_like(ends[..., 0, 0]))
        assert torch.equal(ends[..., 0, 1], torch.ones_like(ends[..., 0, 1]))
        assert float(ends.min()) >= 0
        assert float(ends.max()) <= 1


def test_scenes_are_bent_by_powers(generator: torch.Generator) -> None:
    """Without drift one exponent serves a whole depth map, without colour all channels; both in range."""
    clear = 0.1 + 0.8 * torch.rand((200, 3, 6, 8), generator=generator)
    depth = 0.1 + 0.8 * torch.rand((200, 1, 6, 8), generator=generator)
    even = haze.Variety(tone=1.0, colour=0.0, depth=0.5, drift=0.0)
    bent, moved = haze.vary(clear, depth, 1.0, generator, even)
    for before, after, stops in ((clear, bent, 1.0), (depth, moved, 0.5)):
        exponent = after.log() / before.log()
        torch.testing.assert_close(
            exponent, exponent[:, :1, :1, :1].expand_as(exponent), rtol=1e-3, atol=1e-4
        )
        drawn = exponent[:, 0, 0, 0].log2()
        assert -stops - 0.01 < float(drawn.min()) < -0.9 * stops
        assert 0.9 * stops < float(drawn.max()) < stops + 0.01
    still = haze.vary(clear, depth, 1.0, generator, haze.Variety(0.0, 0.0, 0.0, 0.0))
    torch.testing.assert_close(still, (clear, depth))
    drifting, _ = haze.vary(depth, depth, 1.0, generator, haze.Variety(0.0, 0.1, 0.0, 0.0))
    assert float((drifting.log() / depth.log())[:, :, 0, 0].std()) == pytest.approx(0.1, rel=0.2)


def test_rectangles_are_painted_in_pure_colours_and_half_of_them_in_front(generator: torch.Generator) -> None:
    clear, depth = torch.full((400, 3, 30, 40), 0.5), torch.full((400, 1, 30, 40), 0.7)
    painted, moved = haze.paint(clear, depth, 0.25, generator)
    touched = (painted != clear).any(1, keepdim=True)
    chosen = touched.flatten(1).any(1)
    assert 70 < int(chosen.sum()) < 130
    rows, columns = touched.any(3)[chosen, 0], touched.any(2)[chosen, 0]
    assert torch.equal(touched[chosen, 0], rows[:, :, None] & columns[:, None, :])  # each one rectangle
    for sides, length in ((rows.sum(1), 30), (columns.sum(1), 40)):
        assert 0.1 * length - 1 <= int(sides.min()) < 0.3 * length < 0.8 * length < int(sides.max())
    values = painted.permute(0, 2, 3, 1)[touched[:, 0]]
    assert 0.4 < float(((values == 0) | (values == 1)).float().mean()) < 0.6
    front = (moved == 0).flatten(1).any(1)
    assert torch.equal((moved == 0)[front], touched[front])
    assert torch.equal(moved[~front], depth[~front])
    assert 0.3 < float(front[chosen].float().mean()) < 0.7
    colours = [
        one.permute(1, 2, 0)[mask[0]].unique(dim=0) for one, mask in zip(painted, touched, strict=True)
    ]
    assert {len(found) for found in colours} == {0, 1, 2}
    assert 0.15 < sum(len(found) == 2 for found in colours) / int(chosen.sum()) < 0.45


def test_sots_levels_are_the_recovered_rule() -> None:
    betas = pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    assert betas == haze.SOTS_BETAS


def test_real_haze_is_tinted_patchy_and_repeatable() -> None:
    def draw() -> tuple[torch.Tensor, ...]:
        return haze.sample_real(64, (20, 30), torch.Generator().manual_seed(3), "cpu")

    airlight, beta, nearest = draw()
    again = draw()
    assert torch.equal(airlight, again[0])
    assert torch.equal(beta, again[1])
    assert airlight.shape == (64, 3, 20, 30)
    assert beta.shape == (64, 1, 20, 30)
    assert float(airlight.min()) > 0.3
    assert float(airlight.max()) <= 1
    assert float(beta.min()) > 0
    assert float((airlight[:, 2] - airlight[:, 0]).mean()) > 0  # bluish on average
    assert float(beta.log().std((2, 3)).max()) > 0.2  # some are patchy
    assert 0.05 < float(airlight.log().std((2, 3)).max()) < 0.12  # some are lit unevenly
    assert nearest.shape == (64, 1, 1, 1)
    assert float(nearest.min()) < 0.01
    assert 0.5 < float(nearest.max()) <= 0.6


def test_thin_haze_may_be_bluer_than_fog() -> None:
    even = haze.RealHaze(tint=0, glow=0, patchiness=0, blue=0.02, thin_blue=0.1, beta=(0.5, 2.0))
    airlight, beta, _ = haze.sample_real(64, (2, 3), torch.Generator().manual_seed(3), "cpu", even)
    red, blue = airlight[:, 0, 0, 0], airlight[:, 2, 0, 0]
    share = (math.log(2) - beta[:, 0, 0, 0].log()) / math.log(4)
    torch.testing.assert_close((blue - red) / (blue + red), 0.02 + 0.1 * share)


def test_airlight_may_differ_from_place_to_place(generator: torch.Generator) -> None:
    clear, t = _pictures(), torch.rand((2, 1, 24, 40), generator=generator)
    airlight = torch.rand((2, 3, 24, 40), generator=generator)
    torch.testing.assert_close(haze.add_haze(clear, t, airlight), clear * t + airlight * (1 - t))
    even = torch.tensor([[0.8, 0.7, 0.9], [0.6, 0.6, 0.5]])
    spread = even[:, :, None, None].expand(-1, -1, 24, 40)
    assert torch.equal(haze.add_haze(clear, t, spread), haze.add_haze(clear, t, even))


def test_haze_that_is_left_is_gray(generator: torch.Generator) -> None:
    clear, t = _pictures(), torch.rand((2, 1, 24, 40), generator=generator)
    airlight = torch.tensor([[0.9, 0.6, 0.3], [0.8, 0.8, 0.8]])
    gray = torch.tensor([[0.6], [0.8]])
    assert torch.equal(haze.leave_some(clear, t, airlight, 0.0, 0.0), clear)
    torch.testing.assert_close(haze.leave_some(clear, t, airlight, 1.0, 0.0), haze.add_haze(clear, t, gray))
    half_as_thick = haze.leave_some(clear, t, airlight, 0.5, 0.0)
    torch.testing.assert_close(half_as_thick, haze.add_haze(clear, t.sqrt(), gray))


def test_what_haze_hides_stays_hidden() -> None:
    clear, airlight = torch.zeros(1, 3, 1, 4), torch.ones(1, 1)
    t = torch.tensor([1.0, 0.5, 0.03, 0.0]).view(1, 1, 1, 4)
    left = haze.leave_some(clear, t, airlight, 0.0, 0.03)[0, 0, 0]
    torch.testing.assert_close(left, 1 - torch.tensor([1.0, 1.03 * 0.5 / 0.53, 1.03 / 2, 0.0]))


def test_new_light_keeps_black_and_white_and_doubles_the_darks(generator: torch.Generator) -> None:
    ramp = torch.linspace(0, 1, 101).view(1, 1, 1, 101).expand(1, 3, 4, 101)
    torch.testing.assert_close(haze.relight(ramp, generator, (0.0, 0.0)), ramp)
    brighter = haze.relight(ramp, generator, (1.0, 1.0))
    torch.testing.assert_close(brighter, 2 * ramp - ramp * ramp)  # 1 - (1 - J)^2
    drawn = haze.relight(ramp.expand(64, -1, -1, -1), generator)
    assert float(drawn.amin()) == 0
    assert float(drawn.amax()) == 1
    middle = drawn[:, 0, 0, 50]
    assert float(middle.min()) < 0.5 < 0.7 < float(middle.max())  # darker and much brighter ones


def test_noise_is_normalised_and_smooth(generator: torch.Generator) -> None:
    fields = haze.smooth_noise(5, (33, 47), generator)
    torch.testing.assert_close(fields.mean((2, 3)), torch.zeros(5, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(fields.square().mean((2, 3)), torch.ones(5, 1))
    step = (fields[..., 1:] - fields[..., :-1]).abs().mean()
    assert float(step) < 0.2  # low frequency: neighbours are alike


def test_one_camera_takes_both_pictures(generator: torch.Generator) -> None:
    """Without haze, noise and compression the two photographs are one."""
    clear = _pictures()
    a, b = haze.photograph(clear, clear, generator, haze.Camera(noise=0, jpeg=None))
    assert torch.equal(a, b)
    assert not torch.equal(a, clear)


def test_a_perfect_camera_changes_nothing(generator: torch.Generator) -> None:
    clear, hazy = _pictures(), _pictures() * 0.5
    perfect = haze.Camera(noise=0, exposure=0, gamma=0, vignette=0, jpeg=None)
    a, b = haze.photograph(clear, hazy, generator, perfect)
    torch.testing.assert_close(a, clear)
    torch.testing.assert_close(b, hazy)


def test_a_camera_exposes_bends_and_darkens_corners_within_its_strengths(generator: torch.Generator) -> None:
    """One strength at a time, on an even gray: stops, exponents, and light lost with the squared distance."""
    gray = torch.full((400, 3, 21, 31), 0.25)
    none = {"noise": 0.0, "exposure": 0.0, "gamma": 0.0, "vignette": 0.0}

    def drawn(**strength: float) -> torch.Tensor:
        return haze.photograph(gray, gray, generator, haze.Camera(**(none | strength), jpeg=None))[0]

    for values, low, high in (
        ((drawn(exposure=0.5) / 0.25).log2()[:, 0, 0, 0], -0.5, 0.5),
        (drawn(gamma=0.2).log()[:, 0, 0, 0] / math.log(0.25), 0.8, 1.2),
        (1 - drawn(vignette=0.3)[:, 0, 0, 0] / 0.25, 0.0, 0.3),
    ):
        assert low - 1e-4 <= float(values.min()) < low + 0.02
        assert high - 0.02 < float(values.max()) <= high + 1e-4
    light = drawn(vignette=0.3) / 0.25
    torch.testing.assert_close(light[..., 10, 15], torch.ones(400, 3))
    torch.testing.assert_close(1 - light[..., 10, 0], (1 - light[..., 0, 0]) / 2, atol=1e-4, rtol=0)


def test_only_a_share_of_pictures_is_compressed(generator: torch.Generator) -> None:
    clear = _pictures(200, 8, 8)
    lens = {"noise": 0.0, "exposure": 0.0, "gamma": 0.0, "vignette": 0.0}
    camera = haze.Camera(jpeg=(30, 40), jpeg_share=0.3, **lens)
    changed = (haze.photograph(clear, clear, generator, camera)[1] - clear).abs().amax((1, 2, 3)) > 1e-3
    assert 40 < int(changed.sum()) < 80


def test_camera_noise_and_compression_spare_the_truth(generator: torch.Generator) -> None:
    clear = _pictures()
    lens = {"exposure": 0.0, "gamma": 0.0, "vignette": 0.0}
    a, b = haze.photograph(
        clear, clear, generator, haze.Camera(noise=0.1, jpeg=(30, 50), jpeg_share=1, **lens)
    )
    torch.testing.assert_close(a, clear)
    assert float((b - clear).abs().mean()) > 0.01
    assert float(b.min()) >= 0
    assert float(b.max()) <= 1


@pytest.mark.parametrize("quality", [15, 50, 90])
def test_jpeg_resembles_a_real_encoder(quality: int) -> None:
    """Against Pillow's libjpeg without colour subsampling; a size that is no multiple of 8."""
    y, x = np.mgrid[0:45, 0:61]
    waves = [np.sin(x / 3 + y / 7), np.sin(x / 5) * np.cos(y / 4), np.cos((x - y) / 6)]
    pixels = np.clip(128 + 90 * np.dstack(waves), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(buffer)).astype(np.float64)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    ours = haze.jpeg(tensor, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255

    error, loss = (float(np.mean((expected - p) ** 2)) for p in (ours, pixels.astype(np.float64)))
    assert error < 0.15 * loss + 1.5


def test_jpeg_loses_more_at_lower_quality() -> None:
    clear = _pictures(3)
    loss = (haze.jpeg(clear, torch.tensor([10.0, 50.0, 95.0])) - clear).square().mean((1, 2, 3))
    assert loss[0] > loss[1] > loss[2]
