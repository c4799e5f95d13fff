"""Token boundaries against those written down from lm-evaluation-harness (benchmarks/record_harness.py)."""

from __future__ import annotations

import json

import pytest
from transformers import LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

from pip_core.core.errors import UserError
from pip_core.evaluation.requests import Encoder, Request, context_length

from .. import tiny, zoo

SAID = json.loads((tiny.ROOT / "tests" / "fixtures" / "harness.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["False", "True"], ids=["without bos", "with bos"])
def bos(request) -> str:
    return request.param


@pytest.fixture
def encoder(bos) -> Encoder:
    return Encoder(tiny.fixed_tokenizer(bos == "True"), SAID["context"])


def without_beginning() -> PreTrainedTokenizerFast:
    tokenizer = tiny.fixed_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    return tokenizer


def test_pairs_are_those_of_the_harness(encoder, bos):
    said = [p for p in SAID["pairs"][bos] if p[3]]
    found = encoder.requests([(before, after) for before, after, _, _ in said])
    assert len(found) >= 10
    for one, (before, after, ids, targets) in zip(found, said, strict=True):
        assert list(one.ids) == ids, (before, after)
        # The harness refuses a continuation longer than the context; here it loses its beginning.
        assert list(one.targets) == targets[-len(ids) :], (before, after)
        assert (
            one.cut == (len(encoder.tokenizer(before + after)["input_ids"]) > SAID["context"] + 1)
            or not before
        )


def test_documents_are_those_of_the_harness(encoder, bos):
    counts = []
    for document, said in SAID["documents"][bos]:
        found = encoder.windows(document)
        assert [[list(w.ids), list(w.targets)] for w in found] == said
        counts.append(len(found))
    assert max(counts) >= 2


def test_the_harness_and_we_see_the_same_pairs_together_and_alone(encoder, bos):
    pairs = [(before, after) for before, after, _, targets in SAID["pairs"][bos] if targets]
    assert encoder.requests(pairs) == [encoder.requests([pair])[0] for pair in pairs]


def test_a_continuation_without_a_token_of_its_own(encoder):
    with pytest.raises(UserError, match="'he' has no token of its own"):
        encoder.requests([("t", "he")])


def test_a_tokenizer_without_any_special_token():
    encoder = Encoder(without_beginning(), 12)
    assert encoder.requests([("the", " cat")]) == [Request((259,), (263,))]
    with pytest.raises(UserError, match="end-of-text token"):
        encoder.requests([("", "the")])
    with pytest.raises(UserError, match="end-of-text token"):
        encoder.windows("the cat")


def test_the_end_of_text_token_where_there_is_no_beginning():
    tokenizer = tiny.fixed_tokenizer()
    tokenizer.bos_token = None
    assert Encoder(tokenizer, 12).requests([("", "the")]) == [Request((1,), (259,))]


def test_context_length():
    tokenizer = tiny.fixed_tokenizer()
    assert context_length(LlamaConfig(max_position_embeddings=77), tokenizer) == 77
    assert context_length(zoo.build("gpt2").config, tokenizer) == 128
    config = PreTrainedConfig()
    assert context_length(config, tokenizer) == 2048
    tokenizer.model_max_length = 99
    assert context_length(config, tokenizer) == 99
