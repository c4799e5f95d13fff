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
