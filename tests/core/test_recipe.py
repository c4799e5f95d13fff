"""The recipe: JSON round trip, and every way of getting it wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pip_core.core.errors import UserError
from pip_core.core.recipe import DTYPES, PERTURBATION_KINDS, STORY_TASKS, TASKS, Recipe


def test_round_trip():
    recipe = Recipe(model="a/b", target=0.35, kinds=("swap",), tasks=("facts", "x.jsonl"), seed=7, items=0)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert isinstance(Recipe.from_json(recipe.to_json()).kinds, tuple)


def test_defaults_fill_what_json_leaves_out():
    assert Recipe.from_json("{}") == Recipe()
    assert Recipe.from_json('{"seed": 3}') == Recipe(seed=3)


def test_auto_goes_by_the_model():
    demo, other = Recipe(), Recipe(model="a/b", calibration="auto", tasks=("auto",))
    assert (demo.model, demo.calibration, demo.heldout) == ("demo", "stories", "stories-heldout")
    assert demo.tasks == STORY_TASKS
    assert (other.calibration, other.heldout, other.tasks) == ("mixed", "heldout", TASKS)


def test_auto_goes_by_the_method():
    ours, published, demo = Recipe(model="a/b"), Recipe(model="a/b", method="sleb"), Recipe()
    assert (ours.vocabulary, ours.refit) == (0.25, True)
    assert (published.vocabulary, published.refit) == (demo.vocabulary, demo.refit) == (0.0, False)
    assert ours.but(method="sleb") == published
    assert ours.but(vocabulary=0.1).but(method="pip") == Recipe(model="a/b", method="pip", vocabulary=0.1)


def test_usual_units_are_channels_where_that_was_measured_to_keep_most():
    ours, published = Recipe(model="a/b"), Recipe(model="a/b", method="pip")
    assert (ours.units, published.units, Recipe().units) == (("channels",), ("blocks",), ("blocks",))
    assert ours.but(method="pip") == published
    # Blocks that are named stay or go whole.
    assert Recipe(model="a/b", keep=(1,)).units == Recipe(model="a/b", drop=(1,)).units == ("blocks",)
    assert Recipe().but(model="a/b", keep=(1,)).units == ("blocks",)
    assert Recipe(units=("mlp",)).but(model="a/b").units == ("mlp",)


def test_another_model_brings_its_usual_texts_unless_others_were_chosen():
    chosen = Recipe(heldout="mine.txt")
    assert chosen.but(model="a/b") == Recipe(model="a/b", heldout="mine.txt")
    assert chosen.but(model="a/b").calibration == "mixed"
    assert chosen.but(seed=3).calibration == "stories"
    assert Recipe().but(model="a/b", calibration="stories") == Recipe(model="a/b", calibration="stories")
    assert Recipe(model="a/b").but(model="demo") == Recipe()
    with pytest.raises(UserError, match="has the setting targt"):
        Recipe().but(targt=0.1)


def test_every_field_is_documented():
    described = Recipe.describe()
    assert list(described) == [f.name for f in dataclasses.fields(Recipe)]
    assert all(len(text) > 10 for text in described.values())


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 1


@pytest.mark.parametrize(
    "changes",
    [
        {"target": 0.001},
        {"target": 0.99},
        {"rate": 1},
        {"rate": 1.0},
        {"windows": 1, "window_tokens": 8, "perplexity_tokens": 8, "perplexity_windows": 0, "items": 0},
        {"window_tokens": 8192, "perplexity_tokens": 8192, "seed": 2**32 - 1},
        *({"dtype": d} for d in DTYPES),
        *({"kinds": (k,)} for k in PERTURBATION_KINDS),
    ],
)
def test_accepts_the_edges(changes):
    recipe = Recipe(**changes)
    assert {k: getattr(recipe, k) for k in changes} == changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 0}, "target of 0 % cannot be pruned"),
        ({"target": 1}, "target of 100 % cannot be pruned"),
        ({"target": 1.5}, "above 0 % and below 100 %"),
        ({"target": -0.2}, "above 0 % and below 100 %"),
        ({"target": float("nan")}, "above 0 % and below 100 %"),
        ({"target": "0.2"}, "'target' must be a number"),
        ({"target": True}, "'target' must be a number"),
        ({"target": None}, "'target' must be a number"),
        ({"rate": 0}, "perturbation rate"),
        ({"rate": 1.01}, "perturbation rate"),
        ({"rate": "all"}, "'rate' must be a number"),
        ({"windows": 0}, "'windows' must be a whole number from 1"),
        ({"windows": 2.5}, "'windows' must be a whole number"),
        ({"windows": True}, "'windows' must be a whole number"),
        ({"windows": None}, "'windows' must be a whole number"),
        ({"window_tokens": 7}, "'window_tokens' must be a whole number from 8 to 8192"),
        ({"window_tokens": 8193}, "'window_tokens' must be a whole number from 8 to 8192"),
        ({"items": -1}, "'items' must be a whole number from 0"),
        ({"perplexity_windows": -1}, "'perplexity_windows' must be a whole number"),
        ({"perplexity_tokens": 1}, "'perplexity_tokens' must be a whole number"),
        ({"seed": -1}, "'seed' must be a whole number"),
        ({"seed": 2**32}, "'seed' must be a whole number"),
        ({"seed": "1"}, "'seed' must be a whole number"),
        ({"model": ""}, "'model' must be a non-empty text"),
        ({"model": "  "}, "'model' must be a non-empty text"),
        ({"model": 3}, "'model' must be a non-empty text"),
        ({"method": None}, "'method' must be a non-empty text"),
        ({"calibration": ""}, "'calibration' must be a non-empty text"),
        ({"heldout": []}, "'heldout' must be a non-empty text"),
        ({"dtype": "float16"}, "Unknown number format 'float16': choose auto, float32, bfloat16"),
        ({"kinds": "swap"}, "'kinds' must be a list of names"),
        ({"kinds": (1,)}, "'kinds' must be a list of names"),
        ({"kinds": 5}, "'kinds' must be a list of names"),
        ({"kinds": None}, "'kinds' must be a list of names"),
        ({"kinds": ()}, "Unknown perturbation (none chosen)"),
        ({"kinds": ("swap", "shout")}, "Unknown perturbation shout: choose one or more of swap"),
        ({"tasks": "facts"}, "'tasks' must be a list of names"),
        ({"tasks": None}, "'tasks' must be a list of names"),
        ({"tasks": ()}, "Choose at least one task"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(UserError) as refused:
        Recipe(**changes)
    assert message in str(refused.value)
    if all(v is None or isinstance(v, str | int | float | list) for v in changes.values()):
        with pytest.raises(UserError) as refused:
            Recipe.from_json(json.dumps(changes))
        assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('"recipe"', "must be a JSON object"),
        ('{"targt": 0.3}', "does not know: targt"),
    ],
)
def test_refuses_what_is_no_recipe(text, message):
    with pytest.raises(UserError) as refused:
        Recipe.from_json(text)
    assert message in str(refused.value)
