"""The training loop: batches in, best checkpoint out. It knows tasks only as named losses.

An interrupted and resumed run equals an uninterrupted one bit for bit on a CPU: everything random comes from
generators whose states are saved with the weights.
"""

from __future__ import annotations

import json
import math
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dehaze.data import Source
from dehaze.device import computes_bf16
from dehaze.errors import TrainingError
from dehaze.models import architecture_of, config_dict, count_parameters
from dehaze.parts import write_whole
from dehaze.training.distributed import Distributed
from dehaze.training.muon import Muon
from dehaze.training.recipe import Optimiser, Recipe, Stage
from dehaze.training.state import (
    Progress,
    RunState,
    differences,
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
)
from dehaze.training.tasks import Task
from dehaze.training.validation import Validator
from dehaze.weights.card import card
from dehaze.weights.checkpoint import Header, save_checkpoint, sha256_of

SAMPLES = 4
"""Pictures shown to a reporter after each validation."""

REPORT_SECONDS = 10.0
"""Longest time without a report, steps permitting."""

REHEARSALS, REHEARSAL_SECONDS = 6, 20.0
"""Steps that are timed at each stage for an estimate, unless they take longer than this."""

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state.safetensors"


class Reporter(Protocol):
    """Told what happens; writes logs and shows progress."""

    def step(self, figures: dict[str, float]) -> None:
        """Called now and then: ``step``, ``steps``, ``lr``, ``pictures_per_s``, ``seconds_left``, losses."""
        ...

    def validation(self, figures: dict[str, float], best: bool) -> None:
        """Called after each validation."""
        ...

    def samples(self, step: int, rows: dict[str, Tensor]) -> None:
        """Called after each validation with named pictures, (N, 3, H, W) in [0, 1]."""
        ...

    def rewind(self, step: int) -> None:
        """Called when a run goes on from this step: what was told of later ones will be told again."""
        ...


@dataclass(frozen=True)
class RunOptions:
    """What does not change the outcome of a run, only how it is carried out.

    Attributes:
        folder: Where checkpoints, state and card go.
        max_minutes: Stop after this long in this sitting; None runs to the end.
        save_minutes: Time between saves of the state.
        log_every: Steps between reports; slow steps are reported after `REPORT_SECONDS`.
        source_commit: Commit of the code, for the checkpoint's header.
        data: What the header says of the data, beside its identity.
        licence: Terms of the weights, for the header.
        initial: Weights to start from instead of random ones.
        compile: Compile the step: a minute of waiting, then faster (``benchmarks/training_step.py``).
    """

    folder: Path
    max_minutes: float | None = None
    save_minutes: float = 3.0
    log_every: int = 50
    source_commit: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    initial: dict[str, Tensor] | None = None
    compile: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended.

    Attributes:
        progress: Where the run stands.
        finished: Whether the last step of the recipe was done.
        reason: ``finished``, ``time``, ``interrupted`` (Ctrl-C) or ``terminated`` (SIGTERM).
        checkpoint: The best checkpoint so far.
    """

    progress: Progress
    finished: bool
    reason: str
    checkpoint: Path


def learning_rate(step: int, steps: int, optimiser: Optimiser, epochs: int) -> float:
    """Learning rate of a step (counted from 0) of a run of `steps`, before which so many epochs were done."""
    if step < optimiser.warmup:
        return optimiser.lr * (step + 1) / optimiser.warmup
    if optimiser.schedule == "constant":
        return optimiser.lr
    if optimiser.schedule == "step":
        return optimiser.lr * optimiser.decay ** (epochs // optimiser.decay_epochs)
    share = (step - optimiser.warmup) / max(1, steps - optimiser.warmup)
    low = optimiser.lr * optimiser.final
    return low + (optimiser.lr - low) * (1 + math.cos(math.pi * min(1.0, share))) / 2


class Trainer:
    """One run: a task, its data and where it stands.

    Args:
        recipe: What decides the outcome.
        task: What is learned; already on the device.
        source: Batches.
        validator: Judges checkpoints; only called by the main process.
        options: How to carry it out.
        process: This process among those that train together.
        reporter: Told what happens; None for silence.
        context: What else decides the outcome, named for people: the teacher, what it is validated on.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        source: Source,
        validator: Validator,
        options: RunOptions,
        process: Distributed,
        reporter: Reporter | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        self.recipe, self.task, self.source = recipe, task, source
        self.validator, self.options, self.process, self.reporter = validator, options, process, reporter
        if options.initial is not None:
            task.model.load_state_dict(options.initial)
        self.optimiser = _make_optimiser(recipe.optimiser, task)
        self.generator = torch.Generator().manual_seed(process.seed(recipe.seed))
        self.average = {k: v.detach().clone() for k, v in task.model.state_dict().items()}
        self.context = context or {}
        self.progress = Progress()
        self._ends = recipe.stage_ends(len(source))
        self._choices = torch.Generator().manual_seed(recipe.seed)
        self._signal: signal.Signals | None = None
        self._tell = False
        own = task.model.state_dict()
        floating = [k for k, v in own.items() if v.is_floating_point()]
        self._followed = [self.average[k] for k in floating], [own[k] for k in floating]
        self._counted = [(self.average[k], v) for k, v in own.items() if not v.is_floating_point()]
        self._watched: _Watch | None = None
        for stage in recipe.stages:
            process.share(stage.batch)  # refuses now what would fail at a late stage

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self._ends[-1]

    def resume(self) -> bool:
        """Go on from the folder's state; returns whether there was one.

        Raises:
            TrainingError: The state belongs to another recipe, data set or number of processes, or the best
            checkpoint that it tells of is gone.
        """
        path = self.options.folder / STATE
        if not path.is_file():
            return False
        state = load_state(path)
        older = _plain(Recipe().to_dict())  # settings that came later have the value of the time before them
        changed = differences(older | state.recipe, _plain(self.recipe.to_dict()))
        changed += differences(state.identity, _plain(self.source.identity), "data.")
        if state.context is not None:
            changed += differences(state.context, _plain(self.context))
        if state.world_size != self.process.world:
            changed.append(f"processes: {state.world_size} -> {self.process.world}")
        if changed:
            raise TrainingError(
                f"{self.options.folder} was started differently and cannot be resumed: {'; '.join(changed)}",
                "give back the old values, or start afresh in another folder with -o",
            )
        best = self.options.folder / BEST
        if state.progress.best_step and not best.is_file():
            raise TrainingError(
                f"{best} is missing, which this run wrote at step {state.progress.best_step}",
                f"copy it there, or do without it: copy {LAST} to that name",
            )
        self._restore(state)
        return True

    def run(self) -> Outcome:
        """Train until the recipe, the time budget or Ctrl-C ends it; always leaves a state to resume from.

        Raises:
            TrainingError: A loss became NaN or infinite; the message names the step and the last good state.
        """
        if self.progress.step == 0:
            self._validate(limit=2, keep=False)
            self._save()
        module = self._module()
        started = saved = time.monotonic()
        before, stop, meter = self.progress.seconds, "", _Meter()
        with _interrupts(self):
            while self.progress.step < self.steps and not stop:
                stage = self._stage()
                losses = self._step(module)
                meter.count(stage)
                now = time.monotonic()
                self.progress.seconds = before + now - started
                step = self.progress.step
                if losses:
                    self._report(losses, meter)
                    meter = _Meter()
                if step % self.recipe.validate_every == 0 and step < self.steps:
                    self._validate()
                    meter = _Meter()
                save, stop = self._decide(now - saved, now - started, meter.seconds)
                if save:
                    self._save()
                    saved = now
        return self._end(stop)

    def rehearse(self) -> list[float]:
        """Median seconds of a whole step at each stage; moves the weights, so run nothing afterwards."""
        module = self._module()
        return [self._rehearse(module, start) for start in [0, *self._ends[:-1]]]

    def _rehearse(self, module: nn.Module, start: int) -> float:
        times: list[float] = []
        began = time.monotonic()
        while len(times) < REHEARSALS and (len(times) < 2 or time.monotonic() - began < REHEARSAL_SECONDS):
            self.progress.step = start
            before = time.perf_counter()
            self._step(module)
            self._settle()
            if self.process.device.type == "cuda":
                torch.cuda.synchronize(self.process.device)
            times.append(time.perf_counter() - before)
        return statistics.median(times[1:])

    def _module(self) -> nn.Module:
        """What to call on a batch."""
        module = self.process.wrap(self.task)
        if self.options.compile:
            module = torch.compile(module, dynamic=False)  # type: ignore[assignment]
        return module

    def _end(self, stop: str) -> Outcome:
        """Save, and judge what was not judged yet.

        The state comes first: who stops a run may not wait for a validation. One that the recipe does not ask
        for leaves no trace in the state, or a run that was interrupted would keep another best checkpoint.
        """
        self._save()
        finished = self.progress.step >= self.steps
        if self.progress.step != self.progress.judged:
            self._validate(scheduled=finished)
            if finished:
                self._save()
        return Outcome(self.progress, finished, "finished" if finished else stop, self.options.folder / BEST)

    def _decide(self, since_save: float, since_start: float, since_report: float) -> tuple[bool, str]:
        """Whether to save now, and why to stop if so (and whether to tell the next step's figures).

        The answer is the same in every process: the main one's clock counts, and a signal to any of them. A
        signal that arrives later than this waits for the next step, or the processes would part.
        """
        main, budget = self.process.is_main, self.options.max_minutes
        votes = self.process.total(
            {
                "save": float(main and since_save > 60 * self.options.save_minutes),
                "time": float(main and budget is not None and since_start > 60 * budget),
                "interrupted": float(self._signal == signal.SIGINT),
                "terminated": float(self._signal == signal.SIGTERM),
                "report": float(main and since_report > REPORT_SECONDS),
            }
        )
        self._tell = votes["report"] > 0
        stop = next((reason for reason in ("interrupted", "terminated", "time") if votes[reason]), "")
        return votes["save"] > 0, stop

    def _stage(self) -> Stage:
        return next(
            stage
            for stage, end in zip(self.recipe.stages, self._ends, strict=True)
            if self.progress.step < end or end == self.steps
        )

    def _step(self, module: nn.Module) -> dict[str, float]:
        stage, recipe = self._stage(), self.recipe
        size = stage.sizes[int(torch.randint(len(stage.sizes), (), generator=self._choices))]
        batch = self.source.batch(self.process.share(stage.batch), size, self.generator)
        epochs = self._pictures_done() // len(self.source)
        rate = learning_rate(self.progress.step, self.steps, recipe.optimiser, epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        device = self.process.device.type
        self.task.train()
        with precision(recipe, device):
            losses: dict[str, Tensor] = module(_channels_last(batch))
        self._settle()  # the step before: while this one was queued, its figures arrived
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.task.parameters(), recipe.optimiser.clip or math.inf)
        self._watched = _Watch(self.progress.step + 1, losses["total"], norm)
        self.optimiser.step()
        self.progress.step += 1
        self._update_average()
        step = self.progress.step
        if not self._tell and step % self.options.log_every and step != self.steps:
            return {}
        self._settle()
        return self.process.mean({k: float(v.detach()) for k, v in losses.items()})

    def _pictures_done(self) -> int:
        """Pictures of all steps so far, over all processes."""
        starts, at = [0, *self._ends], self.progress.step
        stages = zip(self.recipe.stages, starts, self._ends, strict=False)
        return sum(stage.batch * (min(at, end) - min(at, start)) for stage, start, end in stages)

    def _settle(self) -> None:
        """Make sure that the last step's loss and gradient were finite; before anything is kept of it.

        Raises:
            TrainingError: They were not.
        """
        watched, self._watched = self._watched, None
        if watched is None:
            return
        what, value = watched.worst()
        bad = not math.isfinite(value)
        if self.process.any(bad):
            told = f"the {what} is {value}" if bad else "the loss is not finite in another process"
            raise TrainingError(
                f"{told} at step {watched.step}; the last good state is {self.options.folder / STATE}",
                "lower the learning rate (--lr) or optimiser.clip, and start in another folder",
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        # young averages forget faster, so that the random start does not linger
        decay = min(self.recipe.optimiser.ema, (1 + self.progress.step) / (10 + self.progress.step))
        if not self.recipe.optimiser.ema:
            decay = 0.0
        torch._foreach_lerp_(*self._followed, 1 - decay)
        for kept, value in self._counted:
            kept.copy_(value)

    def _validate(self, *, limit: int | None = None, keep: bool = True, scheduled: bool = True) -> None:
        self._settle()
        self.progress.judged = self.progress.step if keep else 0
        if self.process.is_main:
            figures = self.judge(limit)
            eligible = keep and (scheduled or not self.progress.best_step)
            best = eligible and figures["psnr"] > self.progress.best_metric
            if best:
                self.progress.best_metric, self.progress.best_step = figures["psnr"], self.progress.step
                self._publish(BEST, figures)
            if keep:
                self._publish(LAST, figures)
                if self.reporter:
                    self.reporter.validation({"step": self.progress.step, **figures}, best)
                    self.reporter.samples(self.progress.step, self._samples())
        self.process.barrier()

    def judge(self, limit: int | None) -> dict[str, float]:
        """Validate the average of the weights on so many pictures of each set; None takes all."""
        with self._averaged() as model:
            return self.validator(model, self._header({}), limit=limit)

    @contextmanager
    def _averaged(self) -> Iterator[nn.Module]:
        """The network with the average of its weights, ready to answer."""
        model = self.task.model
        current = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(self.average)
        model.eval()
        try:
            yield model
        finally:
            model.load_state_dict(current)

    @torch.no_grad()
    def _samples(self) -> dict[str, Tensor]:
        """A few training pictures, always the same: what the network is given, its answer, and the truth."""
        stage = self._stage()
        batch = self.source.batch(SAMPLES, stage.sizes[0], torch.Generator().manual_seed(0))
        given, truth = self.task.pair(batch)
        with self._averaged() as model:
            return {"given": given, "answer": model(given), "truth": truth}

    def _header(self, figures: dict[str, float]) -> Header:
        model = self.task.model
        return Header(
            name=self.recipe.name,
            architecture=architecture_of(model),
            config=config_dict(model),
            working_size=self.recipe.working_size or None,
            transfer_radius=self.recipe.transfer_radius,
            reduction=self.recipe.reduction,
            second_look=self.recipe.second_look or None,
            parameters=count_parameters(model),
            recipe=self.recipe.to_dict() | {"step": self.progress.step, "steps": self.steps},
            data=self.options.data | {"identity": self.source.identity},
            metrics={"validation": figures} if figures else {},
            source_commit=self.options.source_commit,
            licence=self.options.licence,
        )

    def _publish(self, name: str, figures: dict[str, float]) -> None:
        path = self.options.folder / name
        header = self._header(figures)
        save_checkpoint(path, self.average, header)
        write_whole(path.with_suffix(".md"), card(header, name, sha256_of(path)).encode())
        if self.task.extras is not None:
            extras = path.with_name(f"{path.stem}.extras.safetensors")
            save_checkpoint(extras, self.task.extras.state_dict(), header)

    def _save(self) -> None:
        self._settle()
        randoms = self.process.gather(self.generator.get_state())
        if self.process.is_main:
            tensors = {f"model.{k}": v for k, v in self.task.model.state_dict().items()}
            tensors |= {f"ema.{k}": v for k, v in self.average.items()}
            tensors |= {f"optimiser.{k}": v for k, v in optimiser_tensors(self.optimiser).items()}
            tensors |= {f"random.{rank}": state for rank, state in enumerate(randoms)}
            tensors["choices"] = self._choices.get_state()
            if self.task.extras is not None:
                tensors |= {f"extras.{k}": v for k, v in self.task.extras.state_dict().items()}
            state = RunState(
                self.progress,
                self.recipe.to_dict(),
                dict(self.source.identity),
                tensors,
                self.process.world,
                self.context,
            )
            save_state(self.options.folder / STATE, state)
        self.process.barrier()

    def _restore(self, state: RunState) -> None:
        self.task.model.load_state_dict(state.part("model"))
        if self.task.extras is not None:
            self.task.extras.load_state_dict(state.part("extras"))
        for key, value in state.part("ema").items():
            self.average[key].copy_(value)
        restore_optimiser(self.optimiser, state.part("optimiser"))
        self.generator.set_state(state.part("random")[str(self.process.rank)])
        self._choices.set_state(state.tensors["choices"])
        self.progress = state.progress
        if self.reporter:
            self.reporter.rewind(self.progress.step)

    def _report(self, losses: dict[str, float], meter: _Meter) -> None:
        if self.reporter and self.process.is_main:
            seconds = meter.seconds
            self.reporter.step(
                {
                    "step": self.progress.step,
                    "steps": self.steps,
                    **losses,
                    "lr": self.optimiser.param_groups[0]["lr"],
                    "pictures_per_s": meter.pictures / seconds,
                    "seconds_left": self._work_left() * seconds / meter.pixels,
                }
            )

    def _work_left(self) -> float:
        """Pixels to go: later stages' pictures are larger, so that pictures would tell less."""
        starts = [0, *self._ends]
        return sum(
            _pixels(stage) * max(0, end - max(start, self.progress.step))
            for stage, start, end in zip(self.recipe.stages, starts, self._ends, strict=False)
        )


class _Meter:
    """What was done since it was made."""

    def __init__(self) -> None:
        self.pictures = 0
        self.pixels = 0.0
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since, above 0."""
        return max(1e-9, time.monotonic() - self._since)

    def count(self, stage: Stage) -> None:
        """Count one step."""
        self.pictures += stage.batch
        self.pixels += _pixels(stage)


def _pixels(stage: Stage) -> float:
    """Pixels of a step, on average over the stage's sizes."""
    return stage.batch * sum(h * w for h, w in stage.sizes) / len(stage.sizes)


class _Watch:
    """A step's loss and gradient norm on their way to the host, which does not wait for them.

    Args:
        step: The step, counted from 1.
        loss: Its loss.
        norm: Norm of its gradient.
    """

    def __init__(self, step: int, loss: Tensor, norm: Tensor) -> None:
        self.step = step
        self._figures = torch.stack((loss.detach().float(), norm.detach().float()))
        self._ready: torch.cuda.Event | None = None
        if self._figures.device.type == "cuda":
            on_host = torch.empty(2, pin_memory=True)
            self._figures = on_host.copy_(self._figures, non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()

    def worst(self) -> tuple[str, float]:
        """Name and value of the first that is not finite, else of the loss."""
        if self._ready is not None:
            self._ready.synchronize()
        loss, norm = self._figures.tolist()
        return ("gradient", norm) if math.isfinite(loss) and not math.isfinite(norm) else ("loss", loss)


def precision(recipe: Recipe, device: str) -> AbstractContextManager[Any]:
    """The context a recipe's forward pass runs in on a kind of device: bf16 only where it is no burden."""
    half = recipe.precision == "bf16" and computes_bf16(device)
    return torch.autocast(device, torch.bfloat16) if half else nullcontext()


def _make_optimiser(settings: Optimiser, task: Task) -> torch.optim.Optimizer:
    parameters = [p for p in task.parameters() if p.requires_grad]
    # fused: small networks have so many small tensors that a tenth of a step went into updating them
    if settings.name == "adam":
        return torch.optim.Adam(parameters, lr=settings.lr, fused=True)
    if settings.name == "muon":
        return Muon(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def _channels_last(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: pictures.to(memory_format=torch.channels_last) for name, pictures in batch.items()}


def _plain(values: Any) -> Any:
    """As JSON would give it back: tuples become lists."""
    return json.loads(json.dumps(values))


@contextmanager
def _interrupts(trainer: Trainer) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a stop after the current step; a second one stops at once."""

    def ask(number: int, frame: object) -> None:
        if trainer._signal:
            raise KeyboardInterrupt
        trainer._signal = signal.Signals(number)

    kept: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            kept[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: leave signals alone
        pass
    try:
        yield
    finally:
        for which, handler in kept.items():
            signal.signal(which, handler)
