"""Plans of a comparison in files."""

from __future__ import annotations

import json

import pytest

from pip_core.comparing import results
from pip_core.comparing.sweep import read_plan
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.units import CHANNELS


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
