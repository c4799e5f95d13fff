"""Plans of a comparison: in files, and the runs that they come to."""

from __future__ import annotations

import json

import pytest

from pip_core.comparing import results
from pip_core.comparing.sweep import Entry, align_targets, entries_from, read_plan
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import ATTENTION, BLOCKS, CHANNELS, HEADS
from pip_core.scoring import METHODS

from .. import tiny


def entries_for(base: Recipe, given: dict, methods: list[str], targets: list[float]) -> list[Entry]:
    return entries_from(base, given, [{"label": m, "method": m} for m in methods], targets)


@pytest.mark.parametrize(("text", "message"), [("[{", "cannot be read"), ('{"label": "a"}', "a JSON list")])
def test_plan_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_plan(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_plan(tmp_path / "gone.json")


def test_a_plan_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("\ufeff" + json.dumps([{"label": "one", "seed": 3}]), encoding="utf-8")
    assert [entry["label"] for entry in read_plan(path)] == ["one"]


def test_settings_of_a_run_that_removes_only_tokens_say_tokens():
    recipe = Recipe(model="llama", units=(CHANNELS,), vocabulary=1.0, refit=False)
    assert results._settings(recipe).startswith("tokens")
    assert CHANNELS not in results._settings(recipe)
    assert results._settings(recipe.replace(vocabulary=0.5)).startswith(f"{CHANNELS}; equal")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([], "nothing to compare"),
        ([{"method": "flap"}], 'an object with a "label"'),
        (["flap"], 'an object with a "label"'),
        ([{"label": "a", "method": "magic"}], "Unknown method 'magic'"),
        ([{"label": "a", "method": 3}], "must be a name"),
        ([{"label": "a", "colour": "red"}], "settings no recipe has: colour"),
        ([{"label": "a/b"}], "'a/b' cannot name a run"),
        ([{"label": ".."}], "cannot name a run"),
        ([{"label": "dense"}], "cannot name a run"),
        ([{"label": "a"}, {"label": "a"}], "repeated: a"),
        ([{"label": "a", "windows": 0}], "Windows: enter a whole number"),
        ([{"label": "a", "units": [BLOCKS, ATTENTION]}], "cannot be removed in one run"),
    ],
)
def test_plans_that_make_no_sense(plan, message):
    with pytest.raises(UserError, match=message):
        entries_from(Recipe(), {}, plan, [0.2])


def test_methods_start_from_what_they_were_published_with():
    found = {e.label: e.recipe for e in entries_for(Recipe(), {}, [m.name for m in METHODS], [0.2])}
    for scorer in METHODS:
        assert found[scorer.name] == Recipe(method=scorer.name, **scorer.usual)
    assert found["sleb"].units == found["block-influence"].units == (BLOCKS,)
    assert found["flap"].units == found["multi-domain"].units == (HEADS, CHANNELS)
    assert (found["flap"].allocation, found["flap"].per_parameter) == ("global", False)


def test_what_is_given_comes_before_what_is_usual_and_a_plan_before_both():
    given = {"units": (CHANNELS,), "windows": 7}
    plan = [
        {"label": "a", "method": "flap"},
        {"label": "b", "method": "flap", "units": [HEADS], "target": 0.1},
    ]
    a, b = entries_from(Recipe(), given, plan, [0.2])
    assert (a.recipe.units, a.recipe.windows, a.recipe.allocation, a.recipe.target) == (
        (CHANNELS,),
        7,
        "global",
        0.2,
    )
    assert (b.recipe.units, b.recipe.windows, b.recipe.target) == ((HEADS,), 7, 0.1)


def test_targets_make_curves():
    found = entries_for(Recipe(), {}, ["random", "sleb"], [0.1, 0.25])
    assert [(e.label, e.curve, e.recipe.target) for e in found] == [
        ("random-0.1", "random", 0.1),
        ("random-0.25", "random", 0.25),
        ("sleb-0.1", "sleb", 0.1),
        ("sleb-0.25", "sleb", 0.25),
    ]


def test_all_aim_at_what_whole_blocks_come_to(llama_folder):
    base = tiny.recipe_for(llama_folder)
    found = align_targets(entries_for(base, {}, ["flap", "sleb", "taylor"], [0.3, 0.12]))
    assert [e.label for e in found] == [f"{m}-{t}" for m in ("flap", "sleb", "taylor") for t in (0.3, 0.12)]
    # One block of the tiny model is 9,280 of 97,632 parameters.
    for entry in found:
        count = 3 if entry.label.endswith("0.3") else 1
        assert entry.recipe.target == pytest.approx(count * 9280 / 97632)


def test_what_a_method_cannot_do_is_told_with_its_label(llama_folder):
    base = tiny.recipe_for(llama_folder)
    for given, message in (
        ({"units": (HEADS,)}, "sleb: .* not defined for heads"),
        ({}, "entrodrop: A target"),
    ):
        with pytest.raises(UserError, match=message):
            align_targets(entries_for(base, given, ["sleb", "entrodrop"], [0.35]))
