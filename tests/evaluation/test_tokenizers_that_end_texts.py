"""Tokenizers that put a token behind every text: contexts, passages and prompts go on all the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pip_core.core.progress import drain
from pip_core.core.special_tokens import count_at_end
from pip_core.data.corpora import documents
from pip_core.data.perturbation import view_of
from pip_core.evaluation.evaluator import Evaluator, text_windows
from pip_core.evaluation.requests import Encoder
from pip_core.evaluation.tasks import load_task
from pip_core.inspection import chat

from .. import tiny, zoo

PAIRS = [("The dog ran around the tree. It was a good", " dog"), ("", "The cat sat."), ("</s> A", " b")]


def ending(template: str) -> PreTrainedTokenizerFast:
    """The tiny byte pairs, with special tokens around every text."""
    found = tiny.build_tokenizer()
    found.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return found


def word_pieces() -> PreTrainedTokenizerFast:
    """Words in the manner of BERT: `[CLS]` before each text and `[SEP]` behind it."""
    words = ["[UNK]", "[CLS]", "[SEP]", "a", "the", "dog", "##s", "cat", "ran", "."]
    found = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=found, cls_token="[CLS]", sep_token="[SEP]", bos_token="[CLS]", eos_token="[SEP]"
    )


@pytest.mark.parametrize(
    ("template", "count"),
    [("$A", 0), ("<s> $A", 0), ("$A </s>", 1), ("<s> $A </s>", 1), ("<s> $A </s> </s>", 2)],
)
def test_tokens_at_the_end_are_counted(template, count):
    assert count_at_end(ending(template)) == count


@pytest.mark.parametrize(("with_end", "without"), [("$A </s>", "$A"), ("<s> $A </s>", "<s> $A")])
def test_everything_is_read_as_without_them(with_end, without):
    one, other = ending(with_end), ending(without)
    assert Encoder(one, 64).requests(PAIRS) == Encoder(other, 64).requests(PAIRS)
    text = "\n\n".join(documents("heldout")[:2])
    assert Encoder(one, 64).windows(text) == Encoder(other, 64).windows(text)
    views = [view_of("The dog ran around.", t) for t in (one, other)]
    assert torch.equal(views[0].ids, views[1].ids)
    assert torch.equal(views[0].words, views[1].words)
    short = [text_windows(["a dog"], t, len(other("a dog")["input_ids"]) // 2, 0) for t in (one, other)]
    assert torch.equal(*short)


def test_accuracy_is_that_of_a_tokenizer_without_them(tasks):
    model = zoo.build("llama")
    hits = []
    for template in ("$A </s>", "$A"):
        tokenizer = ending(template)
        windows = text_windows(documents("heldout"), tokenizer, 32, 2)
        evaluator = Evaluator([load_task(t, 8) for t in tasks], windows, tokenizer, model.config)
        result = drain(evaluator.measure(model, 0))
        hits.append([(t.hits, t.acc) for t in result.tasks] + [result.perplexity])
    assert hits[0] == hits[1]


def test_word_pieces():
    tokenizer = word_pieces()
    (request,) = Encoder(tokenizer, 64).requests([("the dog ran the", " cat")])
    assert request.ids == (1, 4, 5, 8, 4)
    assert request.targets == (7,)


def test_a_prompt_is_continued():
    read = []

    class Model:
        device = torch.device("cpu")

        def generate(self, input_ids, streamer, **_):
            read.append(input_ids.tolist())
            streamer.end()
            return input_ids

    loaded = SimpleNamespace(model=Model(), tokenizer=ending("<s> $A </s>"), context=64)
    assert list(chat.answers(loaded, loaded, "The dog"))
    assert read == 2 * [ending("<s> $A")(["The dog"])["input_ids"]]
