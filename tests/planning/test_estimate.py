"""The plan before a run, and two models answering one prompt after it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest

from pip_core.checkpoints.load import config_of
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.engine.run import run
from pip_core.inspection.chat import answers
from pip_core.planning import estimate
from pip_core.planning.estimate import anatomy_for, make_plan, memory_of
from pip_core.planning.inspect_model import exports_plainly
from pip_core.structure.anatomy import anatomy_of

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


def test_more_work_takes_longer(recipe):
    assert make_plan(replace(recipe, windows=5000)).seconds > make_plan(recipe).seconds


def test_no_weights_are_needed(llama_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    assert len(anatomy_for(str(tmp_path)).blocks) == zoo.BLOCKS


def test_a_rewritten_folder_is_planned_anew(checkpoints, recipe, tmp_path):
    """Nothing of the model that lay there before is left in the plan."""
    folder, plans = tmp_path / "model", {}
    recipe = replace(recipe, model=str(folder))
    for family in ("llama", "gpt2", "llama"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoints[family], folder)
        plan, anatomy = make_plan(recipe), anatomy_of(config_of(str(folder)))
        assert plan.anatomy == anatomy
        assert plan.anatomy.model_type == family
        assert anatomy_for(str(folder)).parameters == anatomy.parameters
        plans.setdefault(family, (plan.share, memory_of(str(folder), "float32", 24)))
        assert plans[family] == (plan.share, memory_of(str(folder), "float32", 24))
        for kind in ("blocks", "channels"):
            assert exports_plainly(str(folder), kind) == exports_plainly(str(checkpoints[family]), kind)
    assert plans["llama"] != plans["gpt2"]


def test_a_folder_that_stays_is_read_once(llama_folder, monkeypatch):
    calls = []

    def counted(reference):
        calls.append(reference)
        return config_of(reference)

    monkeypatch.setattr(estimate, "config_of", counted)
    shutil.copytree(llama_folder, llama_folder.with_name("another"))
    for _ in range(3):
        anatomy_for(str(llama_folder.with_name("another")))
    assert len(calls) == 1


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
        make_plan(replace(recipe, **changes))
    assert message in str(refused.value)


def test_two_models_answer(checkpoints):
    dense, other = str(checkpoints["llama"]), str(checkpoints["gpt2"])
    grown = list(answers(dense, other, 0.0, "The dog ran", tokens=12))
    for side in (0, 1):
        texts = [pair[side].text for pair in grown]
        assert all(b.startswith(a) for a, b in pairwise(texts))
    said = [answer.text for answer in grown[-1]]
    assert all(said)
    again = list(answers(dense, other, 0.0, "The dog ran", tokens=12))[-1]
    assert [answer.text for answer in again] == said
    same = list(answers(dense, dense, 0.0, "The dog ran", tokens=12))[-1]
    assert same[0].text == same[1].text


def test_an_empty_prompt(llama_folder):
    with pytest.raises(UserError, match="Write a prompt first"):
        list(answers(str(llama_folder), str(llama_folder), 0.0, "  \n"))
