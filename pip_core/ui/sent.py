"""What a browser sends, checked before any handler sees it: its type, its length, and that it can be written.

Every event of the page goes through `checking`: a handler gets the types that its signature names, or is
not called. What the values mean (is there such a run, such a method) is for the handlers to say. No gradio.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from ..core.errors import UserError
from .fields import fields

# Characters of a name or a choice; of a setting, whose error stands beside its field; of a text that somebody
# pasted; of all that is sent at once.
LONGEST_NAME, LONGEST_SETTING, LONGEST_TEXT, LONGEST_OBJECT = 1000, 20_000, 2_000_000, 4_000_000
# Of a list of names: blocks, runs, tasks.
MOST_NAMES = 2000
LARGEST = 1e12
TEXTS = ("pasted", "questions", "prompt", "text", "suggested", "lengthened")
NUMBERS = ("target", "upto", "rate", "items", "token_page")
SWITCHES = ("push_public", "push_overwrite")
NAME_LISTS = ("picked", "chosen", "methods", "measured_tasks", "keep", "drop", "kinds")
ASKED = ("act", "run", "name", "note")
REFUSAL = "What was sent cannot be used: reload the page and try again."


class Refused(UserError):
    """A value that the page itself never sends."""

    def __init__(self) -> None:
        super().__init__(REFUSAL)


def checking(
    handler: Callable, names: Sequence[str], converting: Callable[[], AbstractContextManager]
) -> Callable:
    """A handler that is called only with values that fit its inputs.

    Args:
        names: of the components whose values it gets, in order.
        converting: entered around the call, to turn a UserError into an error that the page shows.
    """

    @functools.wraps(handler)
    def handle(*values):
        with converting():
            return handler(*checked(names, values))

    @functools.wraps(handler)
    def handle_steps(*values) -> Iterator:
        with converting():
            yield from handler(*checked(names, values))

    return handle_steps if inspect.isgeneratorfunction(handler) else handle


def checked(names: Sequence[str], values: Sequence) -> list:
    """The values of components, each as its handler takes it.

    Raises:
        Refused: one does not fit, or there are too few.
    """
    if len(names) != len(values):
        raise Refused
    return [_read(name, value) for name, value in zip(names, values, strict=True)]


def memory(value: object) -> dict[str, str]:
    """What a browser keeps: its secret token ("owner"), and its last run."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused
    found = {name: text(value[name], 128) for name in ("owner", "run") if value.get(name) is not None}
    return {name: kept for name, kept in found.items() if kept or name == "run"}


def asked(value: object) -> dict[str, str]:
    """What was pressed in a row of the table of runs."""
    if not isinstance(value, dict) or len(value) > len(ASKED):
        raise Refused
    return {name: text(value[name]) for name in ASKED if name in value}


def text(value: object, longest: int = LONGEST_NAME) -> str:
    """A text; none is an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise Refused
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half a character, which no file and no tokenizer takes
        raise Refused from None
    return value


def number(value: object) -> float | None:
    """A number, or None where a field is empty."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise Refused
    return value


def switch(value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise Refused
    return value


def names_in(value: object) -> list[str]:
    """A list of names."""
    if value is None:
        return []
    if not isinstance(value, list | tuple) or len(value) > MOST_NAMES:
        raise Refused
    return [text(str(one) if isinstance(one, int) else one) for one in value]


def settings(value: object) -> dict:
    """Settings of a recipe, as a program sends them."""
    if not isinstance(value, dict):
        raise UserError('The recipe must be an object of settings, such as {"target": 0.2}.')
    return _json(value)


def _seen(value: object) -> list:
    """What the last refresh sent, see `refresh.refresh`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refused
    return _json(value)


def _json(value):
    """A value that can be written as JSON, and is not too long."""
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError):  # NaN and half characters are among them
        raise Refused from None
    if len(written) > LONGEST_OBJECT:
        raise Refused
    return value


def _form(value: object) -> list:
    """All values of the form, as they were before it was reset."""
    if not isinstance(value, list | tuple):
        raise Refused
    return checked(fields(), value)


def _setting(value: object) -> object:
    """A field of the form that a setting has by itself: a text, a number, or yes and no."""
    if isinstance(value, bool):
        return value
    return number(value) if isinstance(value, int | float) else text(value, LONGEST_SETTING)


def _read(name: str, value: object) -> object:
    if name == "memory":
        return memory(value)
    if name == "asked":
        return asked(value)
    if name == "seen":
        return _seen(value)
    if name == "before":
        return _form(value)
    if name in TEXTS:
        return text(value, LONGEST_TEXT)
    if name in NUMBERS:
        return number(value)
    if name in NAME_LISTS:
        return names_in(value)
    if name in SWITCHES:
        return switch(value)
    return _setting(value) if name in fields() else text(value)
