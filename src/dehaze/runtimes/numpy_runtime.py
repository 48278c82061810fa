"""The two students computed by NumPy: slower than PyTorch, and done with a photo before PyTorch is imported.

Same numbers as `dehaze.models.student` and `dehaze.models.lite`, but for rounding. Maps are (h, w, channels):
a convolution is three matrix products, one for each row of its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dehaze.errors import UsageError
from dehaze.runtimes import Precision
from dehaze.upsample import Map
from dehaze.weights.arrays import Array, Arrays

if TYPE_CHECKING:
    from torch import Tensor

Layer = Callable[[Map], Map]
"""(h, w, channels) float32 -> the same with other channels; the argument stays as it is."""


class NumpyNetwork:
    """See `dehaze.runtimes.Network`.

    Args:
        model: A student's weights.
        device: ``auto`` or ``cpu``.
        precision: ``auto`` or ``fp32``.

    Raises:
        UsageError: The device or the precision is another.
    """

    device = "cpu"
    precision = "fp32"

    def __init__(self, model: Arrays, *, device: str, precision: Precision) -> None:
        if device not in ("auto", "cpu") or precision not in ("auto", "fp32"):
            raise UsageError(f"NumPy computes on the CPU in fp32, not on '{device}' in {precision}")
        self.parameters = sum(array.size for array in model.tensors.values())
        build = _lite if model.header.architecture == "lite" else _student
        self._clear = build(model.tensors)

    def __call__(self, batch: Map) -> Map:
        """See `dehaze.runtimes.Network`."""
        return np.stack([self._clear(one) for one in batch])

    def forward(self, x: Tensor) -> Tensor:
        """See `dehaze.runtimes.Network`."""
        import torch

        answer = self(x.permute(0, 2, 3, 1).cpu().numpy())
        return torch.from_numpy(answer).permute(0, 3, 1, 2).to(x.device)

    def free_memory(self) -> int | None:
        """See `dehaze.runtimes.Network`."""
        return None


def _student(weights: dict[str, Array]) -> Layer:
    """The paper's student (3.2, Fig. 3)."""
    head, conv, tail = (_conv(weights, name) for name in ("head", "conv", "tail"))
    outer = [
        (
            [_block(weights, f"outer.{i}.inner.{j}", skip=True) for j in range(6)],
            _conv(weights, f"outer.{i}.conv"),
        )
        for i in range(3)
    ]
    fusion, attend = _channel_attention(weights, "fusion"), _pixel_attention(weights, "pixel_attention")

    def clear(x: Map) -> Map:
        y, maps = head(x), []
        for blocks, last in outer:
            y = last(_chain(blocks, y)) + y
            maps.append(y)
        stacked = np.concatenate(maps, axis=2)
        height, width = x.shape[:2]
        y = (stacked * fusion(stacked)).reshape(height, width, 3, 16).sum(axis=2)
        return tail(conv(y * attend(y))) + x

    return clear


def _lite(weights: dict[str, Array]) -> Layer:
    """student-lite: its U of two levels, between space-to-depth by 2 and back."""
    head, up, tail = (_conv(weights, name) for name in ("head", "up.0", "tail"))
    down = _halving(weights, "down.0")
    fine = [_block(weights, f"down_stages.0.{i}", skip=False) for i in range(5)]
    coarse = [_block(weights, f"down_stages.1.{i}", skip=False) for i in range(3)]
    rising = [_block(weights, f"up_stages.0.{i}", skip=False) for i in range(5)]

    def clear(x: Map) -> Map:
        height, width = x.shape[:2]
        padded = np.pad(x, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
        skip = _chain(fine, head(_to_depth(padded)))
        y = up(_chain(coarse, down(skip))).repeat(2, axis=0).repeat(2, axis=1) + skip
        maps = _to_space(tail(_chain(rising, y)))[:height, :width]
        gain, offset = maps[..., :3], maps[..., 3:]
        return x + gain * x - offset

    return clear


def _chain(layers: list[Layer], x: Map) -> Map:
    for layer in layers:
        x = layer(x)
    return x


def _block(weights: dict[str, Array], name: str, *, skip: bool) -> Layer:
    """Two convolutions, both attentions and a skip; with `skip` another over the first convolution (3.2)."""
    conv1, conv2 = _conv(weights, f"{name}.conv1"), _conv(weights, f"{name}.conv2")
    by_channel = _channel_attention(weights, f"{name}.channel_attention")
    by_pixel = _pixel_attention(weights, f"{name}.pixel_attention")

    def block(x: Map) -> Map:
        y = conv1(x)
        np.maximum(y, 0, out=y)
        if skip:
            y += x
        y = conv2(y)
        y *= by_channel(y)
        y *= by_pixel(y)
        y += x
        return y

    return block


def _conv(weights: dict[str, Array], name: str) -> Layer:
    """A convolution of 1 x 1 or of 3 x 3 with zeros around."""
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if kernel.shape[2] == 1:
        matrix = np.ascontiguousarray(kernel[:, :, 0, 0].T)
        return lambda x: x @ matrix + bias
    # (rows of the kernel, its columns x channels, answers)
    top, middle, bottom = kernel.transpose(2, 3, 1, 0).reshape(3, -1, len(kernel))

    def conv(x: Map) -> Map:
        height, width, channels = x.shape
        # At each place the three pixels side by side, with a row of zeros above and below.
        wide = np.zeros((height + 2, width, 3, channels), np.float32)
        wide[1:-1, 1:, 0], wide[1:-1, :, 1], wide[1:-1, :-1, 2] = x[:, :-1], x, x[:, 1:]
        rows = wide.reshape(-1, 3 * channels)
        size = height * width
        y = rows[:size] @ top
        y += rows[width : width + size] @ middle
        y += rows[2 * width :] @ bottom
        y += bias
        return y.reshape(height, width, -1)

    return conv


def _halving(weights: dict[str, Array], name: str) -> Layer:
    """A convolution of 2 x 2 with stride 2."""
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    matrix = kernel.transpose(1, 2, 3, 0).reshape(-1, len(kernel))
    return lambda x: _to_depth(x) @ matrix + bias


def _channel_attention(weights: dict[str, Array], name: str) -> Layer:
    """Weights of the channels, (channels,) (eq. 4 and 5)."""
    reduce, expand = _conv(weights, f"{name}.reduce"), _conv(weights, f"{name}.expand")
    return lambda x: _sigmoid(expand(np.maximum(reduce(x.mean(axis=(0, 1))), 0)))


def _pixel_attention(weights: dict[str, Array], name: str) -> Layer:
    """Weights of the places, (h, w, 1) (eq. 6)."""
    reduce, expand = _conv(weights, f"{name}.reduce"), _conv(weights, f"{name}.expand")
    return lambda x: _sigmoid(expand(np.maximum(reduce(x), 0)))


def _sigmoid(x: Map) -> Map:
    with np.errstate(over="ignore"):  # exp of a large number is infinity, and its inverse 0 as it should be
        answer: Map = np.reciprocal(1 + np.exp(-x))
    return answer


def _to_depth(x: Map) -> Map:
    """(2 h, 2 w, c) -> (h, w, 4 c): PyTorch's `pixel_unshuffle`."""
    height, width, channels = x.shape
    blocks = x.reshape(height // 2, 2, width // 2, 2, channels)
    return blocks.transpose(0, 2, 4, 1, 3).reshape(height // 2, width // 2, 4 * channels)


def _to_space(x: Map) -> Map:
    """(h, w, 4 c) -> (2 h, 2 w, c): PyTorch's `pixel_shuffle`."""
    height, width, channels = x.shape
    blocks = x.reshape(height, width, channels // 4, 2, 2)
    return blocks.transpose(0, 3, 1, 4, 2).reshape(2 * height, 2 * width, channels // 4)
