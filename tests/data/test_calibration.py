"""Calibration: the text is read once, tokenised once, drawn anew, and handed to methods batch by batch."""

from __future__ import annotations

import json

import pytest
import torch

from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.data import calibration as module
from pip_core.data.calibration import BATCH_ROWS, ROW_TOKENS, TOKEN_PAIRS, Calibration, CalibrationText
from pip_core.data.corpora import POOL_CHARACTERS
from pip_core.scoring import METHODS

from .. import tiny, zoo


def test_the_text_is_read_once_for_all_that_use_it(tokenizer, monkeypatch):
    read = []

    def counted(name, *rest):
        read.append(name)
        return original(name, *rest)

    original = module.calibration_texts
    monkeypatch.setattr(module, "calibration_texts", counted)
    recipe = tiny.recipe_for("unused", refit=True)
    found = tiny.calibration_for(recipe, tokenizer)
    found.check()
    for iteration in (1, 2):
        found.pairs(iteration)
    found.token_pairs(3)
    found.rows(2000, 256, "The refit needs 256 tokens")
    list(found.text.warnings())
    assert read == [recipe.calibration]


def test_clean_windows_are_tokenised_once(tokenizer):
    found = tiny.calibration_for(tiny.recipe_for("unused"), tokenizer)
    one, two = found.pairs(1), found.pairs(2)
    assert all(a.clean is b.clean for a, b in zip(one, two, strict=True))
    assert all(a.perturbed.text != b.perturbed.text for a, b in zip(one, two, strict=True))
    assert [p.clean.text for p in found.pairs(2, 2)] == [p.clean.text for p in two[:2]]


def test_nothing_is_read_or_tokenised_before_it_is_needed():
    Calibration(CalibrationText("", ()), tiny.recipe_for("unused"), None, 8, torch.device("cpu"))


def test_tokens_are_scored_on_more_pairs_where_the_text_holds_them(tokenizer):
    recipe = tiny.recipe_for("unused", windows=2)
    assert len(tiny.calibration_for(recipe, tokenizer).token_pairs(1)) == 2 * TOKEN_PAIRS
    words = "text:" + "The dog ran away and the cat came home. " * 11
    found = tiny.calibration_for(recipe.replace(calibration=words), tokenizer)
    held = len(tiny.pairs_for(tokenizer, 2, calibration=words))
    assert held == 2
    pairs = found.token_pairs(1)
    assert len(pairs) in (4, 6)
    assert [p.perturbed.text for p in pairs[:2]] == [p.perturbed.text for p in found.pairs(1)]
    with pytest.raises(UserError, match="holds only about"):
        tiny.calibration_for(recipe.replace(calibration=words[:100]), tokenizer).token_pairs(1)


def test_windows_longer_than_the_model_reads_are_refused(tokenizer):
    recipe = tiny.recipe_for("unused", window_tokens=40)
    with pytest.raises(UserError, match="at most 30 tokens"):
        tiny.calibration_for(recipe, tokenizer, context=30).check()


def test_rows_are_batches_that_no_context_is_too_short_for(tokenizer):
    recipe = tiny.recipe_for("unused")
    rows = tiny.calibration_for(recipe, tokenizer).rows(5000, 100, "x")
    assert {r.shape[1] for r in rows} == {ROW_TOKENS}
    assert [len(r) for r in rows[:-1]] == [BATCH_ROWS] * (len(rows) - 1)
    assert sum(map(len, rows)) == -(-5000 // ROW_TOKENS)
    short = tiny.calibration_for(recipe, tokenizer, context=100).rows(5000, 100, "x")
    assert {r.shape[1] for r in short} == {100}
    other = tiny.calibration_for(recipe, tokenizer).rows(5000, 100, "x", stream="other")
    assert not torch.equal(torch.cat(rows), torch.cat(other))
    with pytest.raises(UserError, match=r"^Training needs 9 tokens, and the text .* holds 0 "):
        tiny.calibration_for(recipe.replace(calibration="text:Few."), tokenizer).rows(
            50, 9, "Training needs 9 tokens"
        )


def test_windows_do_not_depend_on_how_much_others_need(tokenizer, tmp_path):
    """A refit that reads more of a large file leaves the windows where they are."""
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for n in range(5 * POOL_CHARACTERS // 4 // 4000):
            # The same text every third time: what is left out still counts as read.
            file.write(json.dumps({"text": f"Row {n - n % 3} and the dog. ".ljust(4000, "x")}) + "\n")
    recipe = tiny.recipe_for("unused", calibration=str(path))
    more = recipe.replace(refit=True, refit_tokens=POOL_CHARACTERS // 4)
    few, many = (CalibrationText.read(r) for r in (recipe, more))
    assert len(few.domains[0].documents) < len(many.domains[0].documents)
    assert few.holding(many.characters) == many
    assert many.holding(few.characters).domains[0].documents == few.domains[0].documents
    one, two = (tiny.calibration_for(r, tokenizer).pairs(1) for r in (recipe, more))
    assert [p.perturbed.text for p in one] == [p.perturbed.text for p in two]


def test_repeated_documents_are_said(tokenizer):
    text = "text:" + "\n\n\n".join(["The dog ran.", "The cat sat.", "The dog ran.\n"])
    (warning,) = CalibrationText.read(tiny.recipe_for("unused", calibration=text)).warnings()
    assert warning.startswith("1 documents of the calibration text 'pasted text of ")


class Broken:
    """A method whose scores are decided beforehand."""

    name = "broken"

    def __init__(self, value: float, inf_protects: bool) -> None:
        self.value, self.inf_protects = value, inf_protects

    def begin(self, model, blocks, sites):
        return self

    def begin_tokens(self, model):
        return self

    def add(self, batch) -> None:
        assert len(batch) == 1

    def scores(self):
        return [torch.tensor([1.0, self.value])]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("inf_protects", [False, True])
def test_scores_that_are_not_finite_are_refused(tokenizer, value, inf_protects):
    work = tiny.unread().score(Broken(value, inf_protects), None, [], [], tiny.pairs_for(tokenizer, 2))
    if inf_protects and value == float("inf"):
        assert drain(work)[0].tolist() == [1.0, value]
    else:
        with pytest.raises(UserError, match="not finite numbers"):
            drain(work)


@pytest.mark.parametrize("scorer", [m for m in METHODS if m.scores_tokens], ids=lambda m: m.name)
def test_token_scores_that_are_not_finite_are_refused(tokenizer, scorer):
    model, pairs = zoo.build("llama"), tiny.pairs_for(tokenizer, 2)
    assert bool(tiny.token_scores(scorer, model, pairs).isfinite().all())
    model.get_input_embeddings().weight.data[5, 0] = float("nan")
    model.lm_head.weight.data[5, 0] = float("nan")
    if scorer.name != "random":
        with pytest.raises(UserError, match="not finite numbers"):
            tiny.token_scores(scorer, model, pairs)
