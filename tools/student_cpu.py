"""Train the paper's student on a processor with AMX or AVX-512's bf16, several times as fast as PyTorch does.

    python tools/student_cpu.py check
    python tools/student_cpu.py train student --recipe student --clear nyu/images --depth nyu/depth ...

`train` is `dehaze train` with all its options but `--compile`; so is `distill`. The student's blocks are
computed by `student_cpu.cpp`, which g++ compiles at the first start, wherever training is in bfloat16 and the
pictures' width is a multiple of 32 up to 192; elsewhere PyTorch computes, as slowly as ever.
`check` compares answers and gradients with PyTorch's in float32, and times both. `train` refuses to begin
where the gradient is further from float32's than that of PyTorch's bfloat16 by half.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dehaze.models.student import InnerBlock, Student

C = 16
SOURCE = Path(__file__).with_name("student_cpu.cpp")
FLAGS = (
    *("-O3", "-std=c++20", "-march=native", "-shared", "-fPIC", "-pthread"),
    *("-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),  # GCC 12's own header
)
ATTENTION = (  # a block's attentions: parameters and their shapes
    ("channel_attention.reduce.weight", (2, C)),
    ("channel_attention.reduce.bias", (2,)),
    ("channel_attention.expand.weight", (C, 2)),
    ("channel_attention.expand.bias", (C,)),
    ("pixel_attention.reduce.weight", (2, C)),
    ("pixel_attention.reduce.bias", (2,)),
    ("pixel_attention.expand.weight", (2,)),
    ("pixel_attention.expand.bias", ()),
)


@cache
def library() -> ctypes.CDLL:
    """The compiled blocks; compiled once for each version of the source."""
    features = set(Path("/proc/cpuinfo").read_text().split()) if sys.platform == "linux" else set()
    units = ("-mamx-tile", "-mamx-bf16") if "amx_bf16" in features else ("-mno-amx-tile", "-mno-amx-bf16")
    if not features & {"amx_bf16", "avx512_bf16"}:
        sys.exit("this processor has neither AMX tiles nor AVX-512's bf16, or this is not Linux on x86-64")
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS + units).encode()).hexdigest()[:16]
    path = SOURCE.parent / "__pycache__" / f"student_cpu-{key}.so"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        made = path.with_suffix(f".{time.time_ns()}")
        try:
            subprocess.run(["g++", *FLAGS, *units, str(SOURCE), "-o", str(made)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{SOURCE.name} cannot be compiled: {error}; it needs g++ 12 and Linux on x86-64")
        made.replace(path)
    found = ctypes.CDLL(str(path))
    found.saved_size.restype = found.gradient_size.restype = ctypes.c_long
    if not found.usable():
        sys.exit("the system does not allow the use of this processor's AMX tiles")
    return found


class _Maps:
    """Memory for what the way back needs, kept from step to step: borders stay zero, pages stay mapped."""

    def __init__(self, n: int, height: int, width: int) -> None:
        size = library().saved_size(ctypes.c_long(height), ctypes.c_long(width))
        self.maps = torch.zeros(n * size, dtype=torch.bfloat16)
        self.bits = torch.empty(n * 18 * height * width, dtype=torch.int16)
        self.means, self.weights = torch.empty(n * 21 * C), torch.empty(n * 21 * C)


_free: dict[tuple[int, int, int], list[_Maps]] = {}


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    assert all(t is None or (t.is_contiguous() and t.device.type == "cpu") for t in tensors)
    return [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]


class Body(torch.autograd.Function):
    """All between head and tail: from the head's map to the outer blocks' three and the one the tail sees.

    Arguments of `apply`: h (N, H, W, 16) bfloat16; float32 convolutions w (40, 16, 16, 3, 3) and b (40, 16),
    thirteen for each outer block and one behind; channel attention w1 (18, 2, 16), b1 (18, 2),
    w2 (18, 16, 2), b2 (18, 16); pixel attention v1 (19, 2, 16), c1 (19, 2), v2 (19, 2), c2 (19), the last
    behind the blocks; and the fusion's, f1 (48), d1 (1), f2 (48), d2 (48).
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Maps, each as `h`."""
        n, height, width, _ = h.shape
        pool = _free.setdefault((n, height, width), [])
        kept = pool.pop() if pool else _Maps(n, height, width)
        values = [p.detach().float().contiguous() for p in parameters]
        table = (ctypes.c_void_p * len(values))(*(v.data_ptr() for v in values))
        maps = [torch.empty_like(h) for _ in range(4)]
        size = ctypes.c_int(n), ctypes.c_long(height), ctypes.c_long(width)
        state = kept.maps, kept.bits, kept.means, kept.weights
        pointers = _pointers(h, *state, *maps)
        if not library().forward(*size, table, *pointers, ctypes.c_int(torch.get_num_threads())):
            raise ValueError(f"width {width} is no multiple of 32 up to 192")
        ctx.set_materialize_grads(False)
        ctx.kept, ctx.values, ctx.size, ctx.pool = kept, values, size, pool
        return tuple(maps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Gradients of `apply`'s arguments."""
        given = [None if g is None else g.to(torch.bfloat16).contiguous() for g in gradients]
        assert given[-1] is not None
        kept, threads = ctx.kept, torch.get_num_threads()
        dh = torch.empty_like(given[-1])
        grads = torch.zeros((threads, library().gradient_size()))
        table = (ctypes.c_void_p * len(ctx.values))(*(v.data_ptr() for v in ctx.values))
        state = kept.maps, kept.bits, kept.means, kept.weights
        pointers = _pointers(*state, *given, dh, grads)
        library().backward(*ctx.size, table, *pointers, ctypes.c_int(threads))
        ctx.pool.append(kept)
        parts = (40 * 9 * C * C, 40 * C, 18 * 96, 19 * 64, 112, 48)
        dw, db, channel, pixel, fusion, last = grads.sum(0).split(parts)
        channel, pixel = channel.view(18, 96), pixel.view(19, 64)
        return (
            dh,
            dw.view(40, 3, 3, C, C).permute(0, 4, 3, 1, 2),
            db.view(40, C),
            channel[:, :32].reshape(18, 2, C),
            channel[:, 80:82],
            channel[:, 32:64].reshape(18, 2, C).transpose(1, 2),
            channel[:, 64:80],
            pixel[:, :32].reshape(19, 2, C),
            pixel[:, 32:34],
            pixel[:, 34:36],
            pixel[:, 36],
            fusion[:48],
            fusion[96:97],
            fusion[48:96],
            last,
        )


def _stacked(student: Student) -> list[Tensor]:
    """The blocks' parameters, those of a kind as one tensor: what `Body` takes after h."""
    convs = []
    inner: list[Student | InnerBlock] = []
    for block in student.outer:
        for one in block.inner:
            inner.append(one)
            convs += [one.conv1, one.conv2]
        convs.append(block.conv)
    convs.append(student.conv)
    stacks = [torch.stack([c.weight for c in convs]), torch.stack([c.bias for c in convs])]
    for key, shape in ATTENTION:
        of = [*inner, student] if key.startswith("pixel") else inner
        stacks.append(torch.stack([one.get_parameter(key).reshape(shape) for one in of]))
    reduce, expand = student.fusion.reduce, student.fusion.expand
    return stacks + [v.flatten() for c in (reduce, expand) for v in (c.weight, c.bias) if v is not None]


def forward_features(self: Student, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """As `Student.forward_features`, in bfloat16; for training."""
    half = torch.bfloat16
    with torch.autocast("cpu", enabled=False):
        h = _conv(x.to(half), self.head).permute(0, 2, 3, 1).contiguous()
        *maps, y = Body.apply(h, *_stacked(self))
        answer = _conv(y.permute(0, 3, 1, 2), self.tail).float() + x
    return answer, [m.permute(0, 3, 1, 2) for m in maps]


def _conv(x: Tensor, conv: torch.nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return F.conv2d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype), padding=1)


def check(student: Student, guided: bool, batch: int = 8, size: tuple[int, int] = (120, 160)) -> bool:
    """Compare with float32 and with bfloat16 autocast, on smooth random pictures; and time all three.

    Args:
        student: Any weights; their gradients are overwritten.
        guided: Whether the loss depends on the maps too, as when a teacher guides.
        batch: Pictures.
        size: Their height and width.
    """
    generator = torch.Generator().manual_seed(0)
    small = torch.rand((batch, 3, 9, 12), generator=generator)
    hazy = F.interpolate(small, size, mode="bicubic", align_corners=True).clamp(0, 1)
    hazy = hazy.contiguous(memory_format=torch.channels_last)
    goal = (hazy + 0.05 * torch.randn(hazy.shape, generator=generator)).clamp(0, 1)
    ways = {
        "float32": Student.forward_features,
        "autocast": Student.forward_features,
        "here": forward_features,
    }
    answers, gradients = {}, {}
    for name, way in ways.items():
        for _ in range(2):
            student.zero_grad()
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=name == "autocast"):
                answer, maps = way(student, hazy)
            loss = (answer.float() - goal).square().mean((1, 2, 3)).sqrt().mean()
            if guided:
                loss = loss + sum(m.float().square().mean() for m in maps)
            loss.backward()
            seconds = time.perf_counter() - began
        answers[name] = answer.detach().float()
        gradients[name] = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        print(f"{name}: {batch / seconds:.1f} pictures a second")
    right, off = gradients["float32"], {}
    for name in ("autocast", "here"):
        off[name] = float((gradients[name] - right).norm() / right.norm())
        change = (answers[name] - answers["float32"]).norm() / (answers["float32"] - hazy).norm()
        print(f"{name}: answers off by {change:.5f} of their change, gradient by {off[name]:.5f}")
    return off["here"] < 1.5 * off["autocast"]


def main() -> None:
    """Do what the command line asks for."""
    library()
    torch.manual_seed(0)
    fresh = Student()
    torch.nn.init.normal_(fresh.tail.weight, std=0.1)
    if not all(check(fresh, guided) for guided in (False, True)):
        sys.exit("the gradient is wrong here")
    if sys.argv[1:] == ["check"]:
        return
    plain = Student.forward_features

    def chosen(self: Student, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        training = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
        fits = x.device.type == "cpu" and x.shape[-1] % 32 == 0 and x.shape[-1] <= 192
        return (forward_features if training and fits else plain)(self, x)

    Student.forward_features = chosen  # type: ignore[method-assign]
    from dehaze.cli import main as dehaze

    sys.exit(dehaze())


if __name__ == "__main__":
    main()
