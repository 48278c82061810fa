"""What is learned: a task turns a batch into named losses, and the training loop knows nothing else.

A task is a module. What it trains is in its parameters, so that an optimiser, an average of weights or
DistributedDataParallel can take the task as it is; what it only consults (the frozen teacher) is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dehaze.affinity import POOL, TEMPERATURE, Measure, compare, pool_to_common
from dehaze.errors import TrainingError

Batch = Mapping[str, Tensor]
Losses = dict[str, Tensor]
PixelLoss = Literal["mse", "l1", "charbonnier", "rmse", "psnr"]
Guidance = Literal["hr", "lr"]

W_FA = 0.25
"""Weight of the feature affinity loss (Table 7)."""

CHARBONNIER_EPSILON = 1e-3
"""Width in [0, 1] of the rounded bottom of the Charbonnier and root mean square losses."""

PSNR_EPSILON = 10**-2.5
"""What counts as no error for the PSNR loss: beyond 50 dB an answer gains little by being better."""


def pixel_loss(answer: Tensor, truth: Tensor, kind: PixelLoss = "mse") -> Tensor:
    """How far answers are from the truth, both (N, ...) in [0, 1].

    ``mse``, ``l1`` and ``charbonnier`` are means over everything of the difference's square, magnitude and
    rounded magnitude. ``rmse`` is each picture's root mean square, averaged over pictures: as in the mean of
    PSNR, hard pictures do not outweigh easy ones (docs/experiments.md, 24). ``psnr`` is the mean of the
    natural logarithms of these roots: negative PSNR, 8.7 dB to a unit, for the end of a training (42).

    Computed in the wider type of the two: a bfloat16 answer meets a float32 truth in float32.
    """
    difference = answer - truth
    if kind == "mse":
        return difference.square().mean()
    if kind == "l1":
        return difference.abs().mean()
    squares = difference.square()
    if kind in ("rmse", "psnr"):
        squares = squares.flatten(1).mean(1)
    if kind == "psnr":
        return (squares + PSNR_EPSILON**2).log().mean() / 2
    return (squares + CHARBONNIER_EPSILON**2).sqrt().mean()


def downscale(pictures: Tensor, factor: int) -> Tensor:
    """Shrink (N, 3, H, W) by antialiased bicubic interpolation; sides round down, values stay in [0, 1]."""
    size = [max(1, side // factor) for side in pictures.shape[2:]]
    return F.interpolate(pictures, size=size, mode="bicubic", antialias=True).clamp(0, 1)


class Task(nn.Module, ABC):
    """What is to be learned.

    Attributes:
        model: The network being trained; its `state_dict` is what gets published.
        extras: Modules trained beside it and saved apart (projections); None if there are none.
    """

    def __init__(self, model: nn.Module, extras: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.extras = extras

    @abstractmethod
    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what the network is given and what it should answer, (N, 3, H, W) each in [0, 1]."""

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Return the scalar to minimise under ``total``, with gradient, and its named parts."""

    def forward(self, batch: Batch) -> Losses:
        """See `losses`; a call, so that DistributedDataParallel sees the whole step."""
        return self.losses(batch)


class DehazeTask(Task):
    """A dehazing network alone (eq. 14); batches hold ``hazy`` and ``clear``, (N, 3, H, W) in [0, 1].

    Args:
        model: Network from hazy to clear.
        loss: Pixel loss; the paper's is ``mse``.
    """

    def __init__(self, model: nn.Module, *, loss: PixelLoss = "mse") -> None:
        super().__init__(model)
        self.loss: PixelLoss = loss

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The hazy pictures and the clear ones."""
        return batch["hazy"], batch["clear"]

    def losses(self, batch: Batch) -> Losses:
        """Return ``total`` and ``pixel``, which are the same."""
        hazy, clear = self.pair(batch)
        pixel = pixel_loss(self.model(hazy), clear, self.loss)
        return {"total": pixel, "pixel": pixel.detach()}


class SuperResolutionTask(Task):
    """The teacher's own lesson: enlarge clear pictures (eq. 13).

    Batches hold ``clear``, (N, 3, H, W) in [0, 1]. The low-resolution input is the clear picture shrunk by
    `downscale`; pictures are cut at the right and the bottom to a multiple of the factor first.

    Args:
        model: Network that enlarges by `model.limits.scale`.
        loss: Pixel loss; the paper's is ``mse``.
    """

    def __init__(self, model: nn.Module, *, loss: PixelLoss = "mse") -> None:
        super().__init__(model)
        self.loss: PixelLoss = loss
        self.scale: int = model.limits.scale  # type: ignore[union-attr, assignment]

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The shrunken pictures and the pictures.

        Raises:
            TrainingError: The pictures are smaller than the factor.
        """
        clear = batch["clear"]
        height, width = (side - side % self.scale for side in clear.shape[2:])
        if not height or not width:
            raise TrainingError(
                f"{clear.shape[3]} x {clear.shape[2]} pictures are too small to learn {self.scale}x "
                f"super-resolution from: at least {self.scale} x {self.scale} pixels are needed"
            )
        clear = clear[..., :height, :width]
        return downscale(clear, self.scale), clear

    def losses(self, batch: Batch) -> Losses:
        """Return ``total``, the mean of ``red``, ``green`` and ``blue``: one loss a colour channel."""
        small, clear = self.pair(batch)
        answer = self.model(small)
        channels = [pixel_loss(answer[:, i], clear[:, i], self.loss) for i in range(3)]
        total = torch.stack(channels).mean()
        return {"total": total} | {
            name: part.detach() for name, part in zip(("red", "green", "blue"), channels, strict=True)
        }


class DistillTask(DehazeTask):
    """A dehazing network guided by a frozen teacher's features (eq. 15).

    The student looks at the hazy picture, the teacher at the clear one; at each of the student's scales the
    affinity of the student's map is drawn towards the teacher's. The scales' losses are added up.

    Args:
        model: Student; has `forward_features` and `feature_channels`.
        teacher: Network with `features` and `feature_channels`. It is frozen here and follows the task to a
            device or memory format, but is no part of its parameters, its `state_dict` or what
            DistributedDataParallel sees.
        loss: Pixel loss; the paper's is ``mse``.
        measure: How affinities are compared (Table 8).
        w_fa: Weight of the affinity loss (Table 7).
        guidance: ``hr``: the teacher sees the clear picture at the student's resolution; ``lr``: at half
            of it (Table 6).
        projections: Train a 1 x 1 projection of each of the student's maps to the teacher's channel count.
            They start as (parts of) rotations: where the channel count grows the affinity starts unchanged.
        pool: Pooled side over the map's side.
        temperature: Softmax temperature of ``kl``.

    Raises:
        TrainingError: Student and teacher do not have the same number of maps.
    """

    teacher: nn.Module

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        *,
        loss: PixelLoss = "mse",
        measure: Measure = "l2",
        w_fa: float = W_FA,
        guidance: Guidance = "hr",
        projections: bool = False,
        pool: float = POOL,
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(model, loss=loss)
        # Past nn.Module's bookkeeping on purpose: a registered teacher would be saved and synchronised.
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False))
        self.measure: Measure = measure
        self.w_fa = w_fa
        self.guidance: Guidance = guidance
        self.pool = pool
        self.temperature = temperature
        channels = _paired_channels(model, teacher)
        if projections:
            self.extras = nn.ModuleList(_projection(own, target) for own, target in channels)

    def losses(self, batch: Batch) -> Losses:
        """Return ``total`` = ``pixel`` + w_FA ``affinity``, and the two parts."""
        hazy, clear = self.pair(batch)
        answer, maps = self.model.forward_features(hazy)  # type: ignore[operator]
        pixel = pixel_loss(answer, clear, self.loss)
        affinity = self._affinity(maps, self._guide(clear))
        total = pixel + self.w_fa * affinity
        return {"total": total, "pixel": pixel.detach(), "affinity": affinity.detach()}

    @torch.no_grad()
    def _guide(self, clear: Tensor) -> list[Tensor]:
        seen = clear if self.guidance == "hr" else downscale(clear, 2)
        maps: list[Tensor] = self.teacher.features(seen)  # type: ignore[operator]
        return maps

    def _affinity(self, maps: list[Tensor], guides: list[Tensor]) -> Tensor:
        parts = []
        for i, (own, guide) in enumerate(zip(maps, guides, strict=True)):
            own, guide = pool_to_common(own, guide, self.pool)
            if isinstance(self.extras, nn.ModuleList):
                own = self.extras[i](own)  # after pooling: the same by linearity, for a sixteenth of the cost
            parts.append(compare(own, guide, self.measure, self.temperature))
        return torch.stack(parts).sum()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistillTask:
        """Move or convert the teacher along with the rest."""
        self.teacher._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _paired_channels(model: nn.Module, teacher: nn.Module) -> list[tuple[int, int]]:
    own: Any = model.feature_channels
    target: Any = teacher.feature_channels
    if len(own) != len(target):
        raise TrainingError(
            f"the student has {len(own)} feature maps and the teacher {len(target)}: "
            "distillation pairs them one to one",
            "use a student with three outer blocks, or student-lite",
        )
    return list(zip(own, target, strict=True))


def _projection(own: int, target: int) -> nn.Conv2d:
    convolution = nn.Conv2d(own, target, 1, bias=False)
    nn.init.orthogonal_(convolution.weight)
    return convolution
