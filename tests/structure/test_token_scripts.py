"""Tokens are told apart by script, and those that somebody wants stay."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.engine.run import check, run
from pip_core.structure.token_scripts import lengths_by_script, script_of, tokens_by_script, tokens_to_keep
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset

from ..tiny import recipe_for


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The", "Latin"),
        (" мир", "Cyrillic"),
        ("東京", "Cjk"),
        ("1,024 한", "Hangul"),
        ("12 + 3", ""),
        # Forms of letters have these letters' script, and what is in several scripts has none.
        ("µm", "Greek"),
        ("ª", "Latin"),
        ("ｘ", "Latin"),
        ("𝐱", "Latin"),
        ("ℵ", "Hebrew"),
        ("ｶﾞ", "Katakana"),
        ("ʼ", ""),
        ("ーア", "Katakana"),
    ],
)
def test_a_script_is_that_of_the_first_letter(text, script):
    assert script_of(text) == script


def test_tokens_of_a_text_and_of_a_script_stay(opened):
    loaded = opened("llama", "float32")
    whole = Vocabulary.of(loaded.tokenizer, loaded.config)
    assert whole.keeping(()).fixed == whole.fixed
    words = "The dog ran around the old tree."
    ids = loaded.tokenizer(words, add_special_tokens=False)["input_ids"]
    named = tokens_to_keep([f"text:{words}", "file:there"], whole, loaded.tokenizer, {"there": words})
    assert named == set(ids)
    kept = whole.keeping(named)
    scores = torch.arange(kept.rows, 0, -1).float()
    subset = VocabularySubset(kept, kept.keep(scores, len(kept.fixed)))
    assert len(subset.retokenize(torch.tensor(ids))) == len(ids)
    scripts = tokens_by_script(whole, loaded.tokenizer)
    removed, of, pieces = lengths_by_script(subset, scripts)["Latin"]
    assert of == len(scripts["Latin"])
    assert removed == sum(i not in subset.new for i in scripts["Latin"])
    assert pieces > 1
    latin = tokens_to_keep(["script:latin"], whole, loaded.tokenizer, {})
    assert latin == set(scripts["Latin"])


def test_what_names_no_token_is_a_sentence(opened):
    loaded = opened("llama", "float32")
    whole = Vocabulary.of(loaded.tokenizer, loaded.config)
    with pytest.raises(UserError, match=r"no tokens of the script 'Klingon'.*Latin"):
        tokens_to_keep(["script:klingon"], whole, loaded.tokenizer, {})
    for nothing in ("text:a", "file:one"):
        with pytest.raises(UserError, match=rf"nothing to keep for '{nothing}'.*always stay"):
            tokens_to_keep([nothing], whole, loaded.tokenizer, {"one": "a\n"})
    for entry in ("cyrillic", "script:", "text: ", "file:"):
        with pytest.raises(UserError, match=rf"'{entry}'.*(script:Cyrillic|with commas)"):
            Recipe(keep_tokens=(entry,))


@pytest.mark.parametrize("vocabulary", [0.5, "measured"])
def test_a_list_that_names_nothing_is_refused_before_the_weights_are_read(
    llama_folder, tmp_path, monkeypatch, vocabulary
):
    """However many tokens go: where that is measured, the run must not go on without tokens instead."""
    monkeypatch.setattr("pip_core.checkpoints.load.AutoModelForCausalLM", None)
    recipe = recipe_for(
        llama_folder, method="pip-gate", vocabulary=vocabulary, keep_tokens=("script:klingon",)
    )
    assert "script 'Klingon'" in list(run(recipe))[-1].message
    (tmp_path / "rows.json").write_text('{"text": "JSON is a text as well"}', encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    for name, wrong in (("rows.json", ""), ("empty.txt", "is empty"), ("none.txt", "does not exist")):
        named = recipe.replace(keep_tokens=(f"file:{tmp_path / name}",))
        with pytest.raises(UserError, match=wrong) if wrong else nullcontext():
            check(named)
