"""The model card: what it states of a run, in numbers that are the run's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
from pip_core.reporting.description import Description
from pip_core.reporting.model_card import model_card
from pip_core.scoring import METHODS

RECIPE = Recipe(model="org/base", target=0.4, seed=7, windows=12, kinds=("swap", "insert"), rate=0.5)
STARTED = ev.Started(
    model="org/base",
    origin="Hugging Face Hub, org/base@abc",
    model_type="llama",
    blocks=5,
    parameters=1000,
    method="pip-gate",
    units=("blocks",),
    target=0.4,
    goal="2 of 5 blocks",
    planned=2,
    planned_share=0.32,
    dtype="",
    device="",
)
REMOVED = [
    ev.Removed(1, (Units("blocks", 3, (0,)),), 0.1, 0.2, 840, "1 of 5 blocks"),
    ev.Removed(2, (Units("blocks", 1, (0,)),), 0.3, 0.4, 680, "2 of 5 blocks"),
]


def measured(iteration: int, hits: dict[str, str], perplexity: float, parameters: int) -> ev.Evaluated:
    tasks = tuple(
        ev.TaskResult(n, h.count("1") / len(h), 0.05, len(h), 0.5 if n != "words" else 0.0, h)
        for n, h in hits.items()
    )
    mean = sum(t.accuracy for t in tasks) / len(tasks)
    return ev.Evaluated(
        iteration, 5 - iteration, parameters, perplexity, 1.25, 8, 256, mean, 0.03, tasks, 1.0
    )


DENSE = measured(0, {"facts": "1" * 80 + "0" * 20, "words": "1" * 50 + "0" * 50}, 20.5, 1000)
PRUNED = measured(2, {"facts": "1" * 60 + "0" * 40, "words": "1" * 40 + "0" * 60}, 31.25, 680)


SETTINGS = {
    "recipe": RECIPE,
    "started": STARTED,
    "licence": "mit",
    "removals": REMOVED,
    "dense": DENSE,
    "pruned": PRUNED,
    "removed_description": "2 of 5 blocks",
    "uneven": "",
}


def card(**changes) -> str:
    return model_card(**{**SETTINGS, **changes})


def code_of(text: str) -> str:
    return text.split("```python\n")[1].split("```")[0]


def row(text: str, start: str) -> str:
    """The row of the table of figures that starts with `start`."""
    (found,) = (line for line in text.splitlines() if line.startswith(f"| {start}"))
    return found


def test_metadata_is_the_hubs():
    data = ModelCard(card()).data
    assert data.base_model == "org/base"
    assert data.license == "mit"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert {"pruned", "pip-studio"} <= set(data.tags)


def test_metadata_hold_the_figures_of_the_pruned_model():
    texts = (ev.TextResult("wikitext", 30.5, 1.9, 0.9, 2, 900, 1200, 1024),)
    text = card(dense=replace(DENSE, texts=texts), pruned=replace(PRUNED, texts=texts))
    found = {(r.dataset_name, r.metric_type): r.metric_value for r in ModelCard(text).data.eval_results}
    assert found == {
        ("heldout", "perplexity"): 31.25,
        ("wikitext", "word_perplexity"): 30.5,
        ("facts", "acc_norm"): 0.6,
        ("words", "acc_norm"): 0.4,
    }


@pytest.mark.parametrize("licence", [None, ""])
def test_an_unknown_licence_is_not_made_up(licence):
    text = card(licence=licence)
    assert ModelCard(text).data.license is None
    assert "states none in its files" in text


@pytest.mark.parametrize("licence", ["apache-2.0", "cc-by-nc-4.0", "llama3.1"])
def test_licences_that_the_hub_knows(licence):
    assert ModelCard(card(licence=licence)).data.license == licence


@pytest.mark.parametrize(
    "licence", ["See: LICENSE\nand - NOTICE", "a: b", "'quoted\"", "---", "# no", "[x, y]", "{a: b}", "µ"]
)
def test_strange_licences_leave_the_metadata_valid(licence):
    text = card(licence=licence)
    data = ModelCard(text).data
    assert (data.license, data.base_model) == ("other", "org/base")
    assert f"- Licence: {' '.join(licence.split())}\n" in text


@pytest.mark.parametrize("name", ["a: b", "two\nlines", "- x", "'", "yes", "1e5", "a|b", "{{ x }}", "---"])
def test_strange_names_leave_metadata_and_tables_valid(name):
    texts = (ev.TextResult(name, 30.5, 1.9, 0.9, 2, 900, 1200, 1024),)
    dense, pruned = (
        replace(m, texts=texts, tasks=(replace(m.tasks[0], name=name), *m.tasks[1:])) for m in (DENSE, PRUNED)
    )
    text = card(started=replace(STARTED, model=name), dense=dense, pruned=pruned)
    data = ModelCard(text).data
    assert (data.base_model, data.model_name) == (None, f"{name}, pruned")  # the Hub knows none of them
    assert name in {r.dataset_name for r in data.eval_results}
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 8
    assert {line.replace("\\|", "").count("|") for line in table} == {5}


@pytest.mark.parametrize(
    "part",
    [
        "# org/base, 32 % smaller",
        "org/base without 2 of 5 blocks.",
        "0.0M of 0.0M parameters (32.0 % fewer)",
        "2 iterations (numbers in the base model, from 0): block 3, block 1",
        "Hugging Face Hub, org/base@abc",
        "12 windows of 128 tokens; edits (swap, insert) on 50 % of the words",
        "Seed: 7",
        "This model keeps 57 % ± 8 % of what the base model could do above guessing; guessing included, "
        "77 % ± 4 % of its mean accuracy. The number",
        "AutoModelForCausalLM.from_pretrained",
        "python -m pip_core prune --recipe pip_recipe.json",
    ],
)
def test_states(part):
    assert part in card()


@pytest.mark.parametrize(
    ("start", "cells"),
    [
        ("perplexity (8 windows of 256 tokens, stride 256, heldout)", "20.50 ± 1.25 | 31.25 ± 1.25 | |"),
        (
            "facts (acc_norm, 100 items, chance 50 %)",
            "80.0 % ± 5.0 % | 60.0 % ± 5.0 % | −20.0 ± 4.0 points |",
        ),
        ("words (acc_norm, 100 items, chance 0 %)", "50.0 % ± 5.0 % | 40.0 % ± 5.0 % | −10.0 ± 3.0 points |"),
        ("**mean accuracy**", "65.0 % ± 3.0 % | 50.0 % ± 3.0 % | −15.0 ± 2.5 points |"),
    ],
)
def test_figures(start, cells):
    assert row(card(), start) == f"| {start} | {cells}"


@pytest.mark.parametrize("scorer", METHODS, ids=lambda m: m.name)
def test_names_the_method_and_its_paper(scorer):
    text = card(recipe=Recipe(method=scorer.name))
    assert scorer.title in text
    assert scorer.paper in text
    assert ("of the words" in text) == scorer.perturbs


def test_heads_and_channels_are_listed():
    units = (Units("heads", 1, (0,)), Units("channels", 1, (3, 4)), Units("channels", 2, (7,)))
    text = card(removals=[ev.Removed(1, units, 0.1, 0.2, 680, "x")], removed_description="3 of 320 channels")
    assert "without 3 of 320 channels" in text
    assert "in 1 iteration (" in text
    assert "from 0): 1 group of heads in 1 block and 3 channels in 2 blocks" in text


def test_a_shape_of_its_own_states_how_it_loads():
    """Nobody may be led to believe that `from_pretrained` would do."""
    text = card(uneven="2 of its blocks' halves are gone")
    assert "**This folder does not load with `from_pretrained`**: 2 of its blocks' halves are gone" in text
    code = code_of(text)
    assert "from pip_core.checkpoints.nonuniform import load_nonuniform" in code
    assert 'model = load_nonuniform("path/to/this/folder")' in code
    assert "AutoModelForCausalLM" not in text
    compile(code, "card", "exec")
    plain = code_of(card())
    assert "pip_core" not in plain
    compile(plain, "card", "exec")


def test_what_chance_could_have_made_is_called_so():
    assert " (no measurable change) |" not in card()
    near = measured(2, {"facts": "1" * 79 + "0" * 21, "words": "1" * 50 + "0" * 50}, 21.0, 680)
    assert card(pruned=near).count(" (no measurable change) |") == 3


def test_nothing_right_in_the_dense_model():
    text = card(dense=measured(0, {"facts": "0" * 100, "words": "0" * 100}, 20.5, 1000))
    assert "guessing included, it is 0 % ± 0 % of its mean accuracy. " in text
    assert "above guessing" not in text


def test_whole_documents_have_a_row():
    texts = (ev.TextResult("wikitext", 30.5, 1.9, 0.9, 2, 900, 1200, 1024),)
    dense, pruned = (replace(m, texts=texts) for m in (DENSE, PRUNED))
    start = "wikitext, word perplexity (2 documents, windows of 1024 tokens, stride 1024)"
    assert row(card(dense=dense, pruned=pruned), start) == f"| {start} | 30.50 | 30.50 | |"


def test_stages_after_the_last_removal_are_listed():
    plain = card()
    assert "- After the last removal: no change" in plain
    assert "final stages" not in plain
    toy = Description("It did.", "did", ("Toy: it did\nthis.", "Toy: and that."))
    text = card(descriptions=[toy, Description("quiet")], before_stages=replace(PRUNED, perplexity=40.0))
    assert "- Toy: it did this.\n- Toy: and that.\n- Seed" in text
    assert "no change" not in text
    assert "perplexity 40.00 ± 1.25 and mean accuracy 50.0 % ± 3.0 %" in text
    assert "the mean accuracy by +0.0 ± 0.0 points (no measurable change)." in text


def test_warnings_are_paragraphs():
    assert "\n\nOne thing.\n\nAnother.\n\n## Load it" in card(warnings=["One thing.", "Another."])


def test_a_run_that_was_changed_on_its_way_is_not_said_to_be_reproducible():
    text = card(reproducible=False)
    assert "does not reproduce" in text
    assert "--recipe" not in text
