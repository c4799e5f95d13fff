"""Passages of a text, and how many of them each domain of a mix provides."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from transformers import PreTrainedTokenizerBase

from ..core.errors import UserError
from .corpora import Domain
from .perturbation import View, view_of
from .writing import Writing, writing_of

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
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    rng: random.Random,
    writing: Writing,
    any_text: bool = False,
) -> Iterator[str]:
    """Passages of whole words that are `tokens` tokens long or a word less, in seeded order.

    Long documents are cut into several; short ones are joined until a window is full. A word longer
    than a window is left out.

    Args:
        writing: how the documents are written.
        any_text: whether passages in which nothing can be edited are windows too; they come last.
    """
    order, aside = list(documents), []
    rng.shuffle(order)
    text = "\n\n".join(order)
    start, ahead = _after_space(text, 0), tokens * CHARACTERS_PER_TOKEN
    while start < len(text):
        view = view_of(text[start : start + ahead], tokenizer, writing)
        if len(view.ids) < tokens:
            if start + ahead >= len(text):
                break
            ahead *= 2  # indentation, or one word over and over: many characters to a token
            continue
        full = int(view.words[tokens - 1])
        # The word that holds the last token may go on beyond it; then it belongs to the next window.
        if len(view.ids) > tokens and int(view.words[tokens]) == full:
            full -= 1
        end = writing.spans(view.text)[max(full, 0)][1]
        passage = view.text[:end].strip()
        if full >= 0 and writing.editable.search(passage):
            yield passage
        elif full >= 0:
            aside.append(passage)
        start = _after_space(text, start + end)
        ahead = tokens * CHARACTERS_PER_TOKEN
    if any_text:
        yield from aside


class Passages:
    """Windows of one domain in their order, tokenised when first asked for."""

    def __init__(
        self,
        domain: Domain,
        tokenizer: PreTrainedTokenizerBase,
        tokens: int,
        rng: random.Random,
        any_text: bool,
    ) -> None:
        self.domain = domain
        self.writing = writing_of(domain.documents)
        found = windows_of(domain.documents, tokenizer, tokens, rng, self.writing, any_text)
        self._views = (view_of(text, tokenizer, self.writing) for text in found)
        self._found: list[View] = []

    def get(self, number: int) -> View | None:
        """Window `number`, from 0; None where the text holds fewer."""
        while len(self._found) <= number:
            view = next(self._views, None)
            if view is None:
                return None
            self._found.append(view)
        return self._found[number]


def _after_space(text: str, start: int) -> int:
    """The position of the first character at or after `start` that is no white space."""
    found = _SPACE.match(text, start)
    assert found is not None  # it matches the empty text too
    return found.end()


def check_holds(documents: Sequence[str], name: str, windows: int, tokens: int) -> None:
    """Refuse a text that holds too few windows whatever the tokenizer is: no token is shorter than a byte.

    Args:
        name: of the text, as people read it.
        windows, tokens: how many windows are asked for, and how long each is.

    Raises:
        UserError: it does.
    """
    most = sum(len(document.encode("utf-8", "replace")) for document in documents) // tokens
    if most < windows:
        held = f"{most} window{'s' * (most != 1)}"
        raise UserError(
            f"The calibration text '{name}' is too short: it holds at most {held} of {tokens} tokens, and "
            f"{windows} are asked for. Use a longer text, fewer windows or shorter ones."
        )
