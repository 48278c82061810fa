"""Muon against singular values, torch's own Muon and AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dehaze.training.muon import Muon, is_matrix, orthogonalise


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 40, 9), (1, 8, 8)])
def test_singular_values_become_one_and_directions_stay(shape: tuple[int, int, int]) -> None:
    matrices = some(*shape) * 1e-6
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ orthogonalise(matrices) @ vt.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.65
    assert values.max() < 1.25
    assert (inside - torch.diag_embed(values)).abs().max() < 1e-4


def test_nothing_stays_nothing() -> None:
    assert not orthogonalise(torch.zeros(1, 8, 9)).any()


@pytest.mark.parametrize("shape", [(16, 144), (144, 16)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    ours, theirs = nn.Parameter(some(*shape)), nn.Parameter(some(*shape))
    mine = Muon([ours], lr=0.1, weight_decay=0.3)
    # theirs multiplies bfloat16: hence the tolerance
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        ours.grad = some(*shape, seed=step)
        theirs.grad = some(*shape, seed=step)
        mine.step()
        other.step()
    start = some(*shape)
    moved = theirs.detach() - start
    assert (ours.detach() - theirs.detach()).norm() < 0.02 * moved.norm()


def test_a_convolution_moves_as_its_matrix_does_however_it_lies_in_memory() -> None:
    convolution = nn.Parameter(some(8, 4, 3, 3).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(some(8, 4, 3, 3).reshape(8, 36))
    convolution.grad = some(8, 4, 3, 3, seed=1).to(memory_format=torch.channels_last)
    matrix.grad = some(8, 4, 3, 3, seed=1).reshape(8, 36)
    Muon([convolution], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    assert torch.allclose(convolution.detach().reshape(8, 36), matrix.detach(), atol=1e-6)
    assert convolution.is_contiguous(memory_format=torch.channels_last)


def test_what_is_no_matrix_moves_as_by_adamw() -> None:
    shapes = [(16,), (3, 16, 3, 3), (16, 2, 1, 1), ()]
    ours, theirs = ([nn.Parameter(some(*shape)) for shape in shapes] for _ in range(2))
    assert not any(is_matrix(p) for p in ours)
    mine = Muon([*ours, nn.Parameter(some(16, 16))], lr=0.1, weight_decay=0.3)
    other = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.3, fused=True)
    for step in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = q.grad = some(*p.shape, seed=step)
        mine.step()
        other.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
