"""Depth and width in one run: blocks for their share of the target, then as much from every block left."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM

from pip_core.budget.budget import budget_of
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.engine import run as run_module
from pip_core.engine.replay import ReplayState
from pip_core.engine.run import run
from pip_core.planning.estimate import make_plan
from pip_core.structure.anatomy import anatomy_of

from .. import tiny, zoo
from ..engine.test_run import cut, timeless

TARGET = 0.3


@pytest.fixture(scope="module")
def mix(recipe) -> Recipe:
    return recipe.replace(units=("channels", "blocks"), target=TARGET, depth_share=0.7, step=0.07)


@pytest.fixture(scope="module")
def whole(mix, tmp_path_factory):
    """An undisturbed run, refitted, its export really verified."""
    out = tmp_path_factory.mktemp("mix") / "model"
    return list(run(mix.replace(refit=True), out)), out


def kinds(events) -> list[str]:
    return [e.units[0].kind for e in tiny.only(events, ev.Removed)]


def test_blocks_then_channels_to_the_budget(mix, whole):
    events, _ = whole
    assert isinstance(events[-1], ev.Finished), events[-1]
    started = tiny.only(events, ev.Started)[0]
    assert started.units == mix.units == ("blocks", "channels")
    gone = kinds(events)
    assert gone == sorted(gone)
    block = anatomy_of(zoo.CONFIGS["llama"]()).blocks[0]
    blocks = gone.count("blocks")
    assert abs(blocks * block.parameters - 0.7 * TARGET * started.parameters) <= block.parameters / 2
    # One channel of every block that is left is as near as it gets.
    unit = (5 - blocks) * block.widths["channels"].cost
    assert abs(started.parameters - events[-1].parameters - TARGET * started.parameters) <= unit / 2
    assert started.planned == len(gone) == events[-1].iterations
    assert gone.count("channels") > 1
    assert started.planned_share == pytest.approx(1 - events[-1].parameters / started.parameters)
    assert started.goal.startswith(f"{blocks} of 5 blocks, then ")


def test_each_iteration_scores_what_may_go(whole):
    events, _ = whole
    assert [e.kind for e in tiny.only(events, ev.Scored)] == kinds(events)


def test_the_export_is_plain(whole):
    events, out = whole
    assert tiny.only(events, ev.Exported)[0].uneven == ""
    model = AutoModelForCausalLM.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == events[-1].parameters
    lost = [u for e in tiny.only(events, ev.Removed) for u in e.units if u.kind == "channels"]
    left = 5 - kinds(events).count("blocks")
    assert model.config.num_hidden_layers == left
    assert model.config.intermediate_size == 64 - sum(len(u.units) for u in lost) // left
    assert "then" not in events[-1].removed_description
    assert f"{5 - left} of 5 blocks and" in events[-1].removed_description


@pytest.mark.parametrize("number", [0, 1, 2])
def test_resumed_alike(mix, whole, number):
    events, _ = whole
    history = cut(events, ev.Removed, number)
    rest = list(run(mix.replace(refit=True), history=history))
    assert timeless(history) + timeless(rest) == timeless(events)


def test_heads_too(recipe):
    asked = recipe.replace(units=("blocks", "heads", "channels"), target=0.35, measure="end")
    found = list(run(asked))
    assert isinstance(found[-1], ev.Finished), found[-1]
    removed = {u.kind for e in tiny.only(found, ev.Removed) for u in e.units}
    assert removed == {"blocks", "heads", "channels"}
    assert 1 - found[-1].parameters / tiny.only(found, ev.Started)[0].parameters == pytest.approx(
        0.35, abs=0.01
    )


def test_another_target_ends_where_a_run_to_it_would(mix, whole):
    """More blocks may have to go after channels went."""
    events, _ = whole
    deeper = mix.replace(target=0.38)
    on, straight = list(run(deeper, history=events)), list(run(deeper.replace(measure="end")))
    assert isinstance(on[-1], ev.Finished), on[-1]
    assert (on[-1].parameters, on[-1].removed_description) == (
        straight[-1].parameters,
        straight[-1].removed_description,
    )


def test_what_was_taken_back_stays(mix, whole):
    events, _ = whole
    last = tiny.only(events, ev.Removed)[-1]
    history = [*events, ev.RemovalUndone(last.iteration, last.units)]
    on = list(run(mix, history=history))
    assert isinstance(on[-1], ev.Finished), on[-1]
    assert on[-1].parameters == events[-1].parameters
    stay = {(u.block, n) for u in last.units for n in u.units}
    again = {(u.block, n) for e in tiny.only(on, ev.Removed) for u in e.units for n in u.units}
    assert not stay & again


def test_what_is_told_of_a_recipe_that_stopped_early(mix, whole):
    events, _ = whole
    anatomy = anatomy_of(zoo.CONFIGS["llama"]())
    goal = budget_of(mix, anatomy)
    removals = tiny.only(events, ev.Removed)
    past = ReplayState.of(events)
    assert past.reproducing_recipe(mix, goal, removals, True, 0.7) == mix
    assert past.reproducing_recipe(mix, goal, removals[:1], False, 0.9) is None


def test_the_plan_knows(mix):
    plan = make_plan(mix)
    assert plan.iterations == budget_of(mix, plan.anatomy).iterations
    assert plan.uneven == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": ("blocks", "attention")}, "cannot be removed in one run"),
        ({"units": ("mlp", "channels")}, "cannot be removed in one run"),
        ({"units": ("blocks", "mlp", "heads")}, "cannot be removed in one run"),
        ({"step": 2}, "enter a share of the parameters below 1"),
        ({"depth_share": 1.0}, "above 0 % and below 100 %"),
        ({"depth_share": "half"}, "Share taken as whole blocks: enter a number"),
    ],
)
def test_recipes_that_are_refused(mix, changes, message):
    with pytest.raises(UserError, match=message):
        mix.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth_share": 0.01}, r"The blocks of this mix \(1 % of the target\): .* less than half a block"),
        ({"target": 0.2852, "depth_share": 0.99}, r"The part after the blocks of this mix .* too little"),
        ({"method": "block-influence"}, "is not defined for channels"),
        ({"drop": (1,)}, "only whole blocks can be dropped"),
        ({"keep": (1,)}, "The part after the blocks of this mix .* no block can be kept"),
    ],
)
def test_goals_that_are_refused(mix, changes, message):
    with pytest.raises(UserError, match=message):
        run_module.check(mix.replace(**changes))
