"""The student's blocks in training on NVIDIA GPUs, as Triton kernels that read and write every map once.

cuDNN's tiles are made for 32 channels and more, and a compiled step has 900 kernels; the student has 16
channels. Maps are (N, H, W, 16), contiguous. A 3 x 3 convolution is three products, one a row of taps, of
(pixels, 64) by (64, 16): three taps of 16 channels and one of zeros, so that a row of taps is one run of
memory. For `student_gpu.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

C = 16
TAPS = 64
"""Four taps of 16 channels, the last of zeros."""


@triton.jit
def _taps(p, row, col, dy: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Offsets (P, 64) of a row of taps around pixels p of a picture, and which lie inside."""
    k = tl.arange(0, 64)
    dx = k // 16 - 1
    r = row + (dy - 1)
    c = col[:, None] + dx[None, :]
    inside = ((r >= 0) & (r < H))[:, None] & (c >= 0) & (c < W) & (dx < 2)[None, :]
    return (p + (dy - 1) * W)[:, None] * 16 + k[None, :] - 16, inside


@triton.jit
def conv_forward(
    x, w, b, out, skip, bits, partial, H: tl.constexpr, W: tl.constexpr, P: tl.constexpr, KIND: tl.constexpr
):
    """KIND 0: conv + skip; 1: relu(conv) + x, and where conv > 0; 2: conv, and its sums over P pixels."""
    tile, n = tl.program_id(0), tl.program_id(1)
    HW: tl.constexpr = H * W
    p = tile * P + tl.arange(0, P)
    row, col = p // W, p % W
    k, c = tl.arange(0, 64), tl.arange(0, 16)
    x += n * HW * 16
    acc = tl.zeros((P, 16), tl.float32)
    for dy in tl.static_range(3):
        where, inside = _taps(p, row, col, dy, H, W)
        value = tl.load(x + where, mask=inside, other=0.0)
        weight = tl.load(w + dy * 1024 + k[:, None] * 16 + c[None, :])
        acc = tl.dot(value, weight, acc)
    acc += tl.load(b + c)[None, :]
    here = p[:, None] * 16 + c[None, :]
    if KIND == 0:
        acc += tl.load(skip + n * HW * 16 + here).to(tl.float32)
    if KIND == 1:
        positive = acc > 0
        packed = tl.sum(positive.to(tl.int32) << c[None, :], axis=1)
        tl.store(bits + n * HW + p, packed.to(tl.int16))
        acc = tl.where(positive, acc, 0.0) + tl.load(x + here).to(tl.float32)
    if KIND == 2:
        tiles: tl.constexpr = HW // P
        tl.store(partial + (n * tiles + tile) * 16 + c, tl.sum(acc, axis=0))
    tl.store(out + n * HW * 16 + here, acc.to(out.dtype.element_ty))


@triton.jit
def _gradient(g, constant, where, inside, KIND: tl.constexpr):
    value = tl.load(g + where, mask=inside, other=0.0)
    if KIND == 2:
        value = tl.where(inside, value.to(tl.float32) + constant[None, :], 0.0).to(g.dtype.element_ty)
    return value


@triton.jit
def conv_backward(
    g,
    w,
    x,
    dx,
    ds,
    constant,
    bits,
    skip,
    extra,
    dw,
    db,
    PER: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,
    KIND: tl.constexpr,
    EXTRA: tl.constexpr,
):
    """Gradients of input and weights from that of the output.

    KIND 0: conv; 1: conv + x, whose other gradient is `skip`; 2: conv of a block's relu(conv1) + x:
    `constant` (N, 16) is added to g; dx is that of conv1, where `bits` tell what was positive, ds that
    of x (and of the block's own input, `skip` and `extra`).
    """
    pid = tl.program_id(0)
    HW: tl.constexpr = H * W
    tiles: tl.constexpr = HW // P
    k, c = tl.arange(0, 64), tl.arange(0, 16)
    at = k[:, None] * 16 + c[None, :]
    w0, w1, w2 = tl.load(w + at), tl.load(w + 1024 + at), tl.load(w + 2048 + at)
    d0 = tl.zeros((16, 64), tl.float32)
    d1 = tl.zeros((16, 64), tl.float32)
    d2 = tl.zeros((16, 64), tl.float32)
    sums = tl.zeros((64,), tl.float32)
    for i in range(PER):
        t = pid * PER + i
        n, tile = t // tiles, t % tiles
        p = tile * P + tl.arange(0, P)
        row, col = p // W, p % W
        here = n * HW * 16 + p[:, None] * 16 + c[None, :]
        xt = tl.trans(tl.load(x + here))
        added = tl.load(constant + n * 16 + k % 16)
        where, inside = _taps(p, row, col, 0, H, W)
        value = _gradient(g + n * HW * 16, added, where, inside, KIND)
        acc = tl.dot(value, w0)
        d0 = tl.dot(xt, value, d0)
        where, inside = _taps(p, row, col, 1, H, W)
        value = _gradient(g + n * HW * 16, added, where, inside, KIND)
        acc = tl.dot(value, w1, acc)
        d1 = tl.dot(xt, value, d1)
        sums += tl.sum(value.to(tl.float32), axis=0)
        where, inside = _taps(p, row, col, 2, H, W)
        value = _gradient(g + n * HW * 16, added, where, inside, KIND)
        acc = tl.dot(value, w2, acc)
        d2 = tl.dot(xt, value, d2)
        if KIND == 1:
            acc += tl.load(skip + here).to(tl.float32)
        if KIND == 2:
            total = acc + tl.load(skip + here).to(tl.float32)
            if EXTRA:
                total += tl.load(extra + here).to(tl.float32)
            tl.store(ds + here, total.to(ds.dtype.element_ty))
            packed = tl.load(bits + n * HW + p).to(tl.int32)
            acc = tl.where(((packed[:, None] >> c[None, :]) & 1) != 0, acc, 0.0)
        tl.store(dx + here, acc.to(dx.dtype.element_ty))
    into = pid * 3072 + c[:, None] * 64 + k[None, :]
    tl.store(dw + into, d0)
    tl.store(dw + into + 1024, d1)
    tl.store(dw + into + 2048, d2)
    tl.store(db + pid * 64 + k, sums)


@triton.jit
def channel_forward(
    partial, w1, b1, w2, b2, mean, weights, TILES: tl.constexpr, ROWS: tl.constexpr, HW: tl.constexpr
):
    """Channel attention's weights (N, 16) from sums over tiles: sigmoid(w2 relu(w1 mean + b1) + b2)."""
    n = tl.program_id(0)
    c, t = tl.arange(0, 16), tl.arange(0, ROWS)
    parts = tl.load(
        partial + (n * TILES + t[:, None]) * 16 + c[None, :], mask=(t < TILES)[:, None], other=0.0
    )
    m = tl.sum(parts, axis=0) / HW
    h0 = tl.maximum(tl.sum(tl.load(w1 + c) * m, axis=0) + tl.load(b1), 0.0)
    h1 = tl.maximum(tl.sum(tl.load(w1 + 16 + c) * m, axis=0) + tl.load(b1 + 1), 0.0)
    a = tl.load(w2 + 2 * c) * h0 + tl.load(w2 + 2 * c + 1) * h1 + tl.load(b2 + c)
    tl.store(mean + n * 16 + c, m)
    tl.store(weights + n * 16 + c, tl.sigmoid(a))


@triton.jit
def channel_backward(
    partial,
    w1,
    b1,
    w2,
    mean,
    weights,
    constant,
    grads,
    TILES: tl.constexpr,
    ROWS: tl.constexpr,
    HW: tl.constexpr,
):
    """What channel attention adds to each pixel's gradient, and its parameters' gradients of each picture.

    grads (N, 96): w1 in 0 to 31, w2 in 32 to 63 (two rows of 16), b2 in 64 to 79, b1 in 80 and 81.
    """
    n = tl.program_id(0)
    c, t = tl.arange(0, 16), tl.arange(0, ROWS)
    parts = tl.load(
        partial + (n * TILES + t[:, None]) * 16 + c[None, :], mask=(t < TILES)[:, None], other=0.0
    )
    s = tl.load(weights + n * 16 + c)
    m = tl.load(mean + n * 16 + c)
    da = tl.sum(parts, axis=0) * s * (1 - s)
    w10, w11 = tl.load(w1 + c), tl.load(w1 + 16 + c)
    h0 = tl.maximum(tl.sum(w10 * m, axis=0) + tl.load(b1), 0.0)
    h1 = tl.maximum(tl.sum(w11 * m, axis=0) + tl.load(b1 + 1), 0.0)
    dh0 = tl.where(h0 > 0, tl.sum(da * tl.load(w2 + 2 * c), axis=0), 0.0)
    dh1 = tl.where(h1 > 0, tl.sum(da * tl.load(w2 + 2 * c + 1), axis=0), 0.0)
    tl.store(constant + n * 16 + c, (dh0 * w10 + dh1 * w11) / HW)
    grads += n * 96
    tl.store(grads + c, dh0 * m)
    tl.store(grads + 16 + c, dh1 * m)
    tl.store(grads + 32 + c, da * h0)
    tl.store(grads + 48 + c, da * h1)
    tl.store(grads + 64 + c, da)
    tl.store(grads + 80 + c, tl.where(c == 0, dh0, tl.where(c == 1, dh1, 0.0)))


@triton.jit
def pixel_forward(y, x, weights, w1, b1, w2, b2, out, HW: tl.constexpr, P: tl.constexpr):
    """out = z s + x with z = y weights and s = sigmoid(w2 relu(w1 z + b1) + b2) of each pixel."""
    tile, n = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, 16)
    here = n * HW * 16 + (tile * P + tl.arange(0, P))[:, None] * 16 + c[None, :]
    z = tl.load(y + here).to(tl.float32) * tl.load(weights + n * 16 + c)[None, :]
    h0 = tl.maximum(tl.sum(z * tl.load(w1 + c)[None, :], axis=1) + tl.load(b1), 0.0)
    h1 = tl.maximum(tl.sum(z * tl.load(w1 + 16 + c)[None, :], axis=1) + tl.load(b1 + 1), 0.0)
    s = tl.sigmoid(tl.load(w2) * h0 + tl.load(w2 + 1) * h1 + tl.load(b2))
    value = z * s[:, None] + tl.load(x + here).to(tl.float32)
    tl.store(out + here, value.to(out.dtype.element_ty))


@triton.jit
def pixel_backward(g, y, weights, w1, b1, w2, b2, dy, partial, grads, HW: tl.constexpr, P: tl.constexpr):
    """Gradient of y but for the channels' mean; sums for channel attention; parameters' gradients of a tile.

    grads (N tiles, 64): w1 in 0 to 31; b1, w2, b2 in 32 to 36.
    """
    tile, n = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, 16)
    here = n * HW * 16 + (tile * P + tl.arange(0, P))[:, None] * 16 + c[None, :]
    yv = tl.load(y + here).to(tl.float32)
    gv = tl.load(g + here).to(tl.float32)
    wv = tl.load(weights + n * 16 + c)[None, :]
    w10, w11 = tl.load(w1 + c)[None, :], tl.load(w1 + 16 + c)[None, :]
    v0, v1 = tl.load(w2), tl.load(w2 + 1)
    z = yv * wv
    h0 = tl.maximum(tl.sum(z * w10, axis=1) + tl.load(b1), 0.0)
    h1 = tl.maximum(tl.sum(z * w11, axis=1) + tl.load(b1 + 1), 0.0)
    s = tl.sigmoid(v0 * h0 + v1 * h1 + tl.load(b2))
    da = tl.sum(gv * z, axis=1) * s * (1 - s)
    dh0 = tl.where(h0 > 0, da * v0, 0.0)
    dh1 = tl.where(h1 > 0, da * v1, 0.0)
    dz = gv * s[:, None] + dh0[:, None] * w10 + dh1[:, None] * w11
    tl.store(dy + here, (dz * wv).to(dy.dtype.element_ty))
    tiles: tl.constexpr = HW // P
    at = n * tiles + tile
    tl.store(partial + at * 16 + c, tl.sum(dz * yv, axis=0))
    grads += at * 64
    tl.store(grads + c, tl.sum(dh0[:, None] * z, axis=0))
    tl.store(grads + 16 + c, tl.sum(dh1[:, None] * z, axis=0))
    b10, b11 = tl.sum(dh0, axis=0), tl.sum(dh1, axis=0)
    v0g, v1g, b2g = tl.sum(da * h0, axis=0), tl.sum(da * h1, axis=0), tl.sum(da, axis=0)
    rest = tl.where(c == 0, b10, tl.where(c == 1, b11, tl.where(c == 2, v0g, tl.where(c == 3, v1g, b2g))))
    tl.store(grads + 32 + c, rest)


@dataclass
class Launch:
    """How kernels are launched; what is fastest differs from card to card.

    Attributes:
        tile: Pixels a program works on at a time; must divide the pixels of a picture.
        programs: Programs that share the pictures in the backward convolution; must divide all tiles.
        warps: Of the backward convolution.
        stages: Of its software pipeline.
    """

    tile: int = 64
    programs: int = 264
    warps: int = 4
    stages: int = 2


LAUNCH = Launch()
"""What `Body` uses."""


def tapped(w: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights (K, 16 out, 16 in, 3, 3) as the forward and the backward kernels read them, (K, 3, 64, 16)."""
    pad = torch.nn.functional.pad
    forward = pad(w.permute(0, 3, 4, 2, 1), (0, 0, 0, 0, 0, 1))
    backward = pad(w.flip(3, 4).permute(0, 3, 4, 1, 2), (0, 0, 0, 0, 0, 1))
    shape = (len(w), 3, TAPS, C)
    return forward.to(dtype).reshape(shape).contiguous(), backward.to(dtype).reshape(shape).contiguous()


def untapped(dw: Tensor) -> Tensor:
    """Gradients (K, 3, 16 in, 64) of `conv_backward`, summed over programs, as (K, 16 out, 16 in, 3, 3)."""
    taps = dw.view(len(dw), 3, C, 4, C)[:, :, :, :3].flip(1, 3)  # K, dy, in, dx, out
    return taps.permute(0, 4, 2, 1, 3)


class Body(torch.autograd.Function):
    """Three outer blocks of six inner blocks each: from the head's map to the outer blocks' three maps.

    Arguments of `apply`: h (N, H, W, 16); convolutions w (39, 16, 16, 3, 3) and b (39, 16), thirteen for
    each outer block; channel attention w1 (18, 2, 16), b1 (18, 2), w2 (18, 16, 2), b2 (18, 16); pixel
    attention v1 (18, 2, 16), c1 (18, 2), v2 (18, 2), c2 (18).
    """

    @staticmethod
    def forward(ctx: Any, h, w, b, w1, b1, w2, b2, v1, c1, v2, c2):  # type: ignore[no-untyped-def, override]
        """Maps, each as `h`."""
        n, height, width, _ = h.shape
        hw, dtype = height * width, h.dtype
        tile = LAUNCH.tile
        if hw % tile:
            raise ValueError(f"{width} x {height} pixels are no multiple of {tile}")
        tiles = hw // tile
        grid = (tiles, n)
        rows = triton.next_power_of_2(tiles)
        wf, wb = tapped(w, dtype)
        partial = h.new_empty((n, tiles, C), dtype=torch.float32)
        size = {"H": height, "W": width, "P": tile}
        saved, maps, x = [], [], h
        for o in range(3):
            start = x
            for i in range(6):
                k, j = 13 * o + 2 * i, 6 * o + i
                u, y, out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
                bits = torch.empty((n, hw), dtype=torch.int16, device=x.device)
                mean, weights = (h.new_empty((n, C), dtype=torch.float32) for _ in range(2))
                conv_forward[grid](x, wf[k], b[k], u, u, bits, partial, **size, KIND=1)
                conv_forward[grid](u, wf[k + 1], b[k + 1], y, u, bits, partial, **size, KIND=2)
                channel_forward[(n,)](partial, w1[j], b1[j], w2[j], b2[j], mean, weights, tiles, rows, hw)
                pixel_forward[grid](y, x, weights, v1[j], c1[j], v2[j], c2[j:], out, hw, tile)
                saved.append((x, u, y, bits, mean, weights))
                x = out
            k = 13 * o + 12
            m = torch.empty_like(x)
            conv_forward[grid](x, wf[k], b[k], m, start, bits, partial, **size, KIND=0)
            saved.append(x)
            maps.append(m)
            x = m
        ctx.body = saved, wb, (w1, b1, w2, v1, c1, v2, c2)
        return tuple(maps)

    @staticmethod
    def backward(ctx: Any, *gm: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Gradients of `apply`'s arguments."""
        saved, wb, (w1, b1, w2, v1, c1, v2, c2) = ctx.body
        x0 = saved[0][0]
        n, height, width, _ = x0.shape
        hw = height * width
        tile, programs = LAUNCH.tile, LAUNCH.programs
        tiles, total = hw // tile, n * hw // tile
        rows, grid = triton.next_power_of_2(tiles), (tiles, n)
        if total % programs:
            raise ValueError(f"{total} tiles cannot be shared among {programs} programs")
        full: Any = {"dtype": torch.float32, "device": x0.device}
        dw = torch.empty((39, programs, 3, C, TAPS), **full)
        db = torch.empty((39, programs, TAPS), **full)
        channel = torch.empty((18, n, 96), **full)
        pixel = torch.empty((18, n * tiles, 64), **full)
        partial = torch.empty((n, tiles, C), **full)
        constant = torch.zeros((n, C), **full)
        size = {"H": height, "W": width, "P": tile, "num_warps": LAUNCH.warps, "num_stages": LAUNCH.stages}

        def conv(kind: int, k: int, g: Tensor, x: Tensor, dx: Tensor, **more: Tensor) -> None:
            """Run `conv_backward` on convolution k; what its kind does not read or write is g's."""
            rest = [more.get(name, g) for name in ("ds", "constant", "bits", "skip", "extra")]
            conv_backward[(programs,)](
                *(g, wb[k], x, dx, *rest, dw[k], db[k], total // programs),
                **size,
                KIND=kind,
                EXTRA="extra" in more,
            )

        g_next = None
        for o in (2, 1, 0):
            g_out = gm[o].contiguous()
            if g_next is not None:
                g_out = g_out + g_next
            g = torch.empty_like(g_out)
            conv(0, 13 * o + 12, g_out, saved[7 * o + 6], g)
            for i in reversed(range(6)):
                k, j = 13 * o + 2 * i, 6 * o + i
                x, u, y, bits, mean, weights = saved[7 * o + i]
                dy, du, ds, dx = (torch.empty_like(x) for _ in range(4))
                pixel_backward[grid](
                    g, y, weights, v1[j], c1[j], v2[j], c2[j:], dy, partial, pixel[j], hw, tile
                )
                channel_backward[(n,)](
                    partial, w1[j], b1[j], w2[j], mean, weights, constant, channel[j], tiles, rows, hw
                )
                start = {"extra": g_out} if i == 0 else {}  # the outer block's own skip
                conv(2, k + 1, dy, u, du, ds=ds, constant=constant, bits=bits, skip=g, **start)
                conv(1, k, du, x, dx, skip=ds)
                g = dx
            g_next = g
        a, p = channel.sum(1), pixel.sum(1)
        return (
            g_next,
            untapped(dw.sum(1)),
            db.sum(1)[:, C : 2 * C],
            a[:, :32].view(18, 2, C),
            a[:, 80:82],
            a[:, 32:64].view(18, 2, C).transpose(1, 2),
            a[:, 64:80],
            p[:, :32].view(18, 2, C),
            p[:, 32:34],
            p[:, 34:36],
            p[:, 36],
        )
