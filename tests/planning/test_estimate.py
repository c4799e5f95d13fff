"""The plan before a run."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.engine.aim import aimed
from pip_core.engine.run import run
from pip_core.planning import estimate
from pip_core.planning.estimate import anatomy_for, make_plan
from pip_core.ui.form import plan_line

from .. import tiny, zoo


@pytest.mark.parametrize("family", tiny.SAVED)
def test_the_plan_is_what_the_run_does(checkpoints, tasks, family):
    recipe = tiny.recipe_for(checkpoints[family], tasks, target=0.2)
    plan = make_plan(recipe)
    started = next(e for e in run(recipe) if isinstance(e, ev.Started))
    assert (plan.iterations, plan.share, plan.goal) == (started.planned, started.planned_share, started.goal)
    anatomy = plan.anatomy
    assert anatomy.model_type == started.model_type
    assert (len(anatomy.blocks), anatomy.parameters) == (started.blocks, started.parameters)
    assert 0 < plan.memory < plan.available
    assert plan.seconds > 0


def test_the_plan_says_what_each_kind_alone_would_give(llama_folder):
    recipe = tiny.recipe_for(
        llama_folder, units=("channels",), method="pip-gate", vocabulary="measured", compete="all", target=0.1
    )
    plan = make_plan(recipe)
    tokens, channels, blocks, heads = plan.alone
    assert "Blocks and groups of heads may go too" in plan_line(plan, recipe)
    assert ["tokens" in tokens, "channels" in channels, "blocks" in blocks, "heads" in heads] == [True] * 4
    # A target in speed is guessed until it is measured, and the plan says so.
    faster = aimed(recipe.replace(target_speedup="decode:1.25"))
    assert faster.target == pytest.approx(0.2)
    assert "is a guess" in plan_line(make_plan(faster), faster)


def test_more_work_takes_longer(recipe):
    assert make_plan(recipe.replace(windows=5000)).seconds > make_plan(recipe).seconds


def test_the_first_product_and_a_passing_load_are_not_the_models_cost(monkeypatch):
    # Of SmolLM2 one matrix that was timed once, in 0.8 s, made a plan of four minutes one of 23.7 hours.
    now, each = 0.0, itertools.chain([0.8, 0.5, 0.9], itertools.repeat(0.02))

    def multiply():
        nonlocal now
        now += next(each)
        return torch.zeros(1, 1)

    monkeypatch.setattr(estimate, "time", SimpleNamespace(thread_time=lambda: now, perf_counter=lambda: now))
    assert estimate._best_seconds(multiply) == pytest.approx(0.02)


def test_no_weights_are_needed(llama_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    assert len(anatomy_for(str(tmp_path)).blocks) == zoo.BLOCKS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 0.999}, "would leave no block"),
        ({"target": 0.001}, "less than half a block"),
        ({"model": "/nowhere/at/all"}, "does not exist"),
        ({"model": "org/unknown"}, "The Hub does not answer"),
        ({"method": "magic"}, "Unknown method"),
        ({"tasks": ("chess",)}, "Unknown task"),
    ],
)
def test_what_cannot_be_planned(recipe, changes, message):
    with pytest.raises(UserError) as refused:
        make_plan(recipe.replace(**changes))
    assert message in str(refused.value)
