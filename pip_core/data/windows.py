"""Passages of a text, and how many of them each domain of a mix provides."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from transformers import PreTrainedTokenizerBase

from .perturbation import EDITABLE, WORD, view_of

# More than any tokenizer averages on plain text.
CHARACTERS_PER_TOKEN = 8
_SPACE = re.compile(r"\s*")


def window_counts(shares: Sequence[float], windows: int) -> list[int]:
    """How many of `windows` each domain gets, by the method of largest remainders.

    Every domain gets the whole part of its quota; those with the largest remainders get one more,
    the earlier of equals first.

    Args:
        shares: sum to 1.
    """
    quotas = [Fraction(s).limit_denominator(10**9) * windows for s in shares]
    counts = [int(q) for q in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: windows - sum(counts)]:
        counts[i] += 1
    return counts


def in_turn(counts: Sequence[int]) -> Iterator[int]:
    """Numbers of the domains, each as often as `counts` says and as evenly spread as possible."""
    taken, total = [0] * len(counts), sum(counts)
    for step in range(1, total + 1):
        behind = [count * step - t * total for count, t in zip(counts, taken, strict=True)]
        chosen = behind.index(max(behind))
        taken[chosen] += 1
        yield chosen


def windows_of(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int, rng: random.Random
) -> Iterator[str]:
    """Passages of whole words that are `tokens` tokens long or a word less, in seeded order.

    Long documents are cut into several; short ones are joined until a window is full. A word longer
    than a window is left out.
    """
    order = list(documents)
    rng.shuffle(order)
    text = "\n\n".join(order)
    start, ahead = _after_space(text, 0), tokens * CHARACTERS_PER_TOKEN
    while start < len(text):
        view = view_of(text[start : start + ahead], tokenizer)
        if len(view.ids) < tokens:
            if start + ahead >= len(text):
                return
            ahead *= 2  # indentation, or one word over and over: many characters to a token
            continue
        full = int(view.words[tokens - 1])
        # The word that holds the last token may go on beyond it; then it belongs to the next window.
        if len(view.ids) > tokens and int(view.words[tokens]) == full:
            full -= 1
        words = list(WORD.finditer(view.text))
        end = words[max(full, 0)].end()
        passage = view.text[:end].strip()
        if full >= 0 and EDITABLE.search(passage):
            yield passage
        start = _after_space(text, start + end)
        ahead = tokens * CHARACTERS_PER_TOKEN


def _after_space(text: str, start: int) -> int:
    """The position of the first character at or after `start` that is no white space."""
    found = _SPACE.match(text, start)
    assert found is not None  # it matches the empty text too
    return found.end()
