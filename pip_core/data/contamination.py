"""How much of what a model is measured on it was calibrated on.

The field's measure of contamination: a text counts as seen where it shares 13 words in a row with
the other side, lower-cased and without punctuation (Brown et al., "Language Models are Few-Shot
Learners", arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NGRAM = 13
_APOSTROPHES = str.maketrans("", "", "'’")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """What two sets of texts share.

    Attributes:
        texts: how many evaluation texts were looked at.
        shared: how many of them share `NGRAM` words in a row with the calibration.
        short: how many have fewer words than that, so that nothing can be said of them.
        example: the first such words found, as they were compared; empty where there are none.
    """

    texts: int
    shared: int
    short: int
    example: str

    def sentence(self, what: str = "evaluation texts") -> str:
        """A warning to show, or nothing where nothing is shared.

        Args:
            what: what the texts are, as it should stand in the sentence ("items of the task 'facts'").
        """
        if not self.shared:
            return ""
        return (
            f"{self.shared} of {self.texts} {what} share {NGRAM} words in a row with the calibration text "
            f"(such as “{self.example}”), so what is measured on them says less than it seems to."
        )


def overlap(calibration: Iterable[str], evaluation: Sequence[str]) -> Overlap:
    """Compare texts word by word.

    Args:
        calibration: may be large; it is gone through once and not kept.
        evaluation: for a multiple-choice item its prompt and its right answer, in one text.
    """
    seen: dict[str, list[int]] = {}
    short = 0
    for number, text in enumerate(evaluation):
        grams = set(_grams(text))
        short += not grams
        for gram in grams:
            seen.setdefault(gram, []).append(number)
    shared: set[int] = set()
    example = ""
    for text in calibration if seen else ():
        for gram in _grams(text):
            if numbers := seen.get(gram):
                example = example or gram
                shared.update(numbers)
    return Overlap(len(evaluation), len(shared), short, example)


def _grams(text: str) -> Iterator[str]:
    """Every `NGRAM` words in a row, joined by single spaces."""
    words = _WORD.findall(text.lower().translate(_APOSTROPHES))
    return (" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))
