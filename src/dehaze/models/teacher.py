"""The FSRCNN family of super-resolution teachers (paper 3.1, Fig. 2, Tables 1-4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dehaze.limits import Limits


@dataclass(frozen=True)
class TeacherConfig:
    """Which member of the FSRCNN family.

    Attributes:
        scale: Enlargement, 2 or 4.
        multi_channel: One single-channel network for each of R, G, B (eq. 2-3) instead of one RGB network.
        separable: Depthwise-separable shrink, mapping and expand layers (DSC, 3.1).
        batch_norm: Batch norm after each separable layer (DSCBN). The paper does not say where it stands:
            ours follows every shrink, mapping and expand layer, which gives 27,147 parameters where the
            paper prints 29.57K.
        activation: ``prelu`` (one slope a channel) or ``relu``.
        d: Channels of feature extraction and expansion.
        s: Channels of the mapping stage.
        m: Number of mapping layers.
    """

    scale: int = 2
    multi_channel: bool = True
    separable: bool = True
    batch_norm: bool = False
    activation: Literal["prelu", "relu"] = "prelu"
    d: int = 56
    s: int = 12
    m: int = 4


def _activation(config: TeacherConfig, channels: int) -> nn.Module:
    return nn.PReLU(channels) if config.activation == "prelu" else nn.ReLU()


def _layer(config: TeacherConfig, inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A plain or depthwise-separable convolution, batch norm where asked for, activation."""
    padding = kernel // 2
    layers: list[nn.Module]
    if config.separable:
        layers = [
            nn.Conv2d(inputs, inputs, kernel, padding=padding, groups=inputs),
            nn.Conv2d(inputs, outputs, 1),
        ]
    else:
        layers = [nn.Conv2d(inputs, outputs, kernel, padding=padding)]
    if config.batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, _activation(config, outputs))


def _interpolation_taps(size: int, scale: int) -> Tensor:
    """Weights of a deconvolution that interpolates, one side of a separable kernel.

    Cubic (Keys, 1981, a = -1/2) where the kernel is wide enough for its four neighbours, else linear. Output
    pixel o lies at (o + 1/2) / scale - 1/2 among the input's; of a kernel of 9, tap k reaches it from input
    (o + 4 - k) / scale.
    """
    distance = ((torch.arange(size) - (size - 1) / 2 + 0.5) / scale - 0.5).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    cubic = torch.where(distance < 1, near, far) * (distance < 2)
    taps = cubic if size >= 4 * scale else (1 - distance).clamp_min(0)
    for phase in range(scale):  # whatever fell outside the kernel is shared out, so that flat stays flat
        taps[phase::scale] /= taps[phase::scale].sum()
    return taps


class FSRCNN(nn.Module):
    """One FSRCNN branch: extraction, shrinking, mapping, expanding, deconvolution.

    Args:
        config: Family member.
        channels: Image channels in and out: 3 for the RGB network, 1 for a branch of the multi-channel one.
    """

    def __init__(self, config: TeacherConfig, channels: int) -> None:
        super().__init__()
        d, s = config.d, config.s
        self.extract = nn.Sequential(nn.Conv2d(channels, d, 5, padding=2), _activation(config, d))
        self.shrink = _layer(config, d, s, 1)
        self.mapping = nn.Sequential(*(_layer(config, s, s, 3) for _ in range(config.m)))
        self.expand = _layer(config, s, d, 1)
        self.deconv = nn.ConvTranspose2d(
            d, channels, 9, stride=config.scale, padding=4, output_padding=config.scale - 1
        )
        if not config.batch_norm and min(d, s) >= channels:  # it would undo it; fewer hold no picture
            self._start_as_interpolation()

    @torch.no_grad()
    def _start_as_interpolation(self) -> None:
        """Let the first channels carry the picture through to a deconvolution that interpolates.

        A random start needs thousands of steps to get as far as plain interpolation. Ours; the paper does not
        say how it started.
        """
        channels = self.deconv.out_channels
        convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        for conv in convolutions:
            middle = conv.kernel_size[0] // 2
            for c in range(channels):
                conv.weight[c] = 0
                conv.weight[c, c if conv.groups == 1 else 0, middle, middle] = 1
                if conv.bias is not None:
                    conv.bias[c] = 0
        taps = _interpolation_taps(self.deconv.kernel_size[0], self.deconv.stride[0])
        self.deconv.weight.zero_()
        for c in range(channels):
            self.deconv.weight[c, c] = torch.outer(taps, taps)
        if self.deconv.bias is not None:
            self.deconv.bias.zero_()

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, c, H, W) -> the maps after extraction, mapping and expanding, all of that height and width."""
        extracted = self.extract(x)
        mapped = self.mapping(self.shrink(extracted))
        return [extracted, mapped, self.expand(mapped)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> enlarged (N, c, sH, sW)."""
        enlarged: Tensor = self.deconv(self.features(x)[-1])
        return enlarged


class Teacher(nn.Module):
    """Super-resolution network: clear RGB (N, 3, H, W) in [0, 1] -> (N, 3, sH, sW), not clamped."""

    limits = Limits()

    def __init__(self, config: TeacherConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TeacherConfig()
        self.limits = Limits(scale=config.scale)
        branches = 3 if config.multi_channel else 1
        self.branches: list[FSRCNN] = nn.ModuleList(  # type: ignore[assignment]
            FSRCNN(config, 3 // branches) for _ in range(branches)
        )

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of each map that `forward_features` returns."""
        n = len(self.branches)
        return (n * self.config.d, n * self.config.s, n * self.config.d)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return three maps (extraction, mapping, expanding), branches joined; they guide a student (3.3)."""
        per_branch = [branch.features(part) for branch, part in self._parts(x)]
        return [torch.cat([maps[i] for maps in per_branch], dim=1) for i in range(3)]

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the enlarged picture and the three maps of `features`."""
        per_branch = [branch.features(part) for branch, part in self._parts(x)]
        answers = [branch.deconv(maps[-1]) for branch, maps in zip(self.branches, per_branch, strict=True)]
        joined = [torch.cat([maps[i] for maps in per_branch], dim=1) for i in range(3)]
        return torch.cat(answers, dim=1), joined

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, sH, sW)."""
        return torch.cat([branch(part) for branch, part in self._parts(x)], dim=1)

    def _parts(self, x: Tensor) -> list[tuple[FSRCNN, Tensor]]:
        """Pair each branch with its colour channel."""
        return list(zip(self.branches, x.chunk(len(self.branches), 1), strict=True))
