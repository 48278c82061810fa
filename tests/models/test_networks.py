"""Every network: exact size, exact promises about input, and features that leave the forward pass alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dehaze.models import (
    ARCHITECTURES,
    TEACHER_VARIANTS,
    LiteConfig,
    StudentConfig,
    TeacherConfig,
    architecture_of,
    build,
    config_dict,
    count_parameters,
)

SIZES = [(1, 1), (1, 9), (7, 1), (13, 17), (24, 32)]


def _network(name: str) -> nn.Module:
    """A network whose every weight matters: zero-initialised layers are filled too."""
    torch.manual_seed(0)
    model = build(name).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("fsrcnn", 24_683),
        ("mc-fsrcnn", 38_427),
        ("relu-mc-fsrcnn", 37_911),
        ("dsc-mc-fsrcnn", 26_451),
        ("dscbn-mc-fsrcnn", 27_147),
    ],
)
@pytest.mark.parametrize("scale", [2, 4])
def test_teacher_family_has_the_papers_counts(variant: str, count: int, scale: int) -> None:
    model = build("teacher", replace(TEACHER_VARIANTS[variant], scale=scale)).eval()
    assert count_parameters(model) == count
    assert model(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


def test_student_has_the_papers_count() -> None:
    assert count_parameters(build("student")) == 96_007
    assert count_parameters(build("student")) + count_parameters(build("teacher")) == 122_458


def test_aod_net_has_its_papers_count() -> None:
    assert count_parameters(build("aod-net")) == 1_761


def test_lite_stays_within_the_papers_total() -> None:
    assert count_parameters(build("lite")) <= 122_458


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
def test_any_size_works_and_keeps_its_shape(name: str, size: tuple[int, int]) -> None:
    model = _network(name)
    scale = model.limits.scale
    with torch.no_grad():
        y = model(torch.rand(1, 3, *size))
    assert y.shape == (1, 3, size[0] * scale, size[1] * scale)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_do_not_change_the_answer(name: str) -> None:
    model = _network(name)
    x = torch.rand(2, 3, 20, 28)
    with torch.no_grad():
        y, maps = model.forward_features(x)
        assert torch.equal(y, model(x))
    assert tuple(m.shape[1] for m in maps) == model.feature_channels


def test_teacher_features_are_those_of_the_forward_pass() -> None:
    model = _network("teacher")
    x = torch.rand(1, 3, 10, 12)
    with torch.no_grad():
        _, maps = model.forward_features(x)
        alone = model.features(x)
    assert [m.shape[1] for m in maps] == [168, 36, 168]
    assert all(torch.equal(a, b) for a, b in zip(maps, alone, strict=True))


def test_channels_of_the_teacher_do_not_mix() -> None:
    model = _network("teacher")
    x = torch.rand(1, 3, 9, 9)
    changed = x.clone()
    changed[:, 1] += 0.3
    with torch.no_grad():
        difference = (model(changed) - model(x)).abs().amax(dim=(0, 2, 3))
    assert difference[1] > 0
    assert difference[0] == difference[2] == 0


@pytest.mark.parametrize("name", ["student", "lite"])
def test_fresh_dehazing_networks_start_as_the_identity(name: str) -> None:
    x = torch.rand(1, 3, 12, 16)
    model = build(name).eval()
    with torch.no_grad():
        assert torch.equal(model(x), x)


def test_student_follows_its_construction_step_by_step() -> None:
    """An independent forward pass written from section 3.2, with the network's own weights."""
    model = _network("student")
    x = torch.rand(1, 3, 11, 13)

    def attend(module: nn.Module, pooled: Tensor) -> Tensor:
        reduce, expand = module.get_submodule("reduce"), module.get_submodule("expand")
        return torch.sigmoid(expand(torch.relu(reduce(pooled))))

    with torch.no_grad():
        y = model.get_submodule("head")(x)
        outputs = []
        for outer in model.get_submodule("outer").children():
            entry = y
            for inner in outer.get_submodule("inner").children():
                z = torch.relu(inner.get_submodule("conv1")(y)) + y
                z = inner.get_submodule("conv2")(z)
                z = z * attend(inner.get_submodule("channel_attention"), z.mean((2, 3), keepdim=True))
                z = z * attend(inner.get_submodule("pixel_attention"), z)
                y = z + y
            y = outer.get_submodule("conv")(y) + entry
            outputs.append(y)
        stacked = torch.cat(outputs, 1)
        weighted = stacked * attend(model.get_submodule("fusion"), stacked.mean((2, 3), keepdim=True))
        y = weighted[:, :16] + weighted[:, 16:32] + weighted[:, 32:]
        y = y * attend(model.get_submodule("pixel_attention"), y)
        expected = model.get_submodule("tail")(model.get_submodule("conv")(y)) + x
        assert torch.allclose(model(x), expected, atol=1e-6)


def test_lite_crops_its_padding_away() -> None:
    """The answer on any size is that on the picture padded below and on the right by hand, and cropped."""
    model = _network("lite")
    multiple = model.limits.multiple
    x = torch.rand(1, 3, multiple * 2 - 1, multiple * 3 - 1)
    with torch.no_grad():
        padded = model(torch.nn.functional.pad(x, (0, 1, 0, 1), mode="replicate"))
        assert torch.equal(model(x), padded[..., :-1, :-1])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_survives_plain_values(name: str) -> None:
    model = build(name)
    again = build(architecture_of(model), config_dict(model))
    assert again.config == model.config
    assert architecture_of(again) == name


def test_unknown_architecture_and_setting_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown architecture 'unet'; known: student"):
        build("unet")
    with pytest.raises(ValueError, match="student has no setting depth"):
        build("student", {"depth": 3})


def test_lite_needs_blocks_at_every_level() -> None:
    with pytest.raises(ValueError, match=r"lite has widths \(8, 8\) but blocks \(1,\)"):
        build("lite", {"widths": [8, 8], "blocks": [1]})


@pytest.mark.parametrize("thin", [{"d": 1}, {"s": 2}])
def test_a_teacher_thinner_than_a_picture_works(thin: dict[str, int]) -> None:
    """It has no room to carry three colours through and begins at random, unlike the others."""
    model = build("teacher", {"multi_channel": False, **thin})
    with torch.no_grad():
        assert model(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)


def test_configs_are_frozen() -> None:
    for config in (StudentConfig(), LiteConfig(), TeacherConfig()):
        with pytest.raises(AttributeError):
            config.width = 3  # type: ignore[misc, union-attr]


@pytest.mark.parametrize("variant", ["fsrcnn", "mc-fsrcnn", "relu-mc-fsrcnn", "dsc-mc-fsrcnn"])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_new_teacher_interpolates(variant: str, scale: int) -> None:
    """Flat stays flat, and at 2x (cubic) a ramp stays that ramp, away from the borders."""
    model = build("teacher", replace(TEACHER_VARIANTS[variant], scale=scale))
    colour = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    border = slice(4 * scale, -4 * scale)
    inside = (..., border, border)
    flat = model(colour.expand(1, 3, 16, 20))[inside]
    torch.testing.assert_close(flat, colour.expand_as(flat))
    if scale == 2:
        ramp = torch.linspace(0, 1, 20)
        fine = (ramp[None, :] * colour).expand(1, 3, 16, 20)
        answer = model(fine)[inside]
        at = (torch.arange(40) + 0.5) / 2 - 0.5  # where output pixels lie among the input's
        expected = (at / 19 * colour).expand(1, 3, 32, 40)[inside]
        torch.testing.assert_close(answer, expected)
