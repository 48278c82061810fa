"""Recipes: small TOML files that say how to train; every value can be overridden by name."""

from __future__ import annotations

import math
import tomllib
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from dehaze.affinity import Measure
from dehaze.errors import UsageError
from dehaze.haze import ITS_BETA, REAL_HAZE, RealHaze
from dehaze.limits import Reduction
from dehaze.training.tasks import Guidance, PixelLoss
from dehaze.weights.checkpoint import MAX_TRANSFER_RADIUS


@dataclass(frozen=True)
class Optimiser:
    """How weights move.

    Attributes:
        name: ``adam`` as in the paper, ``adamw``, or ``muon`` (`dehaze.training.muon`).
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay (not ``adam``).
        clip: Largest gradient norm; 0 does not clip.
        schedule: ``cosine`` to `final` of the peak, ``step`` (times `decay` every `decay_epochs`) or
            ``constant``.
        warmup: Steps of linear warm-up.
        final: Last learning rate of ``cosine``, as a share of the peak.
        decay: Factor of ``step``.
        decay_epochs: Epochs between decays of ``step``.
        ema: Decay of the moving average of the weights; 0 keeps none.
    """

    name: Literal["adam", "adamw", "muon"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: int = 200
    final: float = 0.01
    decay: float = 0.98
    decay_epochs: int = 10
    ema: float = 0.998


@dataclass(frozen=True)
class Stage:
    """One size of pictures; stages follow each other (progressive resizing).

    Attributes:
        sizes: (height, width) choices; each batch draws one.
        batch: Pictures a step, over all processes.
        steps: Steps of this stage; 0 to give `epochs` instead.
        epochs: Passes over the data, when `steps` is 0.
    """

    sizes: tuple[tuple[int, int], ...] = ((120, 160),)
    batch: int = 16
    steps: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Distillation:
    """The feature affinity module (3.3) and its weight (eq. 15).

    Attributes:
        teacher: Name or path of the teacher's checkpoint; empty for the bundled one.
        weight: w_FA (Table 7).
        loss: Distance between affinities (Table 8).
        guidance: ``hr`` feeds the teacher the clear picture, ``lr`` the same at half resolution (Table 6).
        projections: Learn a 1 x 1 projection per scale on the student's side; saved apart.
        pool: Size of the affinity's grid over the input's (paper: 0.25).
        temperature: Softmax temperature of the KL loss.
    """

    teacher: str = ""
    weight: float = 0.25
    loss: Measure = "l2"
    guidance: Guidance = "hr"
    projections: bool = False
    pool: float = 0.25
    temperature: float = 0.1


MADE_HAZE = (
    "haze",
    "zooms",
    "warps",
    "clear_share",
    "white_share",
    "beta",
    "varied_share",
    "painted_share",
    "kept_share",
    "real",
)
"""Settings of haze that is made over clear pictures; pairs come with theirs."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run, but the data.

    Attributes:
        name: Name of the recipe.
        description: One sentence for people.
        task: ``dehaze`` (eq. 14), ``super-resolution`` (eq. 13) or ``distill`` (eq. 15).
        architecture: Key of `dehaze.models.ARCHITECTURES`.
        model: Fields of the architecture's config that differ from its defaults.
        loss: Pixel loss: see `dehaze.training.tasks.pixel_loss`.
        haze: Haze drawn over clear + depth: see `dehaze.data.depth.DepthSource`.
        view: ``whole`` pictures reduced to the size, or ``crop`` pieces of them at full resolution.
        zooms: Multiples of the size, from 1, at which ``whole`` pictures over clear + depth are kept; each
            batch is cut from one of them.
        warps: Views of each ``whole`` picture over clear + depth that are kept instead of zooms, all but the
            first a little nearer, turned, stretched and tilted (`dehaze.data.depth.warped`); 0 for zooms.
        clear_share: Share of pictures over clear + depth that stay without haze.
        white_share: Share of ``its`` airlights over clear + depth that are 1, as all of SOTS indoor's are,
            instead of drawn from [0.7, 1].
        beta: Lowest and highest beta of ``its`` haze over clear + depth; SOTS indoor's are 0.6 to 1.5.
        varied_share: Share of pictures over clear + depth whose tones, colours and depth are bent
            (`dehaze.haze.vary`).
        painted_share: Share of pictures over clear + depth with a rectangle of pure colours
            (`dehaze.haze.paint`).
        kept_share: Share of the optical depth of ``real`` haze that stays in the truth
            (`dehaze.haze.leave_some`). Photographs called clear have some, and networks taught to remove
            every bit remove too much outdoors (He et al., 2011, keep 0.05).
        real: What ``real`` haze is drawn from.
        precision: ``fp32``; or ``bf16``, autocast where the device has such arithmetic (`dehaze.device`).
        working_size: Long side the finished network works at; 0 for any (None in the checkpoint).
        reduction: How ``whole`` pictures are reduced, in training as in use (`dehaze.working_copy.reduce`).
        second_look: Long side at which the finished network looks at the mirrored picture, too; 0 for one
            look alone (None in the checkpoint).
        transfer_radius: Radius in working pixels over which its answers are averaged (`dehaze.upsample.fit`).
        validate_every: Steps between validations.
        seed: Seed of weights and batches.
        stages: Sizes and lengths.
        optimiser: How weights move.
        distillation: Used by ``distill``.
    """

    name: str = "custom"
    description: str = ""
    task: Literal["dehaze", "super-resolution", "distill"] = "dehaze"
    architecture: str = "student"
    model: dict[str, Any] = field(default_factory=dict)
    loss: PixelLoss = "l1"
    haze: Literal["its", "real", "mixed"] = "its"
    view: Literal["whole", "crop"] = "whole"
    zooms: tuple[float, ...] = (1.0, 1.15, 1.35)
    warps: int = 0
    clear_share: float = 0.0
    white_share: float = 0.0
    beta: tuple[float, float] = ITS_BETA
    varied_share: float = 0.0
    painted_share: float = 0.0
    kept_share: float = 0.1
    real: RealHaze = REAL_HAZE
    precision: Literal["fp32", "bf16"] = "fp32"
    working_size: int = 160
    reduction: Reduction = "mean"
    second_look: int = 0
    transfer_radius: int = 1
    validate_every: int = 500
    seed: int = 0
    stages: tuple[Stage, ...] = (Stage(),)
    optimiser: Optimiser = Optimiser()
    distillation: Distillation = Distillation()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and TOML know them."""
        return asdict(self)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Every (height, width) the run will ask for."""
        return sorted({size for stage in self.stages for size in stage.sizes})

    def stage_ends(self, epoch_size: int) -> list[int]:
        """Step at which each stage ends, for a data set of `epoch_size` pictures an epoch."""
        ends, total = [], 0
        for stage in self.stages:
            total += stage.steps or max(1, stage.epochs * epoch_size // stage.batch)
            ends.append(total)
        return ends


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("dehaze.training") / "recipes"
    return sorted(Path(str(f)).stem for f in folder.iterdir() if str(f).endswith(".toml"))


def load_recipe(
    name_or_path: str, overrides: dict[str, str] | None = None, *, steps: int | None = None
) -> Recipe:
    """Read a recipe by name or path and apply overrides such as ``{"optimiser.lr": "1e-3"}``.

    Args:
        name_or_path: A name from `recipe_names` or a ``.toml`` file.
        overrides: Setting, named with dots, to TOML value.
        steps: Steps of the whole run, shared among its stages; None keeps the recipe's.

    Raises:
        UsageError: Unknown recipe, unknown setting, a value of the wrong kind, or `steps` for stages of which
            some have steps and others epochs.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"no recipe at {path}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path}: {error}") from error
    elif name_or_path in recipe_names():
        text = (resources.files("dehaze.training") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
    else:
        raise UsageError(
            f"unknown recipe '{name_or_path}': expected a .toml file or one of {', '.join(recipe_names())}"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {name_or_path} is not valid TOML: {error}") from error
    recipe = recipe_from_dict(values, name_or_path)
    for key, value in (overrides or {}).items():
        recipe = override(recipe, key, value)
    _check(recipe)
    return recipe if steps is None else _scale_steps(recipe, steps)


def recipe_from_dict(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values; see `Recipe.to_dict`.

    Raises:
        UsageError: Unknown setting, or a value of the wrong kind.
    """
    result = _build(Recipe, values, where)
    assert isinstance(result, Recipe)
    return result


def override(recipe: Recipe, key: str, text: str) -> Recipe:
    """Replace one setting, named with dots (``optimiser.lr``, ``stages.0.batch``), by a TOML value.

    Raises:
        UsageError: No such setting, or a value of the wrong kind.
    """
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    values = recipe.to_dict()
    target: Any = values
    *parents, last = key.split(".")
    try:
        for part in parents:
            target = target[int(part)] if isinstance(target, (list, tuple)) else target[part]
        if parents != ["model"] and last not in target:
            raise KeyError(last)
        target[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UsageError(
            f"the recipe has no setting '{key}'", f"settings: {', '.join(_setting_names(recipe))}"
        ) from error
    return recipe_from_dict(values, f"--set {key}={text}")


def _scale_steps(recipe: Recipe, steps: int) -> Recipe:
    if len({stage.steps > 0 for stage in recipe.stages}) > 1:
        raise UsageError(
            "--steps cannot be shared among stages of which some have steps and others epochs",
            "give each its own, such as: --set stages.0.steps=1000",
        )
    lengths = [stage.steps or stage.epochs / stage.batch for stage in recipe.stages]
    ends = [round(steps * done / sum(lengths)) for done in accumulate(lengths)]
    scaled = [end - begin for begin, end in pairwise([0, *ends])]
    stages = zip(recipe.stages, scaled, strict=True)
    return replace(recipe, stages=tuple(replace(s, steps=n, epochs=0) for s, n in stages if n > 0))


def _check(recipe: Recipe) -> None:
    if not recipe.stages:
        raise UsageError("the recipe needs at least one stage")
    for number, stage in enumerate(recipe.stages):
        if (
            stage.batch < 1
            or not stage.sizes
            or min(stage.steps, stage.epochs) < 0
            or not (stage.steps or stage.epochs)
        ):
            raise UsageError(f"stages.{number} needs a batch, sizes, and steps or epochs above 0")
        if any(side < 1 for size in stage.sizes for side in size):
            raise UsageError(f"stages.{number}.sizes must be above 0")
    optimiser, guide = recipe.optimiser, recipe.distillation
    numbers = {"optimiser.": asdict(optimiser), "distillation.": asdict(guide), "": asdict(recipe)}
    for prefix, values in numbers.items():
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{prefix}{name} is {value}: expected a finite number")
    if not 0 < optimiser.lr <= 1 or not 0 <= optimiser.ema < 1:
        raise UsageError("optimiser.lr must be in (0, 1] and optimiser.ema in [0, 1)")
    if not 0 <= optimiser.final <= 1 or not 0 < optimiser.decay <= 1:
        raise UsageError("optimiser.final must be in [0, 1] and optimiser.decay in (0, 1]")
    if not 0 <= recipe.seed < 2**63:
        raise UsageError("seed must be from 0 to 2^63 - 1")
    if Path(recipe.name).name != recipe.name or recipe.name in ("", ".."):
        raise UsageError(f"name is '{recipe.name}': expected one that can be a file's")
    if min(optimiser.clip, optimiser.warmup, optimiser.weight_decay, guide.weight) < 0:
        raise UsageError(
            "optimiser.clip, optimiser.warmup, optimiser.weight_decay and distillation.weight cannot be "
            "negative"
        )
    if min(recipe.working_size, recipe.second_look) < 0:
        raise UsageError("working_size and second_look cannot be negative")
    if not 1 <= recipe.transfer_radius <= MAX_TRANSFER_RADIUS:
        raise UsageError(f"transfer_radius must be from 1 to {MAX_TRANSFER_RADIUS}")
    if recipe.validate_every < 1 or optimiser.decay_epochs < 1:
        raise UsageError("validate_every and optimiser.decay_epochs must be at least 1")
    if not 0 < guide.pool <= 1 or guide.temperature <= 0:
        raise UsageError("distillation.pool must be in (0, 1] and distillation.temperature above 0")
    if not 0 <= recipe.clear_share < 1:
        raise UsageError("clear_share must be in [0, 1)")
    if not 0 <= recipe.white_share <= 1:
        raise UsageError("white_share must be in [0, 1]")
    if not 0 < recipe.beta[0] <= recipe.beta[1] < math.inf:
        raise UsageError("beta must be two finite numbers above 0, the smaller first")
    if not 0 <= recipe.varied_share <= 1:
        raise UsageError("varied_share must be in [0, 1]")
    if not 0 <= recipe.painted_share <= 1:
        raise UsageError("painted_share must be in [0, 1]")
    if not 0 <= recipe.kept_share <= 1:
        raise UsageError("kept_share must be in [0, 1]")
    _check_real(recipe.real)
    if not recipe.zooms or not all(1 <= zoom < math.inf for zoom in recipe.zooms):
        raise UsageError("zooms must be finite numbers from 1, at least one of them")
    if recipe.warps < 0 or (recipe.warps and recipe.view == "crop"):
        raise UsageError('warps must be 0 or, with view = "whole", the number of views to keep')


def _check_real(real: RealHaze) -> None:
    for name, value in asdict(real).items():
        values = value if isinstance(value, tuple) else (value,)
        if not all(map(math.isfinite, values)):
            raise UsageError(f"real.{name} is {value}: expected finite numbers")
        if isinstance(value, tuple) and not value[0] <= value[1]:
            raise UsageError(f"real.{name} is {list(value)}: expected the smaller number first")
    if real.beta[0] <= 0:
        raise UsageError("real.beta must be above 0")
    if not 0 <= real.brightness[0] <= real.brightness[1] <= 1:
        raise UsageError("real.brightness must be in [0, 1]")
    if not 0 <= real.nearest < 1 or not 0 <= real.hidden < 1:
        raise UsageError("real.nearest and real.hidden must be in [0, 1)")
    if min(real.tint, real.patchiness, real.glow) < 0:
        raise UsageError("real.tint, real.patchiness and real.glow cannot be negative")


def _setting_names(value: Any, prefix: str = "") -> list[str]:
    if is_dataclass(value):
        return [
            n for f in fields(value) for n in _setting_names(getattr(value, f.name), f"{prefix}{f.name}.")
        ]
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [n for i, item in enumerate(value) for n in _setting_names(item, f"{prefix}{i}.")]
    return [prefix[:-1]]


def _build(kind: Any, value: Any, where: str) -> Any:
    """Turn plain values into `kind`, checking every field."""
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: expected a table, got {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = value.keys() - hints.keys()
        if unknown:
            raise UsageError(f"{where} has no setting '{sorted(unknown)[0]}'", f"known: {', '.join(hints)}")
        built = {k: _build(hints[k], v, f"{where}: {k}") for k, v in value.items()}
        return typing.cast(Any, kind)(**built)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise UsageError(f"{where} must be one of {', '.join(map(str, arguments))}, got '{value}'")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: expected a list, got {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_build(arguments[0], item, where) for item in value)
        if len(value) != len(arguments):
            raise UsageError(f"{where}: expected {len(arguments)} values, got {value!r}")
        return tuple(_build(a, item, where) for a, item in zip(arguments, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: expected a table, got {value!r}")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise UsageError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
    return value
