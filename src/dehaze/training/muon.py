"""Muon: steps of equal size in every direction of a weight matrix (Jordan et al., 2024).

AdamW scales each value by itself, and the weights of a convolution then move along a few strong directions.
Muon replaces the momentum M = U S V^T of a weight matrix by U V^T, found by a few products of matrices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SMALLEST_SIDE = 8
"""Matrices with a smaller side, like biases, are AdamW's: there is little to orthogonalise."""

UPDATE_RMS = 0.2
"""Root mean square of an update, over the learning rate: AdamW's, so that one rate serves both (Liu et al.,
"Muon is Scalable for LLM Training", 2025, 2.2)."""

_POLYNOMIAL = 3.4445, -4.7750, 2.0315
"""Odd polynomial that, iterated, carries singular values in (0, 1] to about 1 (Jordan et al., 2024)."""

_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """Orthogonalised momentum for convolutions and linear layers, AdamW for everything else.

    A convolution (out, in, kh, kw) counts as the matrix (out, in kh kw). `torch.optim.Muon`, whose steps
    these are, takes only matrices, one after the other.

    Args:
        parameters: What to optimise.
        lr: Learning rate of both kinds.
        weight_decay: Decoupled weight decay of both kinds.
        momentum: Of the matrices, in Nesterov's form.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; the gradients of matrices are gone afterwards."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for parameter in filter(is_matrix, group["params"]):
                if parameter.grad is not None:
                    shapes.setdefault(_shape(parameter), []).append(parameter)
            for shape, alike in shapes.items():
                self._move(alike, shape, group)
        super().step()  # which passes over those without a gradient

    def _move(self, matrices: list[Tensor], shape: tuple[int, int], group: dict[str, Any]) -> None:
        gradients, moments = [], []
        for matrix in matrices:
            assert matrix.grad is not None
            gradients.append(matrix.grad.reshape(shape))
            moments.append(self._moment(matrix))
            matrix.grad = None
        torch._foreach_lerp_(moments, gradients, 1 - self._momentum)
        ahead = torch.stack(gradients).lerp(torch.stack(moments), self._momentum)
        moves = orthogonalise(ahead) * (UPDATE_RMS * max(shape) ** 0.5)
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        shaped = [move.view(matrix.shape) for matrix, move in zip(matrices, moves, strict=True)]
        torch._foreach_sub_(matrices, shaped, alpha=group["lr"])
        torch._foreach_add_([self.state[matrix]["step"] for matrix in matrices], 1)

    def _moment(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros((), device=matrix.device)  # AdamW asks for it when it loads a state
            state["momentum"] = matrix.new_zeros(_shape(matrix))
        return state["momentum"]  # type: ignore[no-any-return]


def is_matrix(parameter: Tensor) -> bool:
    """Whether `Muon` orthogonalises a parameter's steps."""
    return parameter.dim() >= 2 and min(_shape(parameter)) >= SMALLEST_SIDE


def _shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring all singular values near 1 (0.7 to 1.2) by the quintic Newton-Schulz iteration.

    Args:
        matrices: (N, rows, columns).

    Returns:
        (N, rows, columns).
    """
    a, b, c = _POLYNOMIAL
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.transpose(-1, -2) if tall else x
