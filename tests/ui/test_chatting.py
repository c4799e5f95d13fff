"""Two answers side by side: where they part, and what suits a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pip_core.inspection.chat import Answer
from pip_core.inspection.divergence import Place
from pip_core.ui import chatting, inspection


@pytest.mark.parametrize(
    ("one", "other", "whole", "at"),
    [
        ("a red kite", "a red kite", True, None),
        ("a red kite", "a blue kite", True, 1),
        ("a red kite", "a red", True, 2),
        ("a red kite", "a re", False, None),  # still growing
        ("a red kite", "a blu", False, None),
        ("a red kite", "a blue k", False, 1),
        ("", "a", True, 0),
    ],
)
def test_the_first_word_that_differs(one, other, whole, at):
    assert chatting.first_difference(one, other, whole) == at


def test_answers_say_what_they_are():
    dense = Answer("It is <blue>.", 4, 1.0, "own", True)
    left, right, note = chatting.drawn("Why & how?", dense, Answer("It is red.", 4, 0.5, "length", True))
    assert "<mark class='first'>&lt;blue&gt;.</mark>" in left
    assert "<mark class='first'>red.</mark>" in right
    assert "8.0 tokens/s" in right
    assert "chat message" in note
    assert "from word 3 on" in note
    assert "2.00 times" in note
    assert "Why &amp; how?" in note
    assert "word for word" in chatting.drawn("x", dense, dense)[2]


def test_prompts_suit_the_model(tmp_path):
    assert chatting.suited("demo", tmp_path) == chatting.STORIES
    assert chatting.suited("a/b", tmp_path) == chatting.BEGINNINGS
    (tmp_path / "chat_template.jinja").touch()
    assert chatting.suited("a/b", tmp_path) == chatting.QUESTIONS


def test_the_same_difference_looks_the_same_beside_any_other():
    place = Place("a", " b", 0.3, (("b", 0.9),), (("c", 0.9),))
    assert "class='d2'" in inspection.disagreements([place])
    assert inspection.disagreements([place, Place("ab", " c", 5.0, (), ())]).count("<mark class='d2'") == 2
    # What stands before a token begins with a whole word, and says that more did.
    told = "Nora had three apples. Felix gave her four more. Now"
    shown = inspection.disagreements([replace(place, before=told)])
    assert "<th scope='row'>… apples. Felix gave her four more. Now <b>" in shown
    assert f"… {'あ' * 40} <b>" in inspection.disagreements([replace(place, before="あ" * 50)])
