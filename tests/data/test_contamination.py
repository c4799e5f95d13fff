"""What calibration and evaluation share, and how that is told."""

from __future__ import annotations

import random

import pytest

from pip_core.data.contamination import NGRAM, Overlap, overlap

WORDS = [f"w{n}" for n in range(60)]


def text(first: int, last: int) -> str:
    return " ".join(WORDS[first:last])


def test_thirteen_words_in_a_row_count_and_twelve_do_not():
    calibration = [text(0, 30)]
    found = overlap(calibration, [f"x {text(10, 23)} y", f"x {text(10, 22)} y {text(23, 30)}", text(30, 60)])
    assert found == Overlap(3, 1, 0, text(10, 23))


def test_case_and_punctuation_do_not_count():
    clean = "it isnt the end said the dog and he ran home to his tree at once"
    written = "“It isn't the END,” said the dog; and he\nran home to his   tree -- at once!"
    found = overlap([written], [clean, written.replace("'", "’")])
    assert (found.shared, found.example) == (2, " ".join(clean.split()[:NGRAM]))


def test_words_of_two_documents_are_not_in_a_row():
    assert overlap([text(0, 10), text(10, 30)], [text(0, 20)]).shared == 0
    assert overlap([text(0, 20)], [text(0, 10), text(10, 20)]) == Overlap(2, 0, 2, "")


def test_short_texts_are_counted_not_compared():
    assert overlap([text(0, 30)], ["", text(0, 12), text(0, 13)]) == Overlap(3, 1, 2, text(0, 13))


def test_other_scripts():
    russian = "Он шёл домой и думал о том что завтра будет новый день и дождь"
    assert overlap([russian.upper()], [russian + "."]).shared == 1


def test_nothing_to_compare():
    assert overlap([], [text(0, 30)]) == Overlap(1, 0, 0, "")
    assert overlap([text(0, 30)], []) == Overlap(0, 0, 0, "")


def test_a_calibration_that_is_gone_through_once():
    assert overlap(iter([text(30, 50), text(0, 20)]), [text(0, 20), text(5, 20)]).shared == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_same_as_comparing_every_pair_of_positions(seed):
    rng = random.Random(seed)
    calibration = [" ".join(rng.choices("ab", k=rng.randint(5, 60))) for _ in range(8)]
    evaluation = [" ".join(rng.choices("ab", k=rng.randint(5, 30))) for _ in range(40)]
    # Words of one letter: where strings of letters and spaces match, words in a row do.
    shared = [
        any(e[i : i + 2 * NGRAM - 1] in c for c in calibration for i in range(0, len(e) - 2 * NGRAM + 2, 2))
        for e in evaluation
    ]
    found = overlap(calibration, evaluation)
    assert found.shared == sum(shared)
    assert 0 < found.shared < len(evaluation)


def test_the_sentence():
    assert overlap([text(0, 30)], [text(30, 60)]).sentence() == ""
    told = overlap([text(0, 30)], [text(0, 13), text(30, 60)]).sentence("items of the task 'facts'")
    assert told.startswith(
        "1 of 2 items of the task 'facts' share 13 words in a row with the calibration text"
    )
    assert f"“{text(0, 13)}”" in told
    assert told.count(".") == 1
