"""A model as an ONNX file: the network alone, or with the transfer to full resolution around it."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dehaze.dehazer import FALLBACK_WORKING_SIZE, Dehazer
from dehaze.errors import DehazeError, UsageError
from dehaze.limits import Limits, Reduction
from dehaze.models import count_parameters
from dehaze.upsample import ANSWER_RANGE, EPS, FALLBACK_RADIUS, NOISE_SHARE, PATCH, PATCHES, RESIDUAL_FLOOR
from dehaze.version import __version__
from dehaze.weights import Header
from dehaze.weights.checkpoint import write_atomically
from dehaze.weights.exported import describe
from dehaze.working_copy import PLACES

Part = Literal["network", "full"]

OPSET = 18

TOLERANCE = 1 / 1020
"""Largest difference a check lets pass: a quarter of an 8-bit level."""

Picture = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """ONNX Runtime beside PyTorch on one picture; the difference is the largest, for values in [0, 1]."""

    height: int
    width: int
    difference: float


class FullResolution(nn.Module):
    """`Dehazer` on ``auto`` as one graph of tensors: shrink, network, fit, enlarge, apply.

    Hazy RGB (1, 3, H, W) in [0, 1] of any size -> dehazed, same shape, clamped to [0, 1]. A picture no larger
    than the working size gets the network's own answer.

    Args:
        model: A dehazing network.
        working_size: Long side of its working copy in pixels.
        radius: See `dehaze.upsample.fit`.
        reduction: See `dehaze.working_copy.reduce`.
        second_look: Long side at which it looks at the mirrored picture, too; None for one look.
    """

    def __init__(
        self,
        model: nn.Module,
        working_size: int,
        radius: int,
        reduction: Reduction = "mean",
        second_look: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.working_size = working_size
        self.radius = radius
        self.reduction = reduction
        self.second_look = second_look

    def forward(self, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3, H, W)."""
        # As a tensor: Python numbers would be frozen into the graph.
        size = torch._shape_as_tensor(pixels)[2:]
        noise = _noise_variance(pixels, size)
        own = size.max() <= self.working_size
        answer, gain, offset = self._look(pixels, size, self.working_size, noise)
        if self.second_look is not None:
            _, *second = self._look(pixels, size, self.second_look, noise, mirrored=True)
            larger = gain if self.working_size >= self.second_look else second[0]
            both = zip((gain, offset), second, strict=True)
            gain, offset = ((_enlarge(a, larger) + _enlarge(b, larger)) / 2 for a, b in both)
            answer = _enlarge(answer, larger)
        gain = torch.where(own, torch.zeros_like(gain), gain)  # the answer is the whole picture's
        offset = torch.where(own, answer, offset)
        return (pixels * _enlarge(gain, pixels) + _enlarge(offset, pixels)).clamp(0, 1)

    def _look(
        self, pixels: Tensor, size: Tensor, working_size: int, noise: Tensor, *, mirrored: bool = False
    ) -> tuple[Tensor, ...]:
        """Answer, gain and offset, (1, 3, h, w) each."""
        longest = size.max()
        small = torch.minimum(longest, torch.tensor(working_size))
        height, width = torch.round(size * small / longest).long().clamp(min=1).unbind()
        guide = _shrink(pixels, size, height, width)
        if self.reduction == "minimum":
            guide = torch.where(small == longest, guide, _minimum(pixels, size, height, width))
        answer = self.model(guide.flip(3)).flip(3) if mirrored else self.model(guide)
        answer = _restrain(answer, guide)
        return answer, *_fit(guide, answer, self.radius, noise)


def _shrink(pixels: Tensor, size: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """See `dehaze.working_copy.shrink`."""
    return _shares(size[0], height) @ pixels @ _shares(size[1], width).transpose(0, 1)


def _minimum(pixels: Tensor, size: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """See `dehaze.working_copy.reduce`."""
    rows, columns = (torch.minimum(PLACES * n, have) for n, have in ((height, size[0]), (width, size[1])))
    fine = _shrink(pixels, size, rows, columns)
    fine = fine[:, :, _nearest(rows, PLACES * height)][..., _nearest(columns, PLACES * width)]
    return -F.max_pool2d(-fine, PLACES)


def _nearest(have: Tensor, want: Tensor) -> Tensor:
    """For each of ``want`` places the one of ``have`` pixels that its centre lies in."""
    return torch.div((2 * _count(want) + 1) * have, 2 * want, rounding_mode="floor")


def _shares(size: Tensor, small: Tensor) -> Tensor:
    """How much of ``small`` equal cells each of ``size`` pixels covers: (small, size), rows sum to 1."""
    begin = (_count(small) * size)[:, None]  # in integers: pixel j is j * small .. (j + 1) * small
    first = (_count(size) * small)[None]
    overlap = torch.minimum(begin + size, first + small) - torch.maximum(begin, first)
    return overlap.clamp(min=0).float() / size.float()


def _count(end: Tensor) -> Tensor:
    """0, 1, ... up to a number that the graph computes."""
    return torch.arange(end)  # type: ignore[call-overload, no-any-return]


def _noise_variance(pixels: Tensor, size: Tensor) -> Tensor:
    """See `dehaze.upsample.noise_variance`."""
    green = pixels[0, 1]
    side = (size.min().clamp(max=PATCH) // 2 * 2).clamp(min=2)
    rows, columns = (_patches(length, side) for length in size.unbind())
    quads = green[rows][:, columns].unflatten(1, (PATCHES, -1, 2))  # type: ignore[no-untyped-call]
    quads = quads.unflatten(0, (PATCHES, -1, 2))
    diagonal = (
        quads[:, :, 0, :, :, 0] + quads[:, :, 1, :, :, 1] - quads[:, :, 0, :, :, 1] - quads[:, :, 1, :, :, 0]
    )
    deviation = diagonal.abs().mean(dim=(1, 3)).flatten() * (torch.pi / 8) ** 0.5
    position = 0.1 * (PATCHES**2 - 1)
    index = int(position)
    lowest = deviation.topk(index + 2, largest=False).values
    return torch.lerp(lowest[index], lowest[index + 1], position - index) ** 2


def _patches(length: Tensor, side: Tensor) -> Tensor:
    """Indices of `PATCHES` runs of ``side`` pixels spread over a length."""
    starts = (length - side).clamp(min=0) * torch.arange(PATCHES) // (PATCHES - 1)
    indices = starts[:, None] + _count(side)[None]
    return torch.minimum(indices.flatten(), length - 1)


def _fit(guide: Tensor, answer: Tensor, radius: int, noise: Tensor) -> tuple[Tensor, Tensor]:
    """See `dehaze.upsample.fit`."""
    box = partial(_box, radius=radius)
    x, y = guide.double(), answer.double()
    mean_x, mean_y = box(x), box(y)
    variance = (box(x * x) - mean_x * mean_x).clamp(min=0)
    covariance = box(x * y) - mean_x * mean_y
    spread = (box(y * y) - mean_y * mean_y).clamp(min=0)
    gain = covariance / (variance + EPS + NOISE_SHARE * noise)
    offset = mean_y - gain * mean_x
    residual = (spread - gain * (2 * covariance - gain * variance)).clamp(min=0)
    weight = 1 / (residual + RESIDUAL_FLOOR)
    total = box(weight)
    return (box(weight * gain) / total).float(), (box(weight * offset) / total).float()


def _restrain(answer: Tensor, picture: Tensor) -> Tensor:
    """See `dehaze.upsample.restrain`."""
    held = answer.clamp(*ANSWER_RANGE)
    share = (held != answer).any(dim=1, keepdim=True).float()
    r = FALLBACK_RADIUS
    for side in ((4 * r + 1, 1), (1, 4 * r + 1)):
        share = F.max_pool2d(share, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    share = F.pad(share, (r,) * 4, mode="replicate")
    for side in ((2 * r + 1, 1), (1, 2 * r + 1)):
        share = F.avg_pool2d(share, side, stride=1)
    return held + share * (picture - held)


def _box(x: Tensor, radius: int) -> Tensor:
    """Mean over windows; by sums, as ONNX Runtime's average pooling knows no float64."""
    side = 2 * radius + 1
    shifts = [slice(i, i + 1 - side or None) for i in range(side)]
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = sum((x[..., shift, :] for shift in shifts[1:]), x[..., shifts[0], :])
    return sum((x[..., shift] for shift in shifts[1:]), x[..., shifts[0]]) / side**2


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def export_onnx(model: nn.Module, header: Header, path: Path, *, part: Part = "full") -> None:
    """Write a model as an ONNX file with dynamic height and width, atomically.

    Its input ``hazy`` and output ``clear`` are float32 RGB (1, 3, H, W); ``hazy`` is in [0, 1]. The file's
    metadata holds the whole header and, for people, the model's name, working size and licence.

    Args:
        model: A dehazing network.
        header: Its checkpoint's header.
        path: The file to write.
        part: ``network`` alone, whose output is not clamped and which wants pictures of its working size; or
            ``full``, which takes pictures of any size and clears them as `Dehazer` does.

    Raises:
        UsageError: The packages of the extra ``onnx`` are not installed, or the network does not dehaze.
        DehazeError: The file cannot be written.
    """
    onnx = needed("onnx")
    graph = onnx.load_from_string(_traced(_module(model, header, part)))
    # Tracing loses sight of the batch size on the way through the network's own resizing.
    graph.graph.output[0].type.tensor_type.shape.CopyFrom(graph.graph.input[0].type.tensor_type.shape)
    onnx.helper.set_model_props(graph, _properties(model, header, part))
    onnx.checker.check_model(graph)
    try:
        write_atomically(path, graph.SerializeToString())
    except OSError as error:
        raise DehazeError(f"cannot write {path}: {error.strerror or error}") from error


def check_onnx(path: Path, model: nn.Module, header: Header, *, part: Part = "full") -> list[Comparison]:
    """Run an exported file in ONNX Runtime and compare it with PyTorch on pictures of several sizes.

    Raises:
        UsageError: The packages of the extra ``onnx`` are not installed.
        DehazeError: Some picture differs by more than `TOLERANCE`.
    """
    runtime = needed("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dehaze = Dehazer(model, header, device="cpu", precision="fp32")
    results = []
    for height, width in _sizes(header.working_size or FALLBACK_WORKING_SIZE, part):
        hazy = _picture(height, width)
        expected = dehaze(hazy) if part == "full" else dehaze.network(hazy[None])[0]
        (clear,) = session.run(None, {"hazy": np.ascontiguousarray(hazy.transpose(2, 0, 1)[None])})
        difference = float(np.abs(clear[0].transpose(1, 2, 0) - expected).max())
        results.append(Comparison(height, width, difference))
    worst = max(results, key=lambda result: result.difference)
    if not worst.difference <= TOLERANCE:
        raise DehazeError(
            f"{path} differs from PyTorch by {worst.difference * 255:.2f} of 255 levels on a picture of "
            f"{worst.width} x {worst.height} pixels; at most {TOLERANCE * 255:.2f} was expected"
        )
    return results


def _module(model: nn.Module, header: Header, part: Part) -> nn.Module:
    Dehazer(model, header, device="cpu")  # refuses what does not dehaze
    network = model.cpu().float().eval()
    if part == "network":
        return network
    working_size = header.working_size or FALLBACK_WORKING_SIZE
    return FullResolution(
        network, working_size, header.transfer_radius, header.reduction, header.second_look
    ).eval()


def _traced(module: nn.Module) -> bytes:
    """Export by tracing.

    PyTorch's newer exporter would want one more package (onnxscript); that the older one is deprecated
    concerns us, not the user.
    """
    file = io.BytesIO()
    axes = {2: "height", 3: "width"}
    with _silence(), torch.no_grad():
        torch.onnx.export(
            module,
            (torch.rand(1, 3, 77, 91),),
            file,  # type: ignore[arg-type]
            input_names=["hazy"],
            output_names=["clear"],
            dynamic_axes={"hazy": axes, "clear": axes},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


@contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        yield


def _properties(model: nn.Module, header: Header, part: Part) -> dict[str, str]:
    limits: Limits = model.limits  # type: ignore[assignment]
    return {
        **describe(header, limits, count_parameters(model), part),
        "producer": f"dehaze {__version__}",
        "name": header.name,
        "architecture": header.architecture,
        "working_size": str(header.working_size or ""),
        "licence": header.licence,
    }


def needed(package: str) -> Any:
    """Import a package of the extra ``onnx``.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"exporting to ONNX needs the package '{package}', which is not installed",
            'pip install "dehaze-cli[onnx]"',
        ) from error


def _sizes(working: int, part: Part) -> list[tuple[int, int]]:
    """Heights and widths to check on: odd, narrow, at the working size and, for the whole, beyond it."""
    sizes = [(1, 1), (working * 3 // 4, working), (working, working * 2 // 3 + 1), (7, working // 2 + 1)]
    if part == "full":
        sizes += [(working * 3, working * 2 + 1), (working + 1, working + 1), (5, working * 4)]
    return sizes


def _picture(height: int, width: int) -> Picture:
    """A colourful smooth picture with a little noise, (height, width, 3) in [0, 1]."""
    y, x = np.mgrid[:height, :width] * (12 / max(height, width))
    waves = np.stack([np.sin(x + y), np.cos(y - x), np.sin(2 * x) * np.cos(y)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.01, waves.shape)
    return np.clip(0.6 + 0.3 * waves + noise, 0, 1).astype(np.float32)
