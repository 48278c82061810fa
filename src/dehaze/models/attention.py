"""Channel and pixel attention (paper 3.2, eq. 4-6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _pool(x: Tensor) -> Tensor:
    """Global average pool (N, C, H, W) -> (N, C, 1, 1); summed in float32 so that half precision holds."""
    return x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32).to(x.dtype)


class ChannelAttention(nn.Module):
    """Weight channels by a two-layer MLP on their global average (eq. 4 and 5).

    Args:
        channels: Number of channels C.
        hidden: Width of the hidden layer.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights (N, C, 1, 1) in (0, 1)."""
        return torch.sigmoid(self.expand(torch.relu(self.reduce(_pool(x)))))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.weights(x)


class PixelAttention(nn.Module):
    """Weight positions by a two-layer 1 x 1 MLP with one output (eq. 6).

    Args:
        channels: Number of channels C.
        hidden: Width of the hidden layer.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x))))
