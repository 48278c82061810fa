"""The loop in one process: schedule, exact resume, budgets, best by validation, NaN."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dehaze.errors import TrainingError
from dehaze.models import LiteConfig, build
from dehaze.training.distributed import Distributed
from dehaze.training.loop import RunOptions, Trainer, learning_rate
from dehaze.training.recipe import Optimiser, Recipe, Stage
from dehaze.training.report import RunReporter
from dehaze.training.state import load_state, save_state
from dehaze.training.tasks import DehazeTask
from dehaze.weights.checkpoint import Header, read_header

RECIPE = Recipe(
    architecture="lite",
    model={"widths": (4, 4), "blocks": (1, 1)},
    validate_every=3,
    stages=(Stage(sizes=((8, 12), (12, 8)), batch=2, steps=4), Stage(sizes=((16, 16),), batch=2, steps=4)),
    optimiser=Optimiser(lr=1e-3, warmup=2, ema=0.9),
)

MUON = replace(
    RECIPE,
    model={"widths": (8, 8), "blocks": (1, 1)},
    optimiser=Optimiser(name="muon", lr=1e-3, warmup=2, ema=0.9),
)


class Noise:
    identity: ClassVar[dict[str, str | int]] = {"kind": "noise", "pictures": 10}

    def __init__(self, nan_at: int = 0) -> None:
        self.nan_at, self.drawn = nan_at, 0

    def __len__(self) -> int:
        return 10

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        self.drawn += 1
        clear = torch.rand(count, 3, *size, generator=generator)
        if self.drawn == self.nan_at:
            clear[0, 0, 0, 0] = math.nan
        return {"hazy": clear * 0.5 + 0.5, "clear": clear}


class Scripted:
    """A validator that gives what it was told to."""

    def __init__(self, scores: list[float]) -> None:
        self.scores, self.limits = scores, list[int | None]()

    def __call__(self, model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
        assert not model.training
        self.limits.append(limit)
        return {"psnr": self.scores.pop(0)}


def trainer(
    folder: Path,
    *,
    recipe: Recipe = RECIPE,
    source: Noise | None = None,
    scores: list[float] | None = None,
    validator: Any = None,
    context: dict[str, Any] | None = None,
    **options: object,
) -> Trainer:
    torch.manual_seed(recipe.seed)
    task = DehazeTask(build("lite", LiteConfig(**recipe.model)), loss="l1")
    return Trainer(
        recipe,
        task,
        source or Noise(),
        validator or Scripted(scores or [float(i) for i in range(20)]),
        RunOptions(folder, **{"log_every": 1, **options}),  # type: ignore[arg-type]
        Distributed(torch.device("cpu")),
        context=context,
    )


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def judge(model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
    """A validator whose answer depends on the weights alone."""
    return {"psnr": -float(sum(p.detach().square().sum() for p in model.parameters()))}


@pytest.mark.parametrize(
    ("at", "number", "reason", "recipe"),
    [
        (1, signal.SIGINT, "interrupted", RECIPE),
        (4, signal.SIGTERM, "terminated", RECIPE),
        (5, signal.SIGINT, "interrupted", RECIPE),
        (3, signal.SIGINT, "interrupted", MUON),
    ],
)
def test_resumed_equals_uninterrupted(
    tmp_path: Path, at: int, number: signal.Signals, reason: str, recipe: Recipe
) -> None:
    whole = trainer(tmp_path / "whole", recipe=recipe, validator=judge).run()

    first = trainer(tmp_path / "parts", recipe=recipe, validator=judge)
    step = first._step

    def interrupted(module: nn.Module) -> dict[str, float]:
        figures = step(module)
        if first.progress.step == at:
            signal.raise_signal(number)
        return figures

    first._step = interrupted  # type: ignore[method-assign]
    outcome = first.run()
    assert (outcome.reason, outcome.progress.step, outcome.finished) == (reason, at, False)

    second = trainer(tmp_path / "parts", recipe=recipe, validator=judge)
    assert second.resume()
    ended = second.run()
    assert ended.finished
    assert (ended.progress.best_metric, ended.progress.best_step) == (
        whole.progress.best_metric,
        whole.progress.best_step,
    )
    for name in ("best.safetensors", "last.safetensors", "state.safetensors"):
        assert same(tmp_path / "whole" / name, tmp_path / "parts" / name), name


def test_a_run_moves_the_weights_and_the_loss_falls(tmp_path: Path) -> None:
    recipe = replace(
        RECIPE,
        stages=(Stage(sizes=((16, 16),), batch=4, steps=60),),
        validate_every=100,
        optimiser=Optimiser(lr=2e-2, warmup=2),
    )
    heard: list[float] = []
    run = trainer(tmp_path, recipe=recipe)
    run.reporter = RunReporter(
        tmp_path,
        lambda event, figures: heard.append(figures["total"]) if event == "step" else None,
        tensorboard=False,
    )
    run.run()
    assert sum(heard[-10:]) < 0.5 * sum(heard[:10])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(1, 61))


def test_the_best_by_validation_is_kept(tmp_path: Path) -> None:
    outcome = trainer(tmp_path, scores=[0.0, 5.0, 9.0, 7.0]).run()
    assert (outcome.progress.best_metric, outcome.progress.best_step) == (9.0, 6)
    assert read_header(tmp_path / "best.safetensors").metrics == {"validation": {"psnr": 9.0}}
    assert read_header(tmp_path / "last.safetensors").metrics == {"validation": {"psnr": 7.0}}
    assert read_header(tmp_path / "best.safetensors").recipe["step"] == 6


def test_two_pictures_are_validated_before_the_first_step(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run()
    assert isinstance(run.validator, Scripted)
    assert run.validator.limits == [2, None, None, None]


def test_the_time_budget_ends_a_sitting_with_a_state(tmp_path: Path) -> None:
    outcome = trainer(tmp_path, max_minutes=0.0).run()
    assert (outcome.reason, outcome.finished, outcome.progress.step) == ("time", False, 1)
    assert load_state(tmp_path / "state.safetensors").progress.step == 1


def test_nan_stops_with_the_step_and_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan at step 3; .*state\.safetensors"):
        trainer(tmp_path, source=Noise(nan_at=3)).run()
    kept = load_state(tmp_path / "state.safetensors")
    assert all(torch.isfinite(t).all() for t in kept.part("model").values())


def test_an_infinite_gradient_of_a_finite_loss_stops_too(tmp_path: Path) -> None:
    run = trainer(tmp_path, save_minutes=0.0)
    parameter = next(run.task.parameters())
    parameter.register_hook(lambda g: g * math.inf if run.progress.step == 2 else g)
    with pytest.raises(TrainingError, match=r"the gradient is (nan|inf) at step 3"):
        run.run()
    kept = load_state(tmp_path / "state.safetensors")
    assert kept.progress.step == 2
    assert all(torch.isfinite(t).all() for t in kept.part("model").values())


def test_the_state_is_safe_before_a_stopped_run_is_judged(tmp_path: Path) -> None:
    def killed(model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
        if limit is None:
            raise KeyboardInterrupt
        return {"psnr": 0.0}

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, validator=killed, max_minutes=0.0).run()
    assert load_state(tmp_path / "state.safetensors").progress.step == 1


def test_a_stop_before_any_validation_leaves_a_checkpoint(tmp_path: Path) -> None:
    outcome = trainer(tmp_path, max_minutes=0.0, scores=[0.0, 7.0]).run()
    assert (outcome.progress.best_metric, outcome.progress.best_step) == (7.0, 1)
    assert read_header(outcome.checkpoint).recipe["step"] == 1


def test_another_teacher_is_refused_and_states_that_do_not_tell_are_taken(tmp_path: Path) -> None:
    trainer(tmp_path, max_minutes=0.0, context={"teacher": "abc"}).run()
    with pytest.raises(TrainingError, match='teacher: "abc" -> "def"'):
        trainer(tmp_path, context={"teacher": "def"}).resume()
    path = tmp_path / "state.safetensors"
    save_state(path, replace(load_state(path), context=None))
    assert trainer(tmp_path, context={"teacher": "def"}).resume()


def test_what_is_restored_lies_in_memory_as_the_weights_do(tmp_path: Path) -> None:
    def made() -> Trainer:
        run = trainer(tmp_path, max_minutes=0.0)
        run.task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return run

    made().run()
    run = made()
    run.resume()
    for parameter, slots in run.optimiser.state.items():
        assert slots["exp_avg"].stride() == parameter.stride()


def test_slow_steps_are_told_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dehaze.training.loop.REPORT_SECONDS", -1.0)
    run = trainer(tmp_path, log_every=100)
    run.reporter = RunReporter(tmp_path, lambda event, figures: None, tensorboard=False)
    run.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(2, 9))


def test_a_killed_run_logs_each_step_once(tmp_path: Path) -> None:
    """Steps after the last save are done again, and a line may have been cut off."""

    def logged(run: Trainer) -> Trainer:
        run.reporter = RunReporter(tmp_path, lambda event, figures: None, tensorboard=False)
        return run

    first = logged(trainer(tmp_path, save_minutes=1e9))
    step = first._step

    def killed(module: nn.Module) -> dict[str, float]:
        if first.progress.step == 5:
            raise SystemExit
        return step(module)

    first._step = killed  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        first.run()
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"event": "st')

    second = logged(trainer(tmp_path))
    assert second.resume()
    assert second.progress.step == 0
    second.run()
    steps = [e["step"] for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "step"]
    assert steps == list(range(1, 9))


def test_time_left_counts_pixels(tmp_path: Path) -> None:
    stages = (Stage(sizes=((8, 8),), batch=4, steps=2), Stage(sizes=((16, 16), (8, 16)), batch=2, steps=3))
    run = trainer(tmp_path, recipe=replace(RECIPE, stages=stages))
    assert run._work_left() == 2 * 4 * 64 + 3 * 2 * (256 + 128) / 2
    run.progress.step = 3
    assert run._work_left() == 2 * 2 * (256 + 128) / 2


def test_another_recipe_or_data_set_is_refused_with_the_difference(tmp_path: Path) -> None:
    trainer(tmp_path, max_minutes=0.0).run()
    changed = trainer(tmp_path, recipe=replace(RECIPE, seed=1))
    with pytest.raises(TrainingError, match="seed: 0 -> 1"):
        changed.resume()
    other = trainer(tmp_path)
    other.source.identity = {"kind": "noise", "pictures": 11}  # type: ignore[misc]
    with pytest.raises(TrainingError, match=r"data\.pictures: 10 -> 11"):
        other.resume()


def test_a_damaged_state_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(TrainingError, match="damaged and cannot be resumed"):
        trainer(tmp_path).resume()


def test_initial_weights_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(9)
    initial = build("lite", LiteConfig(widths=(4, 4), blocks=(1, 1))).state_dict()
    run = trainer(tmp_path, initial=initial)
    assert all(torch.equal(v, initial[k]) for k, v in run.task.model.state_dict().items())
    assert all(torch.equal(v, initial[k]) for k, v in run.average.items())


def test_the_moving_average_follows_its_definition(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    module = run.process.wrap(run.task)
    expected = {k: v.clone() for k, v in run.average.items()}
    for step in range(1, 5):
        run._step(module)
        decay = min(0.9, (1 + step) / (10 + step))
        for key, value in run.task.model.state_dict().items():
            expected[key] = decay * expected[key] + (1 - decay) * value
    assert all(torch.allclose(run.average[k], v, atol=1e-6) for k, v in expected.items())


def test_learning_rates_in_closed_form() -> None:
    cosine = Optimiser(lr=1.0, warmup=10, final=0.1)
    assert learning_rate(0, 110, cosine, 0) == pytest.approx(0.1)
    assert learning_rate(9, 110, cosine, 0) == pytest.approx(1.0)
    assert learning_rate(60, 110, cosine, 0) == pytest.approx(0.55)
    assert learning_rate(110, 110, cosine, 0) == pytest.approx(0.1)
    paper = Optimiser(lr=1e-5, warmup=0, schedule="step", decay=0.98, decay_epochs=10)
    assert learning_rate(99, 10**6, paper, 9) == 1e-5
    assert learning_rate(100, 10**6, paper, 10) == pytest.approx(0.98e-5)
    assert learning_rate(1999, 10**6, paper, 199) == pytest.approx(1e-5 * 0.98**19)
    assert learning_rate(500, 10**3, Optimiser(schedule="constant", lr=3.0), 0) == 3.0


def test_epochs_are_counted_over_stages_of_different_batches(tmp_path: Path) -> None:
    stages = (Stage(sizes=((8, 8),), batch=5, steps=4), Stage(sizes=((8, 8),), batch=2, steps=10))
    halving = Optimiser(lr=1.0, warmup=0, schedule="step", decay=0.5, decay_epochs=1)
    run = trainer(tmp_path, recipe=replace(RECIPE, stages=stages, optimiser=halving))  # 10 pictures an epoch
    module, rates = run._module(), []
    for _ in range(14):
        run._step(module)
        rates.append(run.optimiser.param_groups[0]["lr"])
    assert rates == [1, 1, 0.5, 0.5, *[0.25] * 5, *[0.125] * 5]


def test_a_finished_run_is_not_judged_again(tmp_path: Path) -> None:
    assert trainer(tmp_path).run().finished
    again = trainer(tmp_path, validator=Scripted([]))
    assert again.resume()
    outcome = again.run()
    assert outcome.finished
    assert outcome.checkpoint.is_file()


def test_a_state_without_its_best_checkpoint_is_refused(tmp_path: Path) -> None:
    """Without it a later, worse one would be kept as the best, or none at all."""
    trainer(tmp_path).run()
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"best.safetensors is missing, which this run wrote at step 8"):
        trainer(tmp_path).resume()


def test_a_setting_that_came_after_a_run_began_does_not_end_it(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    state = load_state(tmp_path / "state.safetensors")
    del state.recipe["kept_share"]
    save_state(tmp_path / "state.safetensors", state)
    assert trainer(tmp_path).resume()
    with pytest.raises(TrainingError, match=r"kept_share: 0.1 -> 0.3"):
        trainer(tmp_path, recipe=replace(RECIPE, kept_share=0.3)).resume()
