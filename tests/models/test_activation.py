"""Our ReLU is PyTorch's: values and gradients, bit by bit."""

from __future__ import annotations

import pytest
import torch

from dehaze.models.activation import relu


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7).to(dtype)
    x[0, 0] = 0.0  # where the gradient is a matter of convention
    x[0, 1, 0] = -0.0
    upstream = torch.randn(2, 3, 5, 7).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    relu(ours).backward(upstream)
    torch.relu(theirs).backward(upstream)
    assert torch.equal(relu(ours), torch.relu(theirs))
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    assert theirs.grad[0, 0].count_nonzero() == 0


def test_without_a_gradient_the_graph_is_plain() -> None:
    x = torch.tensor([-1.0, 2.0])
    assert relu(x).tolist() == [0.0, 2.0]
    with torch.no_grad():
        y = relu(x.requires_grad_())
    assert y.tolist() == [0.0, 2.0]
    assert not y.requires_grad
