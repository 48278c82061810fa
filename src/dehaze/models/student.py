"""The paper's student network (3.2, Fig. 3), 96,007 parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dehaze.limits import Limits
from dehaze.models.activation import relu
from dehaze.models.attention import ChannelAttention, PixelAttention


@dataclass(frozen=True)
class StudentConfig:
    """Shape of the student; the defaults are the paper's network.

    Attributes:
        width: Channels of every feature map.
        outer_blocks: Number of outer blocks, each giving one distillation scale.
        inner_blocks: Inner blocks in each outer block.
        reduction: Channel reduction inside the attention MLPs of the inner blocks.
        fusion_hidden: Hidden width of the channel attention over the concatenated outer outputs.
    """

    width: int = 16
    outer_blocks: int = 3
    inner_blocks: int = 6
    reduction: int = 8
    fusion_hidden: int = 1


class InnerBlock(nn.Module):
    """conv, ReLU and skip; conv; channel attention; pixel attention; skip (3.2)."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        width, hidden = config.width, max(1, config.width // config.reduction)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.channel_attention = ChannelAttention(width, hidden)
        self.pixel_attention = PixelAttention(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width, H, W)."""
        y = relu(self.conv1(x)) + x
        y = self.pixel_attention(self.channel_attention(self.conv2(y)))
        return torch.add(y, x)


class OuterBlock(nn.Module):
    """Inner blocks, a convolution and a skip from the block's input (3.2)."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.inner = nn.Sequential(*(InnerBlock(config) for _ in range(config.inner_blocks)))
        self.conv = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width, H, W)."""
        return torch.add(self.conv(self.inner(x)), x)


class Student(nn.Module):
    """Dehazing network: hazy RGB (N, 3, H, W) in [0, 1] -> clear RGB of the same shape, not clamped.

    Any height and width from 1 works. Channel attention averages over the whole picture, so tiles differ
    from the whole.
    """

    limits = Limits(tiling="discouraged")

    def __init__(self, config: StudentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StudentConfig()
        width = config.width
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.outer = nn.ModuleList(OuterBlock(config) for _ in range(config.outer_blocks))
        self.fusion = ChannelAttention(width * config.outer_blocks, config.fusion_hidden)
        self.pixel_attention = PixelAttention(width, max(1, width // config.reduction))
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)  # starts as the identity: the global residual alone

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of each map that `forward_features` returns."""
        return (self.config.width,) * self.config.outer_blocks

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the answer (N, 3, H, W) and the outer blocks' outputs, each (N, width, H, W) (3.3)."""
        maps: list[Tensor] = []
        y = self.head(x)
        for block in self.outer:
            y = block(y)
            maps.append(y)
        stacked = torch.stack(maps, dim=1)  # (N, blocks, width, H, W)
        weights = self.fusion.weights(torch.cat(maps, dim=1))
        weights = weights.reshape(len(x), len(maps), -1, 1, 1)
        y = (stacked * weights).sum(dim=1)  # (N, width, H, W)
        y = self.tail(self.conv(self.pixel_attention(y)))
        return y + x, maps

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W)."""
        return self.forward_features(x)[0]
