"""Recipes: what is in the package, overrides, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dehaze.errors import UsageError
from dehaze.haze import RealHaze
from dehaze.training.recipe import Recipe, Stage, load_recipe, override, recipe_from_dict, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_survives_plain_values(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_paper_recipe_is_section_4_3() -> None:
    recipe = load_recipe("paper")
    (stage,) = recipe.stages
    assert (recipe.task, recipe.architecture, recipe.loss) == ("distill", "student", "mse")
    assert stage.sizes == ((460, 620),)
    assert (stage.batch, stage.epochs) == (2, 200)
    assert (recipe.optimiser.name, recipe.optimiser.lr) == ("adam", 1e-5)
    assert (recipe.optimiser.decay, recipe.optimiser.decay_epochs) == (0.98, 10)
    assert (recipe.distillation.weight, recipe.distillation.loss, recipe.distillation.guidance) == (
        0.25,
        "l2",
        "hr",
    )
    assert recipe.stage_ends(13_990) == [200 * 13_990 // 2]


def test_stages_follow_each_other() -> None:
    recipe = Recipe(stages=(Stage(steps=10), Stage(batch=4, epochs=3), Stage(steps=5)))
    assert recipe.stage_ends(40) == [10, 40, 45]


@pytest.mark.parametrize(
    ("key", "text", "read"),
    [
        ("optimiser.lr", "1e-3", lambda r: r.optimiser.lr == 1e-3),
        ("optimiser.warmup", "7", lambda r: r.optimiser.warmup == 7),
        ("loss", "l1", lambda r: r.loss == "l1"),
        ("stages.0.batch", "3", lambda r: r.stages[0].batch == 3),
        ("stages.0.sizes", "[[8, 9], [10, 11]]", lambda r: r.stages[0].sizes == ((8, 9), (10, 11))),
        ("model.width", "24", lambda r: r.model == {"width": 24}),
        ("distillation.projections", "true", lambda r: r.distillation.projections is True),
        ("clear_share", "0", lambda r: r.clear_share == 0.0 and isinstance(r.clear_share, float)),
    ],
)
def test_override_sets_what_it_names(key: str, text: str, read: object) -> None:
    assert callable(read)
    assert read(override(Recipe(loss="mse"), key, text))


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("optimiser.speed", "1", "no setting 'optimiser.speed'"),
        ("stages.4.batch", "1", "no setting 'stages.4.batch'"),
        ("loss", "huber", "must be one of mse, l1, charbonnier, rmse, psnr, got 'huber'"),
        ("seed", "many", "expected int, got 'many'"),
        ("seed", "true", "expected int, got True"),
        ("stages.0.sizes", "[[1, 2, 3]]", "expected 2 values"),
        ("model", "5", "model: expected a table, got 5"),
    ],
)
def test_override_refuses_what_makes_no_sense(key: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        override(Recipe(), key, text)


def test_steps_are_shared_among_stages() -> None:
    recipe = load_recipe("student", steps=30)
    assert sum(stage.steps for stage in recipe.stages) == 30
    original = load_recipe("student")
    assert recipe.stages[0].steps == round(
        30 * original.stages[0].steps / sum(s.steps for s in original.stages)
    )
    assert load_recipe("paper", steps=5).stage_ends(100) == [5]


def test_of_stages_in_epochs_the_one_of_smaller_batches_has_more_steps() -> None:
    stages = "[{sizes=[[8,8]],batch=4,epochs=10},{sizes=[[8,8]],batch=16,epochs=10}]"
    recipe = load_recipe("student", {"stages": stages}, steps=50)
    assert [stage.steps for stage in recipe.stages] == [40, 10]


def test_steps_are_not_shared_among_stages_of_both_kinds() -> None:
    stages = "[{sizes=[[8,8]],steps=10},{sizes=[[8,8]],epochs=10}]"
    with pytest.raises(UsageError, match="some have steps and others epochs"):
        load_recipe("student", {"stages": stages}, steps=50)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_steps_fewer_than_stages_need_are_still_as_many_as_asked_for(steps: int) -> None:
    stages = "[" + ",".join(["{sizes=[[8,8]],steps=10}"] * 5) + "]"
    recipe = load_recipe("student", {"stages": stages}, steps=steps)
    assert sum(stage.steps for stage in recipe.stages) == steps


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("stages", "[{steps=-5,epochs=1}]", "steps or epochs above 0"),
        ("optimiser.lr", "nan", "finite"),
        ("optimiser.clip", "inf", "finite"),
        ("optimiser.final", "-5", "optimiser.final"),
        ("optimiser.decay", "-1", "optimiser.decay"),
        ("seed", "99999999999999999999999", "seed must be"),
        ("name", '"../../escape"', "name is"),
        ("name", "..", "name is"),
        ("name", "", "name is ''"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(key: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe("student", {key: text})


def test_a_recipe_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"name = '\xff\xfe'")
    with pytest.raises(UsageError, match=r"cannot read .*mine\.toml"):
        load_recipe(str(path))


def test_a_file_is_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nseed = 3\n[[stages]]\nsteps = 2\n')
    assert load_recipe(str(path)).seed == 3
    path.write_text("name = ")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_recipe(str(path))
    with pytest.raises(UsageError, match="no recipe at"):
        load_recipe(str(tmp_path / "none.toml"))


def test_unknown_recipe_lists_the_choices() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'papper'.*paper"):
        load_recipe("papper")


@pytest.mark.parametrize(
    "overrides",
    [
        {"stages.0.steps": "0"},
        {"optimiser.lr": "0"},
        {"optimiser.lr": "1e30"},
        {"optimiser.ema": "1.0"},
        {"clear_share": "1.0"},
        {"white_share": "1.5"},
        {"beta": "[0.0, 1.0]"},
        {"beta": "[1.0, 0.5]"},
        {"beta": "[1.0, inf]"},
        {"varied_share": "-0.1"},
        {"painted_share": "1.1"},
        {"kept_share": "-0.1"},
        {"real.beta": "[0.0, 1.0]"},
        {"real.brightness": "[0.5, 1.2]"},
        {"real.nearest": "1.0"},
        {"real.hidden": "-0.1"},
        {"zooms": "[]"},
        {"zooms": "[0.5, 1.0]"},
        {"zooms": "[nan]"},
        {"zooms": "[1.0, inf]"},
        {"warps": "-1"},
        {"warps": "4", "view": "crop"},
    ],
)
def test_values_out_of_range_are_refused(overrides: dict[str, str]) -> None:
    for steps in (None, 10):
        with pytest.raises(UsageError, match=r"above 0|in \[0, 1|numbers from 1|warps must be 0 or"):
            load_recipe("student-lite", overrides, steps=steps)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("real.beta", "[3.0, 0.2]", r"real.beta is \[3.0, 0.2\]: expected the smaller number first"),
        ("real.beta", "[0.2, inf]", "real.beta is .*: expected finite numbers"),
        ("real.tint", "nan", "real.tint is nan: expected finite numbers"),
        ("real.glow", "-1", "cannot be negative"),
        ("real.beta", "[0.2]", "expected 2 values"),
        ("real.colour", "1", "has no setting"),
    ],
)
def test_ranges_of_haze_that_cannot_be_drawn_from_are_refused(key: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe("general", {key: text})


def test_a_range_of_haze_is_a_setting_like_others() -> None:
    recipe = load_recipe("general", {"real.beta": "[0.1, 2]", "real.tint": "0"})
    assert recipe.real == RealHaze(beta=(0.1, 2.0), tint=0.0)
    assert recipe_from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("radius", ["0", "33"])
def test_a_transfer_radius_out_of_range_is_refused(radius: str) -> None:
    with pytest.raises(UsageError, match="transfer_radius must be from 1 to 32"):
        load_recipe("student-lite", {"transfer_radius": radius})
