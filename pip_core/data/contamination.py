"""Contamination: how many of the texts that a model is measured on overlap with its calibration text.

A text overlaps where it shares 13 words in a row with the other side, lower-cased and without
punctuation (Brown et al., "Language Models are Few-Shot Learners", arXiv 2005.14165, appendix C). Where a
script has no spaces between words, each of its characters counts as a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .writing import compared_words

NGRAM = 13
_APOSTROPHES = str.maketrans("", "", "'’")


@dataclass(frozen=True)
class Overlap:
    """The overlap of evaluation texts with a calibration text.

    Attributes:
        texts: number of evaluation texts.
        shared: how many of them share `NGRAM` words in a row with the calibration text.
        short: how many have fewer words than that, so that they cannot be compared.
        example: the first shared words found, as they were compared; empty where there are none.
    """

    texts: int
    shared: int
    short: int
    example: str

    def sentence(self, what: str = "evaluation texts", text: str = "calibration text") -> str:
        """A warning to show; empty where nothing is shared.

        Args:
            what: the evaluation texts, for the sentence ("items of the task 'facts'").
            text: the text that they share words with.
        """
        if not self.shared:
            return ""
        return (
            f"{self.shared} of {self.texts} {what} share {NGRAM} words in a row with the {text} "
            f"(such as “{self.example}”), so their results may be too good."
        )


def overlap(calibration: Iterable[str], evaluation: Sequence[str]) -> Overlap:
    """Count the evaluation texts that overlap with the calibration texts.

    Args:
        calibration: may be large; it is read once and not kept.
        evaluation: of a multiple-choice item the prompt and the right answer, as one text.
    """
    seen: dict[str, list[int]] = {}
    short = 0
    for number, text in enumerate(evaluation):
        own = set(grams(text))
        short += not own
        for gram in own:
            seen.setdefault(gram, []).append(number)
    shared: set[int] = set()
    example = ""
    for text in calibration if seen else ():
        for gram in grams(text):
            if numbers := seen.get(gram):
                example = example or gram
                shared.update(numbers)
    return Overlap(len(evaluation), len(shared), short, example)


def grams(text: str) -> Iterator[str]:
    """Every sequence of `NGRAM` words, joined by single spaces."""
    words = compared_words(text.lower().translate(_APOSTROPHES))
    return (" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))
