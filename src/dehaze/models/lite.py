"""student-lite: a small U-shaped network for plain CPUs.

It looks at a small working copy of the whole scene and answers with two smooth maps, K and B of
J = I + K I - B; the full-resolution picture is made by local affine transfer (`dehaze.upsample`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dehaze.limits import Limits
from dehaze.models.attention import ChannelAttention, PixelAttention


@dataclass(frozen=True)
class LiteConfig:
    """Shape of student-lite.

    Attributes:
        shuffle: Space-to-depth factor before the first and after the last convolution.
        widths: Channels at each level of the U, finest first; each level halves the resolution.
        blocks: Residual blocks at each level (the same number going down and coming up; the last
            level has them once).
        reduction: Channel reduction inside the attention MLPs.
    """

    shuffle: int = 2
    widths: tuple[int, ...] = (16, 32)
    blocks: tuple[int, ...] = (5, 3)
    reduction: int = 8


class LiteBlock(nn.Module):
    """conv, ReLU, conv, channel attention, pixel attention, skip: the paper's inner block, made leaner."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        hidden = max(1, width // reduction)
        self.channel_attention = ChannelAttention(width, hidden)
        self.pixel_attention = PixelAttention(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width, H, W)."""
        y = self.conv2(torch.relu(self.conv1(x)))
        return torch.add(self.pixel_attention(self.channel_attention(y)), x)


def _stage(width: int, blocks: int, reduction: int) -> nn.Sequential:
    return nn.Sequential(*(LiteBlock(width, reduction) for _ in range(blocks)))


class Lite(nn.Module):
    """Dehazing network: hazy RGB (N, 3, H, W) in [0, 1] -> clear RGB of the same shape, not clamped.

    Any height and width from 1 works: the input is padded by its edge to the U's multiple and the answer
    is cropped back.
    """

    limits = Limits(tiling="discouraged")

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LiteConfig()
        widths, reduction = config.widths, config.reduction
        if len(widths) != len(config.blocks):
            raise ValueError(
                f"lite has widths {widths} but blocks {config.blocks}: expected one each a level"
            )
        planes = 3 * config.shuffle**2
        self.limits = Limits(multiple=config.shuffle * 2 ** (len(widths) - 1), tiling="discouraged")
        self.head = nn.Conv2d(planes, widths[0], 3, padding=1)
        self.down_stages = nn.ModuleList(
            _stage(w, n, reduction) for w, n in zip(widths, config.blocks, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up_stages = nn.ModuleList(
            _stage(w, n, reduction) for w, n in zip(widths[:-1], config.blocks[:-1], strict=True)
        )
        self.tail = nn.Conv2d(widths[0], 2 * planes, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        if self.tail.bias is not None:
            nn.init.zeros_(self.tail.bias)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of each map that `forward_features` returns."""
        return (self.config.widths[0], self.config.widths[-1], self.config.widths[0])

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the answer and three maps: finest level going down, coarsest level, finest coming up."""
        height, width = x.shape[-2:]
        multiple = self.limits.multiple
        padded = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        y = self.head(F.pixel_unshuffle(padded, self.config.shuffle))
        skips: list[Tensor] = []
        for stage, down in zip(self.down_stages, self.down, strict=False):
            y = stage(y)
            skips.append(y)
            y = down(y)
        y = coarsest = self.down_stages[-1](y)
        for level in reversed(range(len(skips))):
            y = F.interpolate(self.up[level](y), scale_factor=2.0, mode="nearest") + skips[level]
            y = self.up_stages[level](y)
        maps = F.pixel_shuffle(self.tail(y), self.config.shuffle)[..., :height, :width]
        gain, offset = maps.chunk(2, dim=1)  # K and B, each (N, 3, H, W)
        return x + gain * x - offset, [skips[0] if skips else coarsest, coarsest, y]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W)."""
        return self.forward_features(x)[0]
