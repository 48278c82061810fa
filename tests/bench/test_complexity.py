from __future__ import annotations

import pytest
import torch
from torch import nn

from dehaze.bench.complexity import flops
from dehaze.models import TEACHER_VARIANTS, build


def by_hooks(model: nn.Module, height: int, width: int) -> int:
    """Independent count: each place of a convolution's output (transposed: input) costs one kernel."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += 2 * layer.weight.numel() * places.shape[2] * places.shape[3]

    handles = [
        m.register_forward_hook(count)
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, height, width))
    for handle in handles:
        handle.remove()
    return total


def test_the_papers_student_at_its_own_size() -> None:
    pixels = 460 * 620
    body = 18 * (2 * 16 * 16 * 9 + 16 * 2 + 2) + 3 * 16 * 16 * 9  # inner blocks, outer convolutions
    per_pixel = 3 * 16 * 9 + body + (16 * 2 + 2) + 16 * 16 * 9 + 16 * 3 * 9
    once = 18 * 2 * 16 * 2 + 2 * 48
    assert flops(build("student"), 460, 620) == 2 * (per_pixel * pixels + once)
    assert flops(build("student"), 460, 620) / 1e9 == pytest.approx(53.4, abs=0.05)


def test_aod_net_is_its_weights_times_pixels() -> None:
    model = build("aod-net")
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 4)
    assert flops(model, 460, 620) == 2 * weights * 460 * 620
    assert flops(model, 460, 620) / 1e9 == pytest.approx(0.998, rel=0.003)  # the paper's Table 9


def test_fsrcnn_by_hand() -> None:
    per_pixel = 3 * 56 * 25 + 56 * 12 + 4 * 12 * 12 * 9 + 12 * 56 + 56 * 3 * 81
    assert flops(build("teacher", TEACHER_VARIANTS["fsrcnn"]), 20, 30) == 2 * per_pixel * 600


@pytest.mark.parametrize("architecture", ["student", "lite", "teacher", "aod-net"])
def test_every_network_agrees_with_a_count_by_hooks(architecture: str) -> None:
    model = build(architecture)
    assert flops(model, 40, 56) == by_hooks(model, 40, 56)


@pytest.mark.parametrize("variant", list(TEACHER_VARIANTS))
def test_every_teacher_agrees_with_a_count_by_hooks(variant: str) -> None:
    model = build("teacher", TEACHER_VARIANTS[variant])
    assert flops(model, 12, 10) == by_hooks(model, 12, 10)


def test_counting_leaves_the_network_alone_and_scales_with_the_batch() -> None:
    model = build("lite")
    assert flops(model, 32, 32, batch=3) == 3 * flops(model, 32, 32)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert flops(model.half(), 32, 32) == flops(build("lite"), 32, 32)
