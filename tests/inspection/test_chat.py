"""Two models answer one prompt."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pip_core.core.errors import UserError
from pip_core.inspection.chat import answers


def test_two_models_answer(opened):
    dense, other = opened("llama"), opened("gpt2")
    grown = list(answers(dense, other, "The dog ran", tokens=12))
    for side in (0, 1):
        texts = [pair[side].text for pair in grown]
        assert all(b.startswith(a) for a, b in pairwise(texts))
    last = [answer.text for answer in grown[-1]]
    assert all(last)
    again = list(answers(dense, other, "The dog ran", tokens=12))[-1]
    assert [answer.text for answer in again] == last
    same = list(answers(dense, dense, "The dog ran", tokens=12))[-1]
    assert same[0].text == same[1].text


def test_an_empty_prompt(opened):
    dense = opened("llama")
    with pytest.raises(UserError, match="Write a prompt first"):
        list(answers(dense, dense, "  \n"))


def test_a_prompt_ends_before_the_context_does(opened):
    dense = opened("gpt2")
    context = dense.context
    prompt = "a" * (3 * context)
    with pytest.raises(UserError, match=f"reads at most {context}"):
        list(answers(dense, dense, prompt))
    ids = dense.tokenizer("The dog ran " * context)["input_ids"][: context - 5]
    found = list(answers(dense, dense, dense.tokenizer.decode(ids), tokens=64))[-1]
    assert found[0].text


@pytest.mark.parametrize("template", ["{{ raise_exception('system first') }}", "{% if %}", "{{ a.b.c }}"])
def test_a_chat_template_that_fails(opened, template):
    dense = opened("llama")
    dense.tokenizer.chat_template = template
    with pytest.raises(UserError, match="chat template does not take"):
        list(answers(dense, dense, "The dog ran"))


def test_an_answer_says_why_it_ended(opened):
    dense = opened("llama")
    found = list(answers(dense, dense, "The dog ran", tokens=3))[-1]
    assert [(answer.end, answer.turn) for answer in found] == [("length", False)] * 2
