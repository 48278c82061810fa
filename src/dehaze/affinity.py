"""Feature affinity (paper 3.3, eq. 7-12): how alike two positions of a picture look to a network.

Both networks' maps are average-pooled, every pooled position's feature vector is scaled to length one, and
S = F F^T holds the cosine between each two of the N positions. The loss compares the student's S with the
teacher's, so the two may have different channel counts.

S has N^2 entries (1.27 GB in float32 for one 460 x 620 picture pooled to a quarter) and is never built: the
squared distance has a closed form in channel-by-channel products, the other two measures work through S in
blocks of rows and compute them again on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Measure = Literal["l2", "l1", "kl"]

_RowLoss = Callable[[Tensor, Tensor, int, int], Tensor]

POOL = 0.25
"""Pooled side over the map's side (3.3)."""

TEMPERATURE = 0.1
"""Softmax temperature of the divergence; the paper names none. Cosines span [-1, 1]: at 1 a row's largest and
smallest probability differ by a factor of e^2 at most, nearly uniform; at 0.1 by up to e^20."""

LEAST_SIDE = 8
"""Pooling stops at this side: the coarse maps of a small network would else shrink to a few positions, whose
affinities say nothing. Ours; pictures of the paper's size never get there."""

CPU_BLOCK, GPU_BLOCK = 2**20, 2**24
"""Entries of S held at a time, over the whole batch: 4 and 64 MiB in float32 for each of a few temporaries.
Caches are small, and a GPU pays for every launch."""

SHORTEST = 1e-4
"""Feature vectors shorter than this are not stretched to length one; it bounds the gradient at zero."""


def affinity_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    measure: Measure = "l2",
    pool: float = POOL,
    temperature: float = TEMPERATURE,
    block: int | None = None,
) -> Tensor:
    """Compare the affinities of two maps; gradients flow into both.

    Args:
        student: Maps (B, C, H, W) of the student on the hazy picture.
        teacher: Maps (B, D, H', W') of the teacher on the clear picture; sizes may differ.
        measure: ``l2`` (eq. 12), ``l1``, or ``kl`` (eq. 11).
        pool: See `pool_to_common`.
        temperature: See `divergence`.
        block: Entries of S held at a time by ``l1`` and ``kl``, None for what suits the device; it changes
            memory and speed, not the value.

    Returns:
        A scalar, averaged over the batch, in float32 (float64 for float64 maps).
    """
    return compare(*pool_to_common(student, teacher, pool), measure, temperature, block)


def pool_to_common(student: Tensor, teacher: Tensor, pool: float = POOL) -> tuple[Tensor, Tensor]:
    """Average-pool two batches of maps (B, *, H, W) to one grid (eq. 7 and 8).

    Each side of the grid is `pool` times the shorter of the two maps' sides, rounded down, but not under
    `LEAST_SIDE` unless a map is smaller than that.
    """
    sides = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    height, width = (max(int(side * pool), min(side, LEAST_SIDE)) for side in sides)
    size = height, width
    with _full_precision(student.device):
        return F.adaptive_avg_pool2d(_widen(student), size), F.adaptive_avg_pool2d(_widen(teacher), size)


def compare(
    student: Tensor,
    teacher: Tensor,
    measure: Measure = "l2",
    temperature: float = TEMPERATURE,
    block: int | None = None,
) -> Tensor:
    """Compare the affinities of maps (B, *, h, w) that are pooled already; see `affinity_loss`."""
    with _full_precision(student.device):
        s, t = unit_positions(student), unit_positions(teacher)
        if measure == "l2":
            return squared_distance(s, t)
        if measure == "l1":
            return absolute_distance(s, t, block)
        return divergence(s, t, temperature, block)


def unit_positions(maps: Tensor) -> Tensor:
    """Flatten space and scale each position's vector to length one: (B, C, h, w) -> (B, N, C)."""
    return F.normalize(_widen(maps).flatten(2).transpose(1, 2), dim=2, eps=SHORTEST)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the entries of S (eq. 12), exact and without S.

    ``|S_s - S_t|^2 = |F_s^T F_s|^2 - 2 |F_t^T F_s|^2 + |F_t^T F_t|^2`` (squared Frobenius norms), which costs
    N C^2 instead of N^2 C. The three terms are at most 1 after division by N^2, so what cancels leaves an
    absolute error of about 1e-7 in float32: a value that small may come out negative. The products must not
    be rounded (autocast is off here); rounding the *features*, as TF32 does, is harmless, for the identity
    then holds for the rounded ones.

    Args:
        student: Unit vectors (B, N, C).
        teacher: Unit vectors (B, N, D).
    """
    positions = student.shape[1]
    own = student.mT @ student / positions  # (B, C, C)
    cross = teacher.mT @ student / positions  # (B, D, C)
    target = teacher.mT @ teacher / positions  # (B, D, D)
    return (_energy(own) - 2 * _energy(cross) + _energy(target)).mean()


def absolute_distance(student: Tensor, teacher: Tensor, block: int | None = None) -> Tensor:
    """Mean absolute difference of the entries of S, in blocks of rows; arguments as `squared_distance`."""
    batch, positions, _ = student.shape
    return _over_rows(_absolute_rows, student, teacher, block) / (batch * positions**2)


def divergence(
    student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE, block: int | None = None
) -> Tensor:
    """Kullback-Leibler divergence KL(H || C) of student from teacher (eq. 11), averaged over rows.

    The paper does not say how S becomes a distribution: here each row of S / temperature goes through a
    softmax.

    Args:
        student: Unit vectors (B, N, C), giving H.
        teacher: Unit vectors (B, N, D), giving C.
        temperature: Above 0; smaller looks at each position's nearest kin only.
        block: Entries of S held at a time.
    """
    batch, positions, _ = student.shape
    scale = temperature**-0.5  # S / temperature = (F * scale) (F * scale)^T
    return _over_rows(_divergence_rows, student * scale, teacher * scale, block) / (batch * positions)


def _over_rows(part: _RowLoss, student: Tensor, teacher: Tensor, block: int | None) -> Tensor:
    """Add up `part` over blocks of rows, each recomputed in the backward pass so that none is kept."""
    batch, positions, _ = student.shape
    block = block or (CPU_BLOCK if student.device.type == "cpu" else GPU_BLOCK)
    rows = max(1, block // (batch * positions))
    total = student.new_zeros(())
    for start in range(0, positions, rows):
        stop = min(start + rows, positions)
        total = total + checkpoint(
            part, student, teacher, start, stop, use_reentrant=False, preserve_rng_state=False
        )
    return total


def _absolute_rows(student: Tensor, teacher: Tensor, start: int, stop: int) -> Tensor:
    return (_rows(student, start, stop) - _rows(teacher, start, stop)).abs().sum()


def _divergence_rows(student: Tensor, teacher: Tensor, start: int, stop: int) -> Tensor:
    log_h = _rows(student, start, stop).log_softmax(dim=2)
    log_c = _rows(teacher, start, stop).log_softmax(dim=2)
    return (log_h.exp() * (log_h - log_c)).sum()


def _rows(features: Tensor, start: int, stop: int) -> Tensor:
    """Rows of F F^T: (B, N, C) -> (B, stop - start, N)."""
    return features[:, start:stop] @ features.mT


def _energy(products: Tensor) -> Tensor:
    """Squared Frobenius norm of each matrix: (B, C, D) -> (B,)."""
    return products.square().sum(dim=(1, 2))


def _widen(maps: Tensor) -> Tensor:
    return maps if maps.dtype == torch.float64 else maps.float()


def _full_precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, enabled=False)
