"""AOD-Net (Li et al., ICCV 2017, sections 3.2-3.3) as a point of reference: 1,761 parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dehaze.limits import Limits


@dataclass(frozen=True)
class AODNetConfig:
    """Shape of AOD-Net.

    Attributes:
        bias: The constant b of J = K I - K + b (their eq. 3); 1 as published.
    """

    bias: float = 1.0


class AODNet(nn.Module):
    """Five narrow convolutions estimate K(x); the answer is J = K I - K + b.

    Hazy RGB (N, 3, H, W) in [0, 1] -> clear RGB of the same shape, not clamped.
    """

    limits = Limits()

    def __init__(self, config: AODNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or AODNetConfig()
        self.conv1 = nn.Conv2d(3, 3, 1)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 3, 5, padding=2)
        self.conv4 = nn.Conv2d(6, 3, 7, padding=3)
        self.conv5 = nn.Conv2d(12, 3, 3, padding=1)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of each map that `forward_features` returns."""
        return (6, 6, 12)

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the answer and the three concatenations that feed conv3, conv4 and conv5."""
        x1 = torch.relu(self.conv1(x))
        x2 = torch.relu(self.conv2(x1))
        first = torch.cat((x1, x2), 1)
        x3 = torch.relu(self.conv3(first))
        second = torch.cat((x2, x3), 1)
        x4 = torch.relu(self.conv4(second))
        third = torch.cat((x1, x2, x3, x4), 1)
        k = torch.relu(self.conv5(third))
        return torch.relu(k * x - k + self.config.bias), [first, second, third]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W)."""
        return self.forward_features(x)[0]
