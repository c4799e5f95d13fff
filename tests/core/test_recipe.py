"""The recipe: JSON round trip, and every way of getting it wrong."""

from __future__ import annotations

import json

import pytest

from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.data.perturbation import PERTURBATION_KINDS
from pip_core.engine.stages.load import DTYPES
from pip_core.evaluation.tasks import STORY_TASKS, TASKS


def test_round_trip():
    recipe = Recipe(model="a/b", target=0.35, kinds=("swap",), tasks=("facts", "x.jsonl"), seed=7, items=0)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert isinstance(Recipe.from_json(recipe.to_json()).kinds, tuple)


def test_a_byte_order_mark_is_passed_over():
    recipe = Recipe(seed=3)
    assert Recipe.from_json("\ufeff" + recipe.to_json()) == recipe


def test_defaults_fill_what_json_leaves_out():
    assert Recipe.from_json("{}") == Recipe()
    assert Recipe.from_json('{"seed": 3}') == Recipe(seed=3)


def test_auto_goes_by_the_model():
    demo, other = Recipe(), Recipe(model="a/b", calibration="auto", tasks=("auto",))
    assert (demo.model, demo.calibration, demo.heldout) == ("demo", "stories", "stories-heldout")
    assert demo.tasks == STORY_TASKS
    assert (other.calibration, other.heldout, other.tasks) == ("mixed", "heldout", TASKS)


def test_auto_stands_beside_what_is_added_to_it():
    """Questions of one's own are asked beside the usual tasks, and stay when another model brings its own."""
    own = 'text:{"query": "a", "choices": ["b", "c"], "gold": 0}'
    recipe = Recipe(tasks=("auto", own))
    assert recipe.tasks == (*Recipe().tasks, own)
    assert recipe.but(model="a/b").tasks == (*Recipe(model="a/b").tasks, own)
    assert Recipe(tasks=(own,)).but(model="a/b").tasks == (own,)


def test_auto_goes_by_the_method():
    ours, published, demo = Recipe(model="a/b"), Recipe(model="a/b", method="sleb"), Recipe()
    assert (ours.vocabulary, ours.refit) == ("measured", True)
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


def test_which_kinds_compete_follows_from_whether_any_is_named():
    for recipe in (Recipe(model="x"), Recipe(model="x", units=("heads",))):
        assert recipe.automatic()["compete"] == "auto"
    assert Recipe(model="x").but(units=("experts",), method="taylor").compete == "named"
    assert Recipe().but(units=("channels",)).compete == "named"
    assert "compete" not in Recipe(model="x", compete="named").automatic()


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
    assert list(described) == list(Recipe().to_dict())
    assert all(len(text) > 10 for text in described.values())


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        Recipe().seed = 1
    with pytest.raises(AttributeError):
        del Recipe().seed


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
        ({"target": float("nan")}, "How much: enter a number above 0 and below 1"),
        ({"target": "0.2"}, "How much: enter a number above 0 and below 1"),
        ({"target": True}, "How much: enter a number above 0 and below 1"),
        ({"target": None}, "How much: enter a number above 0 and below 1"),
        ({"rate": 0}, "Words misspelt: enter a number above 0 and at most 1"),
        ({"rate": 1.01}, "Words misspelt: enter a number above 0 and at most 1"),
        ({"rate": "all"}, "Words misspelt: enter a number above 0"),
        ({"windows": 0}, "Windows: enter a whole number from 1 to"),
        ({"windows": 2.5}, "Windows: enter a whole number"),
        ({"windows": True}, "Windows: enter a whole number"),
        ({"windows": None}, "Windows: enter a whole number"),
        ({"window_tokens": 7}, "Window length, tokens: enter a whole number from 8 to 8,192"),
        ({"window_tokens": 8193}, "Window length, tokens: enter a whole number from 8 to 8,192"),
        ({"items": -1}, "Items per task: enter a whole number from 0"),
        ({"perplexity_windows": -1}, "Held-out windows: enter a whole number"),
        ({"perplexity_tokens": 1}, "Held-out window length, tokens: enter a whole number"),
        ({"seed": -1}, "Seed: enter a whole number"),
        ({"seed": 2**32}, "Seed: enter a whole number"),
        ({"seed": "1"}, "Seed: enter a whole number"),
        ({"model": ""}, "Model: enter a non-empty text"),
        ({"model": "  "}, "Model: enter a non-empty text"),
        ({"model": 3}, "Model: enter a non-empty text"),
        ({"method": None}, "Method: enter a non-empty text"),
        ({"calibration": ""}, "Calibration text: enter a non-empty text"),
        ({"heldout": []}, "Held-out text: enter a non-empty text"),
        ({"dtype": "float16"}, "Number format: enter one of auto, float32, bfloat16, not 'float16'"),
        ({"kinds": "swap"}, "Misspellings: enter a list of names"),
        ({"kinds": (1,)}, "Misspellings: enter a list of names"),
        ({"kinds": 5}, "Misspellings: enter a list of names"),
        ({"kinds": None}, "Misspellings: enter a list of names"),
        ({"kinds": ()}, "Misspellings: enter one or more of swap"),
        ({"kinds": ("swap", "shout")}, "Misspellings: enter one or more of swap"),
        ({"tasks": "facts"}, "Tasks: enter a list of names"),
        ({"tasks": None}, "Tasks: enter a list of names"),
        ({"tasks": ()}, "Tasks: choose at least one"),
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
        ('{"targt": 0.3}', "has the setting targt"),
    ],
)
def test_refuses_what_is_no_recipe(text, message):
    with pytest.raises(UserError) as refused:
        Recipe.from_json(text)
    assert message in str(refused.value)


def test_a_recipe_of_a_newer_version_is_refused_and_one_of_an_older_is_read():
    with pytest.raises(UserError, match="newer version"):
        Recipe.from_json('{"format": 99, "seed": 3}')
    assert Recipe.from_json('{"format": 2, "seed": 3}') == Recipe.from_json('{"seed": 3}')


def test_settings_say_what_a_form_needs():
    found = {s.name: s for s in Recipe.settings()}
    assert found["seed"].kind == "whole"
    assert found["keep"].kind == "numbers"
    assert found["tasks"].kind == "names"
    assert found["plain"].kind == "switch"
    assert found["allocation"].options == ("equal", "global")
    assert found["window_tokens"].option == "--window-tokens"
    assert all(s.takes for s in found.values())


def test_the_schema_takes_what_a_recipe_writes():
    schema, written = Recipe.schema(), json.loads(Recipe().to_json())
    assert set(written) == set(schema["properties"])


def test_two_recipes_tell_their_differences():
    assert Recipe(seed=1, target=0.3).differences(Recipe()) == ("seed", "target")
    assert hash(Recipe()) == hash(Recipe())
