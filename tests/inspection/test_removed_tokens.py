"""The tokens that a run removed, to look through and search, and texts without them."""

from __future__ import annotations

import json

import pytest
import torch

from pip_core.cli.main import main
from pip_core.core.errors import UserError
from pip_core.core.token_removal import packed, removal_in, unpacked
from pip_core.engine.stages.prune_vocabulary import VocabularyPruned
from pip_core.inspection.removed_tokens import PAGE, RemovedTokens
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs.files import MODEL
from pip_core.runs.queue import RunQueue
from pip_core.runs.run_directory import create
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset
from pip_core.ui.looking import Looks
from pip_core.ui.parts import tokens
from pip_core.ui.removed_tokens import list_tokens, measure_text
from pip_core.ui.shown import Shown

from .. import tiny, zoo

TEXT = "Other people moved over the hill, and those people rested."


@pytest.fixture(scope="module")
def subset(tokenizer) -> VocabularySubset:
    vocabulary = Vocabulary.of(tokenizer, zoo.CONFIGS["llama"]())
    scores = -torch.arange(zoo.VOCABULARY).float()
    return VocabularySubset(vocabulary, vocabulary.keep(scores, 600))


@pytest.fixture(scope="module")
def removed(subset, tokenizer) -> RemovedTokens:
    gone = [i for i in range(zoo.VOCABULARY) if i not in subset.new]
    return RemovedTokens(tokenizer, gone, zoo.VOCABULARY)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer, subset):
    """A run that recorded what it removed, as far as its vocabulary."""
    root = tmp_path_factory.mktemp("runs")
    model = tiny.save(root / "model", "llama", tokenizer)
    ids = packed((i for i in range(zoo.VOCABULARY) if i not in subset.new), zoo.VOCABULARY)
    event = VocabularyPruned(0, 1000, zoo.VOCABULARY, (), (), (), 1, "", 1.0, ids=ids)
    folder = root / "runs" / ("a" * 24)
    create(folder, tiny.recipe_for(model), [event])
    return folder, event


def test_ids_are_packed_into_a_short_text():
    ids = [0, 7, 8, 63, 99]
    assert unpacked(packed(ids, 100), 100) == ids
    for wrong in ("", "!", packed(ids, 200), packed(ids, 100)[:-6], "é"):
        with pytest.raises(UserError, match="damaged"):
            unpacked(wrong, 100)


def test_the_list_is_searched_and_given_a_page_at_a_time(removed, tokenizer):
    whole = removed.page()
    assert whole.found == whole.removed == zoo.VOCABULARY - 600
    assert len(whole.tokens) == PAGE
    assert [removed.page("", n).tokens for n in (0, 1)] == [whole.tokens] * 2
    last = removed.page("", 1e12)
    assert last.number == last.pages == whole.pages == -(-whole.found // PAGE)
    ids = [t.id for n in range(1, whole.pages + 1) for t in removed.page("", n).tokens]
    assert len(set(ids)) == len(ids) == whole.found
    found = removed.page(" PEOPLE ")
    assert found.found
    for token in found.tokens:
        assert "people" in token.text.casefold()
        assert "".join(token.pieces) == token.text == tokenizer.decode([token.id])
        assert token.script == "Latin"
    assert removed.page("script:latin").found > removed.page("people").found
    for odd in ("\x00", "\ud800", "((", "%", "東京" * 500, "script:", "\u202e"):
        assert removed.page(odd).found <= whole.found


def test_a_text_is_read_by_both_tokenizers(removed, subset, tokenizer):
    found = removed.lengths(TEXT)
    assert found.before == len(tokenizer(TEXT)["input_ids"])
    assert found.after == len(subset.tokenizer(tokenizer)(TEXT)["input_ids"]) > found.before
    text, pieces, times = next(one for one in found.examples if "people" in one[0])
    assert "".join(pieces) == text
    assert times == 2
    assert f"“{text.strip()}” was one token" in found.sentence()
    for wrong in ("", " \n", "x" * 1_000_001):
        with pytest.raises(UserError):
            removed.lengths(wrong)


def test_page_and_command_line_show_them(run, capsys):
    folder, event = run
    queue, looks = RunQueue(folder.parent), Looks()
    looks._looked = lambda recipe, look, *given: look(*given)
    page = list_tokens(queue, looks, folder.name, "people", 1)
    assert "<table" in page["token_list"]["value"]
    assert page["token_page"] == {"value": 1}
    assert "longer" not in list_tokens(queue, looks, "0" * 24, "", None)
    assert "problem" in list_tokens(queue, looks, "0" * 24, "", None)["token_list"]["value"]
    said = measure_text(queue, looks, folder.name, TEXT)["longer"]["value"]
    assert main(["tokens", str(folder), "--text", TEXT]) == 0
    printed = capsys.readouterr().out.strip()
    assert "This text takes" in printed
    assert printed.split(":")[0] in said
    assert main(["tokens", str(folder), "--search", "people", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"] > 0
    assert main(["tokens", str(folder), "--text", "a", "--file", "b"]) == 2
    summary = RunSummary()
    assert not tokens.offer(Shown(queue, "", "", summary, "none"))["removed_tokens"]["visible"]
    summary.apply([(event, 1.0)])
    assert tokens.offer(Shown(queue, folder.name, "", summary, "finished"))["removed_tokens"]["visible"]


def test_a_run_that_did_not_record_them_is_compared_with_its_export(run, subset, tokenizer):
    from dataclasses import replace

    from pip_core.inspection.removed_tokens import removed_tokens

    folder, event = run
    old, model = replace(event, ids=""), str(folder.parent.parent / "model")
    with pytest.raises(UserError, match="older version"):
        removed_tokens(model, old, folder / MODEL)
    subset.tokenizer(tokenizer).save_pretrained(folder / MODEL)
    assert removed_tokens(model, old, folder / MODEL).page() == removed_tokens(model, event, folder).page()
    with pytest.raises(UserError, match="no token"):
        removal_in([])
