"""Tokens that go: what a tokenizer and a model are without them, and that a run does it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from html import escape

import pytest
import torch
from tokenizers import Tokenizer, models
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pip_core.budget.budget import budget_of
from pip_core.checkpoints.nonuniform import load_nonuniform
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.recipe import GLOBAL, Recipe
from pip_core.data.corpora import documents
from pip_core.engine.replay import ReplayState
from pip_core.engine.run import check, run
from pip_core.engine.stages.prune_vocabulary import VocabularyPruned
from pip_core.engine.stages.refit import Refitted
from pip_core.evaluation.evaluator import perplexity, text_windows
from pip_core.reporting.messages import sentence
from pip_core.reporting.run_summary import RunSummary
from pip_core.scoring import METHODS, get_scorer
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.vocabulary import MULTIPLE, Vocabulary, VocabularySubset
from pip_core.ui.inspection import maps

from .. import tiny, zoo
from ..engine.test_run import cut

TEXT = "The children carried their heavy baskets home, 1,024 steps – naïve, but content: 東京!\n\tx = 1"
FAMILIES = ("llama", "llama-biases", "gpt2", "gpt2-inner", "gemma2", "phi", "bloom")


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return torch.rand(zoo.VOCABULARY, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def vocabulary(tokenizer) -> Vocabulary:
    return Vocabulary.of(tokenizer, zoo.CONFIGS["llama"]())


@pytest.fixture(scope="module")
def trim(vocabulary, scores) -> VocabularySubset:
    return VocabularySubset(vocabulary, vocabulary.keep(scores, 900))


def test_a_token_stays_with_what_it_is_made_of(vocabulary, trim, tokenizer):
    stays = set(trim.kept.tolist())
    assert len(stays) == len(trim.kept) == 900
    assert vocabulary.fixed <= stays
    assert set(tokenizer.all_special_ids) <= stays
    made = [i for i in stays if i in vocabulary.parts]
    assert len(made) > 300
    assert all(set(vocabulary.parts[i]) <= stays for i in made)


def test_the_lowest_go_as_far_as_others_do_not_need_them(vocabulary, scores, trim):
    stays = set(trim.kept.tolist())
    needed = {part for i in stays for part in vocabulary.parts.get(i, ())} | vocabulary.fixed
    chosen, gone = stays - needed, set(range(zoo.VOCABULARY)) - stays
    assert min(scores[i] for i in chosen) > sorted(scores[i] for i in gone)[len(gone) // 2]
    best = vocabulary.keep(scores, 900 + MULTIPLE)
    assert stays <= set(best.tolist())
    # Several numbers at once come to what each comes to.
    counts = (900, 700, 900 + MULTIPLE)
    each = [vocabulary.keep(scores, count).tolist() for count in counts]
    assert [kept.tolist() for kept in vocabulary.keep_each(scores, counts)] == each
    assert vocabulary.keep_each(scores, ()) == []


def test_of_equals_the_earlier_merge_stays(vocabulary):
    kept = vocabulary.keep(torch.zeros(zoo.VOCABULARY), 700)
    assert kept.tolist() == list(range(700))


def test_rows_without_a_token_go_first():
    tokenizer = tiny.fixed_tokenizer()
    vocabulary, named = Vocabulary.of(tokenizer, zoo.CONFIGS["llama"]()), len(tokenizer)
    kept = vocabulary.keep(torch.arange(zoo.VOCABULARY).float(), named + 8)
    assert set(range(named)) < set(kept.tolist())
    assert vocabulary.keep(torch.arange(zoo.VOCABULARY).float(), named).tolist() == list(range(named))


def test_the_tokenizer_reads_and_writes_every_text(tokenizer, trim):
    found = trim.tokenizer(tokenizer)
    ids = found(TEXT)["input_ids"]
    assert found.decode(ids) == TEXT
    assert max(ids) < 900
    assert len(found) == 900
    assert len(ids) > len(tokenizer(TEXT)["input_ids"])
    assert found.eos_token_id == trim.new[tokenizer.eos_token_id]


def test_what_is_put_before_a_text_is_renumbered(bos_tokenizer, scores):
    # `<s>` is token 0; kept as the last of all, its number changes.
    vocabulary = Vocabulary.of(bos_tokenizer, zoo.CONFIGS["llama"]())
    trim = VocabularySubset(vocabulary, vocabulary.keep(scores, 600))
    found = trim.tokenizer(bos_tokenizer)
    ids = found(TEXT)["input_ids"]
    assert ids[0] == found.bos_token_id == trim.new[bos_tokenizer.bos_token_id]
    assert found.decode(ids, skip_special_tokens=True) == TEXT


def test_retokenised_text_decodes_to_the_same(tokenizer, trim):
    ids = torch.tensor(tokenizer(TEXT)["input_ids"])
    pieces = trim.retokenize(ids)
    assert len(pieces) > len(ids)
    assert trim.tokenizer(tokenizer).decode(pieces.tolist()) == TEXT
    assert tokenizer.decode(trim.kept[pieces].tolist()) == TEXT


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_answers_alike(family, trim):
    """Of a text without tokens that went, the logits of those that stay are the dense model's."""
    model = zoo.build(family)
    anatomy, before = anatomy_of(model.config), sum(p.numel() for p in model.parameters())
    rows = torch.randint(0, 900, (2, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(input_ids=trim.kept[rows]).logits[..., trim.kept]
        trim.apply(model)
        found = model(input_ids=rows).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    gone = zoo.VOCABULARY - 900
    assert sum(p.numel() for p in model.parameters()) == before - gone * anatomy.row_parameters
    assert model.config.vocab_size == 900
    assert model.config.eos_token_id == trim.new[1]


def test_tokenizers_that_are_no_byte_pairs_are_refused():
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    with pytest.raises(UserError, match=r"is of the kind WordLevel.*0 % rare tokens removed"):
        Vocabulary.of(PreTrainedTokenizerFast(tokenizer_object=words), zoo.CONFIGS["llama"]())


def test_too_few_to_be_left(vocabulary, scores):
    with pytest.raises(UserError, match=r"258 of this model's 1,600 tokens"):
        vocabulary.keep(scores, 200)


def naive_logits(model, ids: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """The gradient at the logits by automatic differentiation, a set of them for every word."""
    logits = model(input_ids=ids[None]).logits[0, :-1]
    logits.retain_grad()
    F.cross_entropy(logits, ids[1:]).backward()
    total = torch.zeros(100, logits.shape[1])
    for place, word in enumerate(words[1:].tolist()):
        total[word] += logits.grad[place]
    return total


def naive_rows(model, signed) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(weight, gradient) of every table, for a signed sum of losses."""
    model.zero_grad()
    loss = sum(
        sign * F.cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:]) for sign, ids in signed
    )
    loss.backward()
    tables = {id(t.weight): t.weight for t in (model.get_input_embeddings(), model.get_output_embeddings())}
    return [(w.detach(), w.grad.clone()) for w in tables.values()]


def naive(name: str, model, pairs) -> torch.Tensor:
    total = torch.zeros(zoo.VOCABULARY)
    for pair in pairs:
        clean, other = pair.clean.ids, pair.perturbed.ids
        if name == "pip-gate":
            one, two = (naive_logits(model, view.ids, view.words) for view in (pair.clean, pair.perturbed))
            total += (one - two).abs().sum(0)
        elif name == "pip":
            found = naive_rows(model, [(1, clean), (-1, other)])
            total += sum(g.square().sum(1) for _, g in found).sqrt()
        elif name == "taylor":
            total += sum((w * g).abs().sum(1) for w, g in naive_rows(model, [(1, clean)]))
    return total / len(pairs)


@pytest.mark.parametrize("family", ["llama", "gpt2-inner", "gemma2"])
@pytest.mark.parametrize("name", ["pip-gate", "pip", "taylor"])
def test_scores_of_tokens_are_the_formula(family, name, tokenizer):
    pairs, model = tiny.pairs_for(tokenizer, 3), zoo.build(family)
    found = tiny.token_scores(get_scorer(name), model, pairs)
    assert all(p.grad is None for p in model.parameters())
    expected = naive(name, model, pairs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_methods_that_read_no_text(tokenizer):
    pairs, model = tiny.pairs_for(tokenizer, 2), zoo.build("llama")
    squares = model.get_input_embeddings().weight.detach().square().sum(1)
    torch.testing.assert_close(tiny.token_scores(get_scorer("magnitude"), model, pairs), squares)
    drawn = tiny.token_scores(get_scorer("random"), model, pairs)
    assert torch.equal(drawn, tiny.token_scores(get_scorer("random"), model, pairs))
    assert drawn.unique().numel() > 1000


def test_a_method_that_is_not_defined_for_tokens_is_refused(recipe):
    without = [m.name for m in METHODS if not m.scores_tokens]
    assert set(without) == {"flap", "entrodrop", "multi-domain", "sleb", "block-influence"}
    with pytest.raises(UserError, match="'sleb' is not defined for tokens"):
        check(recipe.replace(method="sleb", vocabulary=0.5))


def test_perplexity_stays_per_token_of_the_dense_model(tokenizer, trim):
    windows, model = text_windows(documents("heldout"), tokenizer, 48, 5), zoo.build("llama")
    trim.apply(model)
    found, means = drain(perplexity(model, windows, trim.retokenize)), []
    for row in windows:
        ids, begin = trim.retokenize(row), len(trim.retokenize(row[:1]))
        with torch.no_grad():
            told = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        nats = -sum(told[t - 1, ids[t]] for t in range(begin, len(ids)))
        means.append(float(nats) / 47)
    assert found.value == pytest.approx(math.exp(sum(means) / len(means)), rel=1e-4)
    assert (found.windows, found.window_tokens) == (5, 48)


@pytest.fixture(scope="module")
def trimming(recipe) -> Recipe:
    return recipe.replace(target=0.3, vocabulary=0.3, refit=True)


@pytest.fixture(scope="module")
def whole(trimming, tmp_path_factory):
    """An undisturbed run, its export really verified."""
    out = tmp_path_factory.mktemp("trim") / "model"
    return list(run(trimming, out)), out


def test_a_run_meets_its_target_to_a_few_rows(trimming, whole):
    events, _ = whole
    assert isinstance(events[-1], ev.Finished), events[-1]
    started, trimmed = tiny.only(events, ev.Started)[0], tiny.only(events, VocabularyPruned)[0]
    rows = trimmed.rows - trimmed.tokens
    assert rows % MULTIPLE == 0
    short = 0.3 * started.parameters - (started.parameters - events[-1].parameters)
    assert 0 <= short < MULTIPLE * anatomy_of(zoo.CONFIGS["llama"]()).row_parameters
    assert events[-1].parameters == trimmed.parameters
    assert started.planned_share == pytest.approx(1 - events[-1].parameters / started.parameters)
    assert f"then {trimmed.tokens:,} of 1,600 tokens" in started.goal
    assert events[-1].removed_description == trimmed.removed_description
    assert trimmed.removed_description.endswith(f" blocks and {trimmed.tokens:,} of 1,600 tokens")
    assert sentence(trimmed).startswith(f"{trimmed.tokens:,} of 1,600 tokens were removed")


def test_the_order_of_the_end(whole):
    events, _ = whole
    order = [type(e).__name__ for e in events if not isinstance(e, ev.Progress | ev.Loading)]
    assert order[-5:] == ["VocabularyPruned", "Refitted", "Evaluated", "Exported", "Finished"]
    before, after = tiny.only(events, ev.Evaluated)[-2:]
    assert (before.final, after.final) == (False, True)
    assert after.parameters == events[-1].parameters < before.parameters


def test_the_export_is_an_ordinary_checkpoint_with_its_own_tokenizer(whole):
    events, out = whole
    trimmed = tiny.only(events, VocabularyPruned)[0]
    rows = trimmed.rows - trimmed.tokens
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == events[-1].parameters
    assert model.config.vocab_size == len(tokenizer) == rows
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
    card = (out / "README.md").read_text()
    assert f"- Vocabulary: {trimmed.tokens:,} of 1,600 tokens were removed" in card
    assert "llama.cpp's converter" in card
    assert json.loads((out / "pip_recipe.json").read_text())["recipe"]["vocabulary"] == 0.3


def endings(events) -> list[ev.Event]:
    """What was done at the end and what that came to, without how long it took."""
    kept = [e for e in events if isinstance(e, VocabularyPruned | Refitted) or getattr(e, "final", False)]
    return [replace(e, seconds=0.0) for e in kept]


@pytest.mark.parametrize("kind", [ev.Removed, VocabularyPruned, Refitted])
def test_a_run_that_was_cut_short_ends_alike(trimming, whole, kind):
    events, _ = whole
    history = cut(events, kind, 0)
    rest = list(run(trimming, history=history))
    assert len(endings(rest)) == 3
    assert endings(rest) == endings(events)
    assert rest[-1].parameters == events[-1].parameters


def test_without_a_refit(trimming):
    events = list(run(trimming.replace(refit=False, measure="end")))
    assert isinstance(events[-1], ev.Finished), events[-1]
    assert not tiny.only(events, Refitted)
    assert tiny.only(events, ev.Evaluated)[-1].final


def test_a_shape_of_its_own_with_fewer_tokens(recipe, tmp_path):
    asked = recipe.replace(units=("channels",), allocation=GLOBAL, plain=False, vocabulary=0.5, measure="end")
    events = list(run(asked, tmp_path / "model"))
    assert isinstance(events[-1], ev.Finished), events[-1]
    model = load_nonuniform(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == events[-1].parameters


def test_a_story_tells_the_end(whole):
    events, _ = whole
    story = RunSummary()
    story.apply((e, 0.0) for e in events)
    trimmed = tiny.only(events, VocabularyPruned)[0]
    assert story.results["vocabulary"] == trimmed
    assert story.final.parameters == trimmed.parameters
    said = maps(story, anatomy_of(zoo.CONFIGS["llama"]()))
    assert f"{trimmed.tokens:,} of 1,600 tokens were removed" in said
    assert all(f"<code>{escape(t.replace(' ', '␣'))}</code>" in said for t in trimmed.last)
    story.apply([(ev.RemovalUndone(1, tiny.only(events, ev.Removed)[0].units), 1.0)])
    assert story.results == {}
    assert story.final is None


def test_goals_with_tokens():
    anatomy = anatomy_of(zoo.CONFIGS["llama"]())
    asked = Recipe(target=0.3, vocabulary=0.3)
    goal = budget_of(asked, anatomy)
    assert goal.share == pytest.approx(0.3, abs=MULTIPLE * anatomy.row_parameters / anatomy.parameters)
    # Half of the vocabulary stays in any case; blocks make up the rest.
    most = budget_of(asked.replace(vocabulary=0.99, target=0.6), anatomy)
    assert most.tokens <= anatomy.vocabulary // 2
    assert most.depth_units == 4
    with pytest.raises(UserError, match=r"Beside the tokens, which are .* would leave no block"):
        budget_of(asked.replace(target=0.8), anatomy)
    with pytest.raises(UserError, match="no token to remove"):
        budget_of(asked.replace(target=0.18, vocabulary=0.001), anatomy)


def test_an_early_export_cannot_be_told_by_a_recipe(trimming, whole):
    events, _ = whole
    goal = budget_of(trimming, anatomy_of(zoo.CONFIGS["llama"]()))
    removals, past = tiny.only(events, ev.Removed), ReplayState.of(events)
    assert past.reproducing_recipe(trimming, goal, removals, True, 0.7) == trimming
    assert past.reproducing_recipe(trimming, goal, removals[:1], False, 0.8) is None


@pytest.mark.parametrize("value", [-0.1, 1.1, "half"])
def test_bad_shares(value):
    with pytest.raises(UserError, match="Rare tokens removed: enter a number"):
        Recipe(vocabulary=value)
