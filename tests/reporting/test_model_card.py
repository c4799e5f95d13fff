"""The model card: what it says of a run, in numbers that are the run's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
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


def card(**changes) -> str:
    settings = {
        "licence": "mit",
        "removals": REMOVED,
        "dense": DENSE,
        "pruned": PRUNED,
        "lost": "2 of 5 blocks",
        "uneven": "",
    }
    return model_card(RECIPE, STARTED, **{**settings, **changes})


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
        "org/base without 2 of 5 blocks: 0.0M -> 0.0M parameters (32.0% fewer)",
        "Removed, in 2 iterations (numbers of the base model, from 0): block 3, block 1",
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
    recipe = Recipe(method=scorer.name)
    text = model_card(recipe, STARTED, "mit", REMOVED, DENSE, PRUNED, "2 of 5 blocks", "")
    assert scorer.title in text
    assert scorer.paper in text


def test_heads_and_channels_are_told():
    units = (Units("heads", 1, (0,)), Units("channels", 1, (3, 4)), Units("channels", 2, (7,)))
    text = card(removals=[ev.Removed(1, units, 0.1, 0.2, 680, "x")], lost="3 of 320 channels")
    assert "without 3 of 320 channels" in text
    assert "from 0): 1 group of heads in 1 block and 3 channels in 2 blocks" in text


def test_a_shape_of_its_own_says_how_it_loads():
    """No reader may be told that `from_pretrained` would do."""
    text = card(uneven="2 of its blocks' halves are gone")
    assert "**This folder does not load with `from_pretrained`**: 2 of its blocks' halves are gone" in text
    code = text.split("```python\n")[1].split("```")[0]
    assert "from pip_core.checkpoints.nonuniform import load_nonuniform" in code
    assert 'model = load_uneven("path/to/this/folder")' in code
    assert "AutoModelForCausalLM" not in text
    compile(code, "card", "exec")
    plain = card().split("```python\n")[1].split("```")[0]
    assert "pip_core" not in plain
    compile(plain, "card", "exec")


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
