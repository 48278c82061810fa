"""Train the paper's student on one NVIDIA GPU: every step is one replay of a CUDA graph.

    python tools/student_gpu.py check --init student
    python tools/student_gpu.py train --clear nyu/images --depth nyu/depth --init student --max-minutes 9.6 \
        -o runs/gpu

The lesson is that of the recipe `gpu-student` (ITS' rule, warped views, bent scenes, `rmse`, Muon, cosine,
moving average) at one size; pictures, haze, network, optimiser and average are all in the graph, which does
not wait for the host. The blocks are `student_kernels.py`. The cosine runs over the time budget, so that the
rate has fallen whenever it ends. `check` compares output and gradient with PyTorch's own in float32, and
times what the card can do; `train` refuses a gradient that is further off than that of PyTorch's bfloat16.
No resume: `--init` goes on.

It needs Triton, which comes with PyTorch for CUDA; `TRITON_INTERPRET=1 python tools/student_gpu.py check
--size 16x16` compares a small picture without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import student_kernels
import torch
import torch.nn.functional as F
from student_cpu import ATTENTION
from torch import Tensor, nn

from dehaze import haze
from dehaze.data.depth import Frame, _level_size, _stack, find_frames, read_views
from dehaze.models.student import Student
from dehaze.training.loop import learning_rate
from dehaze.training.muon import UPDATE_RMS, orthogonalise
from dehaze.training.recipe import Stage, load_recipe
from dehaze.training.tasks import pixel_loss
from dehaze.weights import load
from dehaze.weights.checkpoint import Header, save_checkpoint

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU = DEVICE.type == "cuda"
HALF = torch.bfloat16 if GPU else torch.float32
RECIPE = load_recipe("gpu-student")
OPTIMISER = replace(RECIPE.optimiser, warmup=300)
MOMENTUM = 0.95
REPLAYS = 20
KEPT = (0.5, 0.8, 0.9)
"""Shares of the budget at which the average of the weights is kept, beside the start and the end."""


class Stacked(nn.Module):
    """A `Student` whose parameters of a kind are one tensor, so that one kernel serves all of them."""

    NAMES = ("w1", "b1", "w2", "b2", "v1", "c1", "v2", "c2")
    GROUPS = tuple((name, *row) for name, row in zip(NAMES, ATTENTION, strict=True))

    def __init__(self, student: Student) -> None:
        super().__init__()
        values = {k: v.detach().float() for k, v in student.state_dict().items()}
        self.shapes = {k: v.shape for k, v in values.items()}
        self.convs = [
            f"outer.{o}.conv" if i == 12 else f"outer.{o}.inner.{i // 2}.conv{i % 2 + 1}"
            for o in range(3)
            for i in range(13)
        ]
        self.inner = [f"outer.{o}.inner.{i}" for o in range(3) for i in range(6)]
        self.w = nn.Parameter(torch.stack([values[f"{k}.weight"] for k in self.convs]))
        self.b = nn.Parameter(torch.stack([values[f"{k}.bias"] for k in self.convs]))
        for name, key, shape in self.GROUPS:
            stacked = torch.stack([values[f"{k}.{key}"].reshape(shape) for k in self.inner])
            setattr(self, name, nn.Parameter(stacked))
        self.rest = [k for k in values if not k.startswith("outer.")]
        self.other = nn.ParameterDict(
            {k.replace(".", "/"): nn.Parameter(values[k].clone()) for k in self.rest}
        )

    def of(self, key: str) -> Tensor:
        """A parameter outside the outer blocks, by the student's name for it."""
        return self.other[key.replace(".", "/")]

    def unstacked(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values under this module's parameter names (weights, gradients), by the student's, on the CPU."""
        found: dict[str, Tensor] = {}
        for i, k in enumerate(self.convs):
            found[f"{k}.weight"], found[f"{k}.bias"] = values["w"][i], values["b"][i]
        for name, key, _ in self.GROUPS:
            found |= {
                f"{k}.{key}": values[name][i].reshape(self.shapes[f"{k}.{key}"])
                for i, k in enumerate(self.inner)
            }
        found |= {k: values["other." + k.replace(".", "/")] for k in self.rest}
        return {k: found[k].detach().float().cpu().clone().contiguous() for k in self.shapes}

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float32, channels last, to the same."""
        h = self._conv(x.to(HALF), "head").contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        groups = (getattr(self, name) for name, _, _ in self.GROUPS)
        maps = student_kernels.Body.apply(h, self.w, self.b, *groups)
        pooled = torch.cat([m.mean((1, 2), dtype=torch.float32) for m in maps], 1)
        a = torch.sigmoid(self._linear(torch.relu(self._linear(pooled, "fusion.reduce")), "fusion.expand"))
        a = a.to(HALF).view(len(x), 3, 1, 1, 16)
        y = torch.addcmul(torch.addcmul(maps[0] * a[:, 0], maps[1], a[:, 1]), maps[2], a[:, 2])
        s = torch.relu(self._linear(y, "pixel_attention.reduce"))
        y = y * torch.sigmoid(self._linear(s, "pixel_attention.expand"))
        return self._conv(self._conv(y.permute(0, 3, 1, 2), "conv"), "tail").float() + x

    def _conv(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(
            x, self.of(f"{name}.weight").to(x.dtype), self.of(f"{name}.bias").to(x.dtype), padding=1
        )

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(
            x, self.of(f"{name}.weight").flatten(1).to(x.dtype), self.of(f"{name}.bias").to(x.dtype)
        )


class Frames:
    """Frames on the device at the recipe's zooms or warped, and batches of them in haze.

    As `dehaze.data.depth.DepthSource`, but everything is drawn on the device, where a graph can replay it.

    Args:
        found: What to train on; none are random frames, for a check without data.
        size: Height and width of a batch.
        white: Share of airlights that are 1.
        varied: Share of pictures that are bent (`haze.vary`).
        painted: Share of pictures that are painted on (`haze.paint`).
    """

    def __init__(
        self, found: list[Frame], size: tuple[int, int], white: float, varied: float, painted: float
    ) -> None:
        sizes = [size] if RECIPE.warps else [_level_size(size, zoom) for zoom in RECIPE.zooms]
        with ProcessPoolExecutor(initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            rows = [row for rows in pool.map(partial(_views, sizes), found, chunksize=8) for row in rows]
        rows = rows or _noise(size)
        level = _stack([p for p, _ in rows], [d[None] for _, d in rows], DEVICE)
        self.pictures, self.depth = level.pictures.permute(0, 2, 3, 1), level.depth[:, 0]
        self.sizes = level.sizes.to(DEVICE)
        self.size, self.white, self.varied, self.painted = size, white, varied, painted
        self.edge = torch.tensor(size, device=DEVICE)
        self.rows, self.columns = (torch.arange(side, device=DEVICE) for side in size)
        self.generator = torch.cuda.default_generators[0] if GPU else torch.default_generator

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        """Hazy and clear pictures, (n, 3, H, W) in [0, 1], channels last; nothing waits for the device."""
        index = torch.randint(len(self.pictures), (n,), device=DEVICE)
        room = self.sizes[index] - self.edge
        corner = (torch.rand((n, 2), device=DEVICE) * (room + 1)).long().minimum(room)
        flip = torch.rand((n, 1), device=DEVICE) < 0.5
        columns = torch.where(flip, self.columns.flip(0)[None], self.columns[None]) + corner[:, 1:]
        rows = self.rows[None] + corner[:, :1]
        at = index[:, None, None], rows[:, :, None], columns[:, None, :]
        clear = (self.pictures[at].float() / 255).permute(0, 3, 1, 2)
        depth = (self.depth[at].float() / 255)[:, None]
        if self.varied:
            clear, depth = haze.vary(clear, depth, self.varied, self.generator)
        if self.painted:
            clear, depth = haze.paint(clear, depth, self.painted, self.generator)
        air, beta = haze.sample_its(n, self.generator, DEVICE, self.white, RECIPE.beta)
        t = haze.transmission(depth, beta, torch.ones_like(beta))
        hazy = haze.add_haze(clear, t, air)
        return (p.contiguous(memory_format=torch.channels_last) for p in (hazy, clear))  # type: ignore[return-value]


class Run:
    """A network, its optimiser and the average of its weights; `step` is one lesson."""

    def __init__(self, student: Student, frames: Frames, batch: int) -> None:
        self.net = Stacked(student).to(DEVICE)
        self.frames, self.batch = frames, batch
        named = dict(self.net.named_parameters())
        self.names, self.all = list(named), list(named.values())
        self.matrices = [named["w"], named["other.conv/weight"], named["other.head/weight"]]
        muon = {id(m) for m in self.matrices}
        rest = [p for p in self.all if id(p) not in muon]
        self.rate = torch.zeros((), device=DEVICE)
        self.adam = torch.optim.AdamW(
            rest, lr=self.rate, weight_decay=OPTIMISER.weight_decay, fused=GPU, capturable=GPU
        )
        self.moments = [torch.zeros_like(m) for m in self.matrices]
        self.average = [p.detach().clone() for p in self.all]
        self.told = torch.zeros(4, device=DEVICE)
        self.graph: torch.cuda.CUDAGraph | None = None

    def step(self) -> None:
        """One batch forward and backward, and an update."""
        hazy, clear = self.frames.batch(self.batch)
        answer = self.net(hazy)
        loss = pixel_loss(answer, clear, "rmse")
        loss.backward()
        self.update(loss.detach(), (answer.detach() - clear).square().flatten(1).mean(1))

    @torch.no_grad()
    def update(self, loss: Tensor, squares: Tensor) -> None:
        """Clip, then Muon and AdamW, as `dehaze.training` does; one that is not finite counts as zero."""
        gradients = [p.grad for p in self.all if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        finite = torch.isfinite(norm)
        scale = (OPTIMISER.clip / (norm + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.copy_(torch.where(finite, g * scale, torch.zeros_like(g)))
        for matrix, moment in zip(self.matrices, self.moments, strict=True):
            assert matrix.grad is not None
            moment.lerp_(matrix.grad, 1 - MOMENTUM)
            flat = matrix.grad.lerp(moment, MOMENTUM).reshape(-1, 16, matrix.shape[-3] * 9)
            move = orthogonalise(flat) * (UPDATE_RMS * max(flat.shape[1:]) ** 0.5)
            matrix.mul_(1 - self.rate * OPTIMISER.weight_decay).sub_(move.view(matrix.shape) * self.rate)
        self.adam.step()
        torch._foreach_lerp_(self.average, self.all, 1 - OPTIMISER.ema)
        psnr = -10 * torch.log10(squares.clamp_min(1e-9)).mean()
        self.told += torch.stack((torch.ones_like(loss), loss, psnr, 1 - finite.float()))
        for p in self.all:
            p.grad = None

    def capture(self) -> None:
        """Turn `step` into a graph; the steps that warm up have rate 0."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()
        self.told.zero_()

    def replay(self, times: int) -> None:
        """So many steps, which the host does not wait for."""
        for _ in range(times):
            if self.graph is None:
                self.step()
            else:
                self.graph.replay()

    def weights(self) -> dict[str, Tensor]:
        """The average, by the student's names."""
        return self.net.unstacked(dict(zip(self.names, self.average, strict=True)))


def _views(sizes: list[tuple[int, int]], frame: Frame) -> list[tuple[np.ndarray, np.ndarray]]:
    """A frame's picture and depth, reduced to cover each size."""
    views = read_views(frame, sizes, RECIPE.reduction, RECIPE.warps)
    return [(clear, depth) for of_size in views for clear, (depth, *_) in of_size]


def _noise(size: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Smooth random frames, for a check without data."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 9, 12, 4), np.uint8)
    large = [cv2.resize(s, (size[1] + 8, size[0] + 6)) for s in small]
    return [(frame[..., :3], frame[..., 3]) for frame in large]


def share_work(batch: int, size: tuple[int, int], tile: int = 64, warps: int = 4, stages: int = 2) -> None:
    """Set the kernels' launch for a batch: as many programs as run at once, all with equally many tiles."""
    total, most = batch * size[0] * size[1] // tile, 396 if tile == 64 else 264
    student_kernels.LAUNCH = student_kernels.Launch(
        tile, max(p for p in range(1, most + 1) if total % p == 0), warps, stages
    )


def gradient_is_right(student: Student, frames: Frames, batch: int, batches: int = 1) -> bool:
    """
    Compare answers and gradient with float32 PyTorch's, both added up over `batches`.

    On a GPU the kernels may be 1.5 times as far off as PyTorch under bfloat16 autocast: late in training
    most of a batch's gradient cancels, and what is left is in part rounding, theirs as ours. A wrong kernel
    is many times as far off.
    """
    share_work(batch, frames.size)
    plain = Student()
    plain.load_state_dict(student.state_dict())
    plain.to(DEVICE)
    net = Stacked(student).to(DEVICE)
    answers: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    distance = {"autocast": 0.0, "kernels": 0.0}
    change = 0.0
    for _ in range(batches):
        hazy, clear = frames.batch(batch)
        for name in ("float32", "autocast", "kernels"):
            module = net if name == "kernels" else plain
            module.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=name == "autocast"):
                answer = module(hazy)
            pixel_loss(answer.float(), clear, "rmse").backward()
            found = {k: p.grad for k, p in module.named_parameters() if p.grad is not None}
            if name == "kernels":
                found = net.unstacked(found)
            gradient = torch.cat([found[k].flatten().cpu() for k, _ in plain.named_parameters()])
            gradients[name] = gradients.get(name, torch.zeros_like(gradient)) + gradient
            answers[name] = answer.detach().float()
        change += float((answers["float32"] - hazy).norm())
        for name in distance:
            distance[name] += float((answers[name] - answers["float32"]).norm())
    right = gradients["float32"]
    off = {name: float((gradients[name] - right).norm() / right.norm()) for name in distance}
    for name in distance:
        of_answer = distance[name] / change
        print(f"{name}: answers off by {of_answer:.5f} of their change, gradient by {off[name]:.5f}")
    return off["kernels"] < (1.5 * off["autocast"] if GPU else 0.03)


def time_steps(student: Student, frames: Frames) -> None:
    """Print what a step takes with a few batches and launches; needs a GPU."""
    print(torch.cuda.get_device_name(), torch.__version__)
    for batch, tile, warps, stages in ((33, 64, 4, 2), (44, 64, 4, 2)):
        share_work(batch, frames.size, tile, warps, stages)
        run = Run(student, frames, batch)
        run.capture()
        run.replay(5)
        torch.cuda.synchronize()
        began = time.perf_counter()
        run.replay(40)
        torch.cuda.synchronize()
        step = (time.perf_counter() - began) / 40
        print(f"batch {batch}, tile {tile}: {step * 1e3:.1f} ms a step, {batch / step:.0f} pictures a second")


def train(
    options: argparse.Namespace, student: Student, frames: Frames, header: Header, began: float
) -> None:
    """Train until the budget, which counts from `began`, is spent; keeps a log and weights."""
    share_work(options.batch, frames.size)
    run = Run(student, frames, options.batch)
    if GPU:
        run.capture()
    options.output.mkdir(parents=True, exist_ok=True)
    start = told = time.monotonic()
    budget = max(1.0, 60 * options.max_minutes - (start - began))
    steps, kept, optimiser = 0, [0.0, *KEPT], replace(OPTIMISER, lr=options.lr)
    while (share := (time.monotonic() - start) / budget) < 1:
        rate = learning_rate(steps, round(steps / max(share, 1e-9)), optimiser, 0)
        run.rate.fill_(rate)
        run.replay(REPLAYS if GPU else 1)
        steps += REPLAYS if GPU else 1
        if GPU and steps % 100 == 0:
            torch.cuda.synchronize()
        if kept and share >= kept[0]:
            _publish(options, f"{kept.pop(0):.2f}", run, header, steps)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            _tell(options, run, steps, rate, told - start)
    _publish(options, "last", run, header, steps)


def _tell(options: argparse.Namespace, run: Run, steps: int, rate: float, seconds: float) -> None:
    count, loss, psnr, bad = run.told.tolist()
    run.told.zero_()
    figures = {
        "step": steps,
        "seconds": round(seconds, 1),
        "lr": rate,
        "loss": loss / count,
        "psnr": psnr / count,
    }
    line = json.dumps(figures | {"not_finite": bad})
    print(line, flush=True)
    with (options.output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _publish(options: argparse.Namespace, name: str, run: Run, header: Header, steps: int) -> None:
    """Write the average as a checkpoint; judge it with `dehaze bench`."""
    recipe = replace(
        RECIPE,
        stages=(Stage((options.size,), run.batch, steps),),
        optimiser=replace(OPTIMISER, lr=options.lr),
        white_share=options.white_share,
        varied_share=options.varied_share,
        painted_share=options.painted_share,
        seed=options.seed,
    )
    kept = replace(
        header,
        reduction=recipe.reduction,
        recipe=recipe.to_dict() | {"step": steps, "steps": steps, "tool": "tools/student_gpu.py"},
        data={k: v for k, v in header.data.items() if k != "identity"},  # the start's settings
        metrics={},
        source_commit=options.commit,
    )
    save_checkpoint(options.output / f"{name}.safetensors", run.weights(), kept)


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(height), int(width)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checking, training = (commands.add_parser(name) for name in ("check", "train"))
    training.add_argument("--clear", type=Path, required=True, help="folder of clear pictures")
    training.add_argument("--depth", type=Path, required=True, help="folder of their depth maps")
    training.add_argument("--max-minutes", type=float, required=True)
    training.add_argument("--batch", type=int, default=33)
    training.add_argument("--lr", type=float, default=3e-3)
    training.add_argument("--commit", default="", help="of this code, for the checkpoint")
    training.add_argument("-o", "--output", type=Path, required=True)
    for command in (checking, training):
        command.add_argument("--init", default="student", help="checkpoint to start from")
        command.add_argument("--white-share", type=float, default=RECIPE.white_share)
        command.add_argument("--varied-share", type=float, default=RECIPE.varied_share)
        command.add_argument("--painted-share", type=float, default=RECIPE.painted_share)
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--size", type=_size, default=(120, 160), metavar="WxH")
    return parser.parse_args()


def main() -> None:
    """Do what the command line asks for."""
    began = time.monotonic()
    options = _options()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    torch.manual_seed(options.seed)
    model, header = load(options.init)
    if not isinstance(model, Student):
        sys.exit(f"{options.init} is no student")
    found = find_frames(options.clear, options.depth) if options.command == "train" else []
    shares = options.white_share, options.varied_share, options.painted_share
    frames = Frames(found, options.size, *shares)
    student = model.float().requires_grad_(True)
    if not gradient_is_right(student, frames, *((22, 8) if GPU else (2, 1))):
        sys.exit("the kernels' gradient is wrong here")
    if options.command == "train":
        train(options, student, frames, header, began)
    elif GPU:
        time_steps(student, frames)


if __name__ == "__main__":
    main()
