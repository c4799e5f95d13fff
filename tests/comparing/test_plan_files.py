"""Plans of a comparison in files."""

from __future__ import annotations

import json

import pytest

from pip_core.comparing import results
from pip_core.comparing.sweep import entries_from, read_plan
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import ATTENTION, BLOCKS, CHANNELS


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
