"""Usual units give way to what a model and a method can lose; chosen ones do not."""

from __future__ import annotations

import pytest

from pip_core.cli import commands
from pip_core.cli import main as command
from pip_core.comparing.sweep import entries_from
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.engine.run import check
from pip_core.planning.estimate import anatomy_for, make_plan, resolve_auto_units
from pip_core.planning.inspect_model import inspect_model
from pip_core.runs.run_directory import recipe_of


def usual(folder, **changes) -> Recipe:
    return resolve_auto_units(Recipe(model=str(folder), vocabulary=0.0, **changes))


def test_usual_units_stay_where_they_can_go(llama_folder):
    assert usual(llama_folder).units == ("channels",)
    assert usual(llama_folder, method="taylor").units == ("blocks",)


def test_a_model_that_cannot_lose_channels_loses_blocks(checkpoints):
    recipe = usual(checkpoints["bloom"])
    assert recipe.units == ("blocks",)
    assert "blocks" in check(recipe).budget.description


def test_a_target_that_channels_cannot_meet_is_met_by_blocks(llama_folder):
    anatomy = anatomy_for(str(llama_folder))
    beyond = sum(block.half_parameters[1] for block in anatomy.blocks) / anatomy.parameters
    with pytest.raises(UserError, match="out of reach"):
        check(Recipe(model=str(llama_folder), vocabulary=0.0, target=beyond))
    assert usual(llama_folder, target=beyond).units == ("blocks",)


def test_a_method_that_scores_no_blocks_gets_channels(llama_folder):
    assert usual(llama_folder, method="flap").units == ("channels",)


def test_chosen_units_are_refused_and_not_replaced(checkpoints):
    recipe = usual(checkpoints["bloom"], method="pip", units=("channels",))
    assert recipe.units == ("channels",)
    with pytest.raises(UserError, match="channels"):
        check(recipe)


def test_where_nothing_can_go_the_recipe_is_refused_as_it_is(llama_folder):
    recipe = Recipe(model=str(llama_folder), vocabulary=0.0, target=0.99)
    assert resolve_auto_units(recipe) == recipe


def test_a_method_without_tokens_is_not_refused_for_its_units(llama_folder):
    recipe = resolve_auto_units(Recipe().but(model=str(llama_folder), method="flap", vocabulary=0.3))
    with pytest.raises(UserError, match="not defined for tokens"):
        make_plan(recipe)


def test_comparisons_settle_what_no_line_names(checkpoints):
    base = Recipe(model=str(checkpoints["bloom"]), vocabulary=0.0)
    plan = [{"label": "usual"}, {"label": "chosen", "units": ["mlp"]}]
    usual, chosen = entries_from(base, {}, plan, [0.2])
    assert (usual.recipe.units, chosen.recipe.units) == (("blocks",), ("mlp",))
    plan = [{"label": "auto", "units": ["auto"]}, {"label": "channels", "units": ["channels"]}]
    auto, channels = entries_from(base, {}, plan, [0.2])
    assert (auto.recipe, channels.recipe.units) == (usual.recipe, ("channels",))


def test_inspection_times_what_can_go(checkpoints):
    assert inspect_model(Recipe(model=str(checkpoints["bloom"]), vocabulary=0.0)).seconds > 0


def test_the_command_settles_usual_units_and_not_chosen_ones(checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "work", lambda folder, **_: 0)
    out = tmp_path / "run"
    given = ["prune", "--model", str(checkpoints["bloom"]), "--vocabulary", "0", "--out", str(out)]
    assert command.main([*given, "--units", "channels"]) == 2
    assert "channels" in capsys.readouterr().err
    assert command.main(given) == 0
    assert recipe_of(out).units == ("blocks",)
    assert command.main([*given[:-1], str(tmp_path / "named"), "--units", "auto"]) == 0
    assert recipe_of(tmp_path / "named") == recipe_of(out)
