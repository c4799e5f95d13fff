"""The model card: what it says of a run, in numbers that are the run's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from pip_core import events as ev
from pip_core.card import model_card
from pip_core.recipe import Recipe
from pip_core.scorers import METHODS

RECIPE = Recipe(model="org/base", target=0.4, seed=7, windows=12, kinds=("swap", "insert"), rate=0.5)
STARTED = ev.Started(
    "org/base",
    "Hugging Face Hub, org/base@abc",
    "llama",
    5,
    1000,
    (160,) * 5,
    "pip-gate",
    0.4,
    2,
    0.32,
    "",
    "",
)
REMOVED = [ev.Removed(1, 3, 0.1, 0.2, 840), ev.Removed(2, 1, 0.3, 0.4, 680)]


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


def card(**changes) -> str:
    settings = {"licence": "mit", "removals": REMOVED, "dense": DENSE, "pruned": PRUNED, **changes}
    return model_card(RECIPE, STARTED, **settings)


def test_header_is_the_hubs():
    data = ModelCard(card()).data
    assert data.base_model == "org/base"
    assert data.license == "mit"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert "pruned" in data.tags


def test_an_unknown_licence_is_not_made_up():
    text = card(licence=None)
    assert ModelCard(text).data.license is None
    assert "not stated in its files" in text


@pytest.mark.parametrize(
    "part",
    [
        "# org/base, 32% smaller",
        "2 of its 5 decoder blocks removed",
        "(32.0% fewer)",
        "in order (numbers of the base model, from 0): 3, 1",
        "Hugging Face Hub, org/base@abc",
        "12 windows of 128 tokens; edits swap, insert on 50% of the words",
        "Seed: 7",
        "| perplexity (8 windows of 256 tokens, stride 256, heldout) | 20.50 ± 1.25 | 31.25 ± 1.25 |",
        "| facts (acc_norm, 100 items, chance 50%) | 80.0% ± 5.0% | 60.0% ± 5.0% | -20.0% ± 4.0% |",
        "| words (acc_norm, 100 items, chance 0%) | 50.0% ± 5.0% | 40.0% ± 5.0% | -10.0% ± 3.0% |",
        "| **mean accuracy** | 65.0% ± 3.0% | 50.0% ± 3.0% | -15.0% ± 2.5% |",
        "Kept: 77% ± 4% of the base model's mean accuracy; 62% ± 6% of what is above guessing.",
        "AutoModelForCausalLM.from_pretrained",
        "python -m pip_core prune --recipe pip_recipe.json",
    ],
)
def test_says(part):
    assert part in card()


@pytest.mark.parametrize("scorer", METHODS, ids=lambda m: m.name)
def test_names_the_method_and_its_paper(scorer):
    text = model_card(Recipe(method=scorer.name), STARTED, "mit", REMOVED, DENSE, PRUNED)
    assert scorer.title in text
    assert scorer.paper in text


def test_noise_is_called_noise():
    assert ", within noise |" not in card()
    near = measured(2, {"facts": "1" * 79 + "0" * 21, "words": "1" * 50 + "0" * 50}, 21.0, 680)
    assert card(pruned=near).count(", within noise |") == 3


def test_nothing_right_in_the_dense_model():
    zero = measured(0, {"facts": "0" * 100, "words": "0" * 100}, 20.5, 1000)
    assert "Kept: 0% ± 0% of the base model's mean accuracy. " in card(dense=zero)


def test_whole_documents_have_a_line():
    texts = (ev.TextResult("wikitext", 30.5, 1.9, 0.9, 2, 900, 1200, 1024),)
    dense, pruned = (replace(m, texts=texts) for m in (DENSE, PRUNED))
    said = (
        "| wikitext, word perplexity (2 documents, windows of 1024 tokens, stride 1024) | 30.50 | 30.50 | |"
    )
    assert said in card(dense=dense, pruned=pruned)
