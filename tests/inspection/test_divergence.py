"""Where two models expect different things: against the formula, written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from pip_core.core.errors import UserError
from pip_core.inspection.divergence import TOP, divergence
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset

from .. import zoo

TEXT = "The dog ran around the tree, and the ships came home."


@pytest.fixture(scope="module")
def pair():
    dense, other = zoo.build("llama"), zoo.build("llama")
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return dense, other


def test_divergence_is_the_formula(pair, tokenizer):
    dense, other = pair
    places = divergence(dense, other, tokenizer, TEXT)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        p, q = (model(ids).logits[0].float().softmax(-1) for model in pair)
    assert len(places) == ids.shape[1] - 1
    for n, place in enumerate(places):
        naive = sum(
            a * (math.log(a) - math.log(b)) for a, b in zip(p[n].tolist(), q[n].tolist(), strict=True) if a
        )
        assert place.divergence == pytest.approx(naive, abs=1e-4)
        assert place.token == tokenizer.decode([int(ids[0, n + 1])])
        assert place.dense[0][1] == pytest.approx(float(p[n].max()), abs=1e-4)
        assert len(place.dense) == len(place.pruned) == TOP
    assert places[-1].before + places[-1].token == TEXT


def test_a_text_is_shown_as_it_was_written(pair, tokenizer):
    """Also where a letter takes several tokens, each of which is no letter."""
    text = "The sea: مرحبا, สวัสดี, 😀 and naïve."
    places = divergence(*pair, tokenizer, text)
    assert places[0].before + "".join(place.token for place in places) == text
    assert any(not place.token for place in places)


def test_a_model_agrees_with_itself(pair, tokenizer):
    places = divergence(pair[0], pair[0], tokenizer, TEXT)
    assert all(place.divergence == pytest.approx(0, abs=1e-5) for place in places)
    assert all(place.dense == place.pruned for place in places)


def test_one_word_is_too_little(pair, tokenizer):
    with pytest.raises(UserError, match="at least two words"):
        divergence(*pair, tokenizer, "")


def test_with_fewer_tokens_it_is_the_formula_over_shared_tokens(pair, tokenizer):
    """KL(p_K || q): p_K renormalised over the tokens that both have, q the pruned model's own prediction."""
    dense, other = pair
    vocabulary = Vocabulary.of(tokenizer, dense.config)
    trim = VocabularySubset(vocabulary, vocabulary.keep(torch.rand(zoo.VOCABULARY), 700))
    small = copy.deepcopy(other)
    trim.apply(small)
    # Rows without a token: they take part in q, which is not renormalised over K.
    small.resize_token_embeddings(708, mean_resizing=False)
    fewer = trim.tokenizer(tokenizer)
    places = divergence(dense, small, tokenizer, TEXT, fewer)
    ids = fewer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        p = dense(trim.kept[ids]).logits[0].double().softmax(-1)
        q = small(ids).logits[0].double().softmax(-1)
    for n, place in enumerate(places):
        mass = sum(float(p[n, old]) for old in trim.kept)
        naive = 0.0
        for new, old in enumerate(trim.kept.tolist()):
            share = float(p[n, old]) / mass
            naive += share * (math.log(share) - math.log(float(q[n, new])))
        assert place.divergence == pytest.approx(naive, abs=1e-4)


def test_logits_that_are_not_finite_are_refused(pair, tokenizer):
    broken = copy.deepcopy(pair[1])
    with torch.no_grad():
        broken.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(UserError, match="finite"):
        divergence(pair[0], broken, tokenizer, TEXT)


def test_with_fewer_tokens_both_read_the_same_pieces(tokenizer):
    dense, other = zoo.build("llama"), zoo.build("llama")
    vocabulary = Vocabulary.of(tokenizer, dense.config)
    trim = VocabularySubset(vocabulary, vocabulary.keep(torch.rand(zoo.VOCABULARY), 700))
    trim.apply(other)
    places = divergence(dense, other, tokenizer, TEXT, trim.tokenizer(tokenizer))
    assert len(places) > len(tokenizer(TEXT)["input_ids"]) - 1
    # Of the tokens that both have, the same model expects the same.
    assert all(place.divergence == pytest.approx(0, abs=1e-5) for place in places)
    assert [w for w, _ in places[3].dense] == [w for w, _ in places[3].pruned]
    assert places[-1].before + places[-1].token == TEXT
