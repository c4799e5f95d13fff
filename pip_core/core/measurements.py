"""What measuring a model finds, as parts of an event: frozen values, their fields checked."""

from __future__ import annotations

from typing import TypeVar

import pydantic.dataclasses
from pydantic import ConfigDict
from typing_extensions import dataclass_transform  # in typing from Python 3.11 on

CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True)
def value(made: Class) -> Class:
    """A part of an event: frozen, its fields checked."""
    return pydantic.dataclasses.dataclass(frozen=True, config=CONFIG)(made)  # type: ignore[return-value]


@value
class TaskResult:
    """Accuracy on one task. `se` is its standard error; `chance` the accuracy of guessing;
    `hits` one character per item, "1" where the answer was right.

    `accuracy` and `hits` are those of `metric`, the one commonly reported: "acc" (the likeliest
    choice, or the greedy last word) or "acc_norm" (the likeliest choice per character); both stand in
    the fields of that name (`acc_norm` None for last words). `digest` tells the items from others;
    `cut` is how many lost their beginning to the model's context, `duplicates` how many are repeated.
    """

    name: str
    accuracy: float
    se: float
    items: int
    chance: float
    hits: str
    metric: str = "acc_norm"
    acc: float | None = None
    acc_se: float | None = None
    acc_norm: float | None = None
    acc_norm_se: float | None = None
    digest: str = ""
    cut: int = 0
    duplicates: int = 0


@value
class TextResult:
    """Perplexity of documents, each token predicted once in windows of `window` tokens (stride: the
    same). Per word and per byte, so that models with different tokenizers can be compared."""

    name: str
    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    documents: int
    words: int
    tokens: int
    window: int


@value
class WritingResult:
    """How much of what the model writes repeats itself: the share of runs of four words that occur in the
    same text before, as the mean over `texts` texts of `tokens` tokens each, and its standard error."""

    name: str
    repeated: float
    se: float
    texts: int
    tokens: int
