"""One question with a known answer, and the project's own format for it.

A row is multiple choice - `{"query": ..., "choices": [...], "gold": 0}` -, a last word -
`{"context": ..., "continuation": ...}` - or one ending after several beginnings -
`{"context_options": [...], "continuation": ..., "gold": 0}`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import UserError

# A row with one of these is in the project's own format.
OWN_FIELDS = frozenset(("query", "context_options", "continuation"))


@dataclass(frozen=True)
class Item:
    """One question: a prompt, the choices that may follow it, and the number of the right one.

    A last-word item has a single choice. With `openings` (one per choice) each choice follows its own
    opening instead of the prompt; all choices are then the same text, and the openings compete.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int
    openings: tuple[str, ...] = ()

    @property
    def requests(self) -> tuple[tuple[str, str], ...]:
        """Per choice the context and the continuation whose likelihood is computed."""
        before = self.openings or (self.prompt,) * len(self.choices)
        return tuple((b, f" {c}") for b, c in zip(before, self.choices, strict=True))

    @property
    def solved(self) -> str:
        """The question with its answer."""
        return f"{self.prompt} {self.choices[self.gold]}"

    @property
    def characters(self) -> int:
        """Number of characters that a model has to read; what choices share is counted once."""
        before = self.openings or (self.prompt,)
        return sum(map(len, before)) + sum(map(len, self.choices))


def own_item(row: dict) -> tuple[Item, bool]:
    """Read a row in the project's own format.

    Returns:
        The item, and whether it is a last word.

    Raises:
        UserError: what is wrong with the row; the caller adds which row.
    """
    if "context_options" in row:
        openings = texts(row, "context_options", least=2)
        ending = text(row, "continuation")
        return Item("", (ending,) * len(openings), gold(row, "gold", len(openings)), openings), False
    if "context" in row or "continuation" in row:
        return Item(text(row, "context"), (text(row, "continuation"),), 0), True
    if "query" not in row:
        raise UserError(
            "'query' is missing or not a text. A line needs query, choices and gold, or context and "
            "continuation."
        )
    choices = texts(row, "choices", least=2)
    return Item(text(row, "query"), choices, gold(row, "gold", len(choices))), False


def checksum(asked: Sequence[object]) -> str:
    """Checksum of what is asked, 12 hexadecimal digits; only results with equal checksums can be compared."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def text(row: dict, field: str, empty: bool = False) -> str:
    """A field that must be a text, and hold more than white space unless `empty` is true.

    Raises:
        UserError: it is not.
    """
    value = row.get(field)
    if not isinstance(value, str) or not (empty or value.strip()):
        raise UserError(f"'{field}' is missing or not a text.")
    return value


def texts(row: dict, field: str, least: int) -> tuple[str, ...]:
    """A field that must be a list of `least` or more texts, none of them empty.

    Raises:
        UserError: it is not.
    """
    value = row.get(field)
    if (
        not isinstance(value, list | tuple)
        or len(value) < least
        or not all(isinstance(v, str) and v.strip() for v in value)
    ):
        count = {1: "one text", 2: "two texts"}.get(least, f"{least} texts")
        raise UserError(f"'{field}' must be a list of at least {count}, none of them empty.")
    return tuple(value)


def gold(row: dict, field: str, count: int) -> int:
    """A field that must be the number of one of `count` choices, from 0.

    Raises:
        UserError: it is not.
    """
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise UserError(f"'{field}' is {value!r}, but must be a whole number from 0 to {count - 1}.")
    return value
