"""The affinity losses against a direct implementation in float64 that builds every matrix."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dehaze.affinity import (
    absolute_distance,
    affinity_loss,
    compare,
    divergence,
    pool_to_common,
    squared_distance,
    unit_positions,
)

MEASURES = ("l2", "l1", "kl")


def maps(channels: int, height: int, width: int, *, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def pooled(picture: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """(C, H, W) -> (C, height, width), H and W being multiples."""
    c, h, w = picture.shape
    return picture.reshape(c, height, h // height, width, w // width).mean(axis=(2, 4))


def cosines(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(C, h, w) -> (N, N), by the definition: one pair of positions at a time."""
    vectors = [picture[:, y, x] for y in range(picture.shape[1]) for x in range(picture.shape[2])]
    result = np.empty((len(vectors), len(vectors)))
    for i, j in itertools.product(range(len(vectors)), repeat=2):
        lengths = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
        result[i, j] = vectors[i] @ vectors[j] / lengths
    return result


def softmax_rows(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def direct(
    student: Tensor, teacher: Tensor, measure: str, grid: tuple[int, int], temperature: float
) -> float:
    values = []
    for own, guide in zip(student.numpy(), teacher.numpy(), strict=True):
        s, t = cosines(pooled(own, *grid)), cosines(pooled(guide, *grid))
        if measure == "l2":
            values.append(((s - t) ** 2).mean())
        elif measure == "l1":
            values.append(np.abs(s - t).mean())
        else:
            h, c = softmax_rows(s / temperature), softmax_rows(t / temperature)
            values.append((h * np.log(h / c)).sum(axis=1).mean())
    return float(np.mean(values))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_equals_the_direct_form(measure: str, temperature: float) -> None:
    student, teacher = maps(5, 32, 40), maps(9, 32, 40, seed=1)
    value = affinity_loss(student, teacher, measure=measure, temperature=temperature)
    expected = direct(student, teacher, measure, (8, 10), temperature)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_teacher_at_half_resolution_meets_the_student_on_the_smaller_grid(measure: str) -> None:
    student, teacher = maps(4, 64, 80), maps(7, 32, 40, seed=1)
    value = affinity_loss(student, teacher, measure=measure)
    assert value.item() == pytest.approx(direct(student, teacher, measure, (8, 10), 0.1), rel=1e-12)


def test_sizes_that_are_no_multiple_are_pooled_to_a_quarter_rounded_down() -> None:
    own, guide = pool_to_common(torch.rand(1, 3, 43, 50), torch.rand(1, 8, 45, 47))
    assert own.shape == (1, 3, 10, 11)
    assert guide.shape == (1, 8, 10, 11)


def test_small_maps_are_not_pooled_to_nothing() -> None:
    own, guide = pool_to_common(torch.rand(1, 3, 15, 20), torch.rand(1, 8, 120, 160))
    assert own.shape[2:] == guide.shape[2:] == (8, 8)
    tiny, _ = pool_to_common(torch.rand(1, 3, 1, 5), torch.rand(1, 8, 2, 9))
    assert tiny.shape == (1, 3, 1, 5)


def test_pooling_can_be_switched_off() -> None:
    student, teacher = maps(3, 4, 5), maps(4, 4, 5, seed=1)
    assert affinity_loss(student, teacher, pool=1.0).item() == pytest.approx(
        direct(student, teacher, "l2", (4, 5), 0.1), rel=1e-12
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_equal_finite_differences(measure: str) -> None:
    student, teacher = maps(3, 3, 5).requires_grad_(), maps(4, 3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: compare(s, t, measure, 0.2, 70), (student, teacher))


@pytest.mark.parametrize("measure", ["l1", "kl"])
@pytest.mark.parametrize("block", [1, 100, 2 * 24 * 7, 2 * 24 * 24, 10**9])
def test_the_size_of_blocks_changes_nothing(measure: str, block: int) -> None:
    def value_and_gradient(block: int) -> tuple[float, Tensor]:
        student = maps(5, 4, 6).requires_grad_()
        loss = compare(student, maps(9, 4, 6, seed=1), measure, 0.1, block)
        loss.backward()
        assert student.grad is not None
        return loss.item(), student.grad

    value, gradient = value_and_gradient(block)
    whole, whole_gradient = value_and_gradient(2 * 24 * 24)
    assert value == pytest.approx(whole, rel=1e-13)
    torch.testing.assert_close(gradient, whole_gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("measure", MEASURES)
class TestInvariances:
    """S holds cosines: lengths, rotations of channels and a common order of positions do not show."""

    def test_lengths(self, measure: str) -> None:
        student, teacher = maps(5, 4, 6), maps(9, 4, 6, seed=1)
        lengths = torch.rand(2, 1, 4, 6, dtype=torch.float64) * 10 + 0.1
        changed = compare(student * lengths, teacher * 3, measure)
        assert changed.item() == pytest.approx(compare(student, teacher, measure).item(), rel=1e-10)

    def test_rotations(self, measure: str) -> None:
        student, teacher = maps(5, 4, 6), maps(9, 4, 6, seed=1)
        rotation, _ = torch.linalg.qr(maps(1, 5, 5, batch=1, seed=2)[0, 0])
        changed = compare(torch.einsum("dc,bchw->bdhw", rotation, student), teacher, measure)
        assert changed.item() == pytest.approx(compare(student, teacher, measure).item(), rel=1e-10)

    def test_order_of_positions(self, measure: str) -> None:
        student, teacher = maps(5, 4, 6), maps(9, 4, 6, seed=1)
        changed = compare(student.flip(2, 3), teacher.flip(2, 3), measure)
        assert changed.item() == pytest.approx(compare(student, teacher, measure).item(), rel=1e-10)

    def test_order_of_positions_of_one_alone_matters(self, measure: str) -> None:
        student, teacher = maps(5, 4, 6), maps(9, 4, 6, seed=1)
        changed = compare(student.roll(1, 3), teacher, measure)
        assert changed.item() != pytest.approx(compare(student, teacher, measure).item(), rel=1e-6)

    def test_tiling_the_picture(self, measure: str) -> None:
        """Twice the picture has the same statistics: division by N^2 makes the value independent of N."""
        student, teacher = maps(5, 4, 6), maps(9, 4, 6, seed=1)
        changed = compare(student.repeat(1, 1, 2, 3), teacher.repeat(1, 1, 2, 3), measure)
        assert changed.item() == pytest.approx(compare(student, teacher, measure).item(), rel=1e-10)


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_affinities_cost_nothing_and_others_something(measure: str) -> None:
    student = maps(5, 8, 8)
    wider = torch.cat((student, torch.zeros_like(student)), dim=1)
    assert affinity_loss(student, wider, measure=measure).item() == pytest.approx(0, abs=1e-14)
    assert affinity_loss(student, maps(5, 8, 8, seed=1), measure=measure).item() > 1e-3


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_the_mean_of_its_pictures(measure: str) -> None:
    student, teacher = maps(5, 4, 6, batch=3), maps(9, 4, 6, batch=3, seed=1)
    one_by_one = [compare(student[i : i + 1], teacher[i : i + 1], measure).item() for i in range(3)]
    assert compare(student, teacher, measure).item() == pytest.approx(np.mean(one_by_one), rel=1e-12)


def test_divergence_runs_from_student_to_teacher() -> None:
    """KL is not symmetric: eq. 11 weighs by the student's distribution H."""
    student, teacher = unit_positions(maps(5, 4, 6)), unit_positions(maps(9, 4, 6, seed=1))
    h = (student @ student.mT / 0.3).softmax(dim=2)
    c = (teacher @ teacher.mT / 0.3).softmax(dim=2)
    expected = F.kl_div(c.log(), h, reduction="sum") / h.shape[:2].numel()
    assert divergence(student, teacher, 0.3).item() == pytest.approx(expected.item(), rel=1e-12)
    assert divergence(teacher, student, 0.3).item() != pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("measure", MEASURES)
def test_float32_is_close_to_float64_where_the_closed_form_cancels(measure: str) -> None:
    """Two nearly equal affinities: the terms of the closed form are of order 1, the value is 1e-5."""
    student = maps(16, 20, 30).abs()
    teacher = student + 0.01 * maps(16, 20, 30, seed=1)
    exact = compare(student, teacher, measure).item()
    value = compare(student.float(), teacher.float(), measure)
    assert value.dtype == torch.float32
    assert exact < 0.005
    assert value.item() == pytest.approx(exact, abs=5e-7)


@pytest.mark.parametrize("measure", MEASURES)
def test_autocast_does_not_reach_the_products(measure: str) -> None:
    student = maps(16, 20, 30).bfloat16().requires_grad_()
    teacher = maps(16, 20, 30, seed=1).bfloat16()
    plain = affinity_loss(student.float(), teacher.float(), measure=measure)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = affinity_loss(student, teacher, measure=measure)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == plain.item()
    assert student.grad is not None
    assert student.grad.dtype == torch.bfloat16
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("measure", MEASURES)
def test_maps_of_zeros_give_finite_gradients(measure: str) -> None:
    student = torch.zeros(1, 4, 8, 8, requires_grad=True)
    affinity_loss(student, torch.rand(1, 6, 8, 8), measure=measure).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any result of an operation had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else [result]:
            if isinstance(item, Tensor):
                self.elements = max(self.elements, item.numel())
        return result


@pytest.mark.parametrize("measure", MEASURES)
def test_the_matrix_is_never_built(measure: str) -> None:
    student, teacher = maps(4, 24, 30, batch=1).requires_grad_(), maps(6, 24, 30, batch=1, seed=1)
    positions, block = 24 * 30, 20_000
    with LargestTensor() as seen:
        compare(student, teacher, measure, 0.1, block).backward()
    assert seen.elements <= max(block, 6 * positions)
    with LargestTensor() as direct_form:
        (student.flatten(2).mT @ student.flatten(2)).square().mean().backward()
    assert direct_form.elements == positions**2


@pytest.mark.parametrize("measure", ["l1", "kl"])
def test_no_block_is_kept_for_the_backward_pass(measure: str) -> None:
    """Recomputation: what autograd saves must not grow with N^2."""
    student, teacher = maps(4, 24, 30, batch=1).requires_grad_(), maps(6, 24, 30, batch=1, seed=1)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compare(student, teacher, measure, 0.1, 20_000)
    assert max(kept) <= 6 * 24 * 30


def test_parts_agree_with_the_whole() -> None:
    student, teacher = maps(5, 4, 6), maps(9, 4, 6, seed=1)
    s, t = unit_positions(student), unit_positions(teacher)
    assert torch.equal(squared_distance(s, t), compare(student, teacher, "l2"))
    assert torch.equal(absolute_distance(s, t), compare(student, teacher, "l1"))
    torch.testing.assert_close(s.norm(dim=2), torch.ones(2, 24, dtype=torch.float64))
