"""The one exception meant to be read by a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can put right.

    The message is one or two plain sentences: what is wrong, and what would be right. The command
    line prints it and exits with code 2; the page shows it; neither shows a traceback.

    Attributes:
        setting: name of the recipe's setting that is to be put right; empty where it is none.
    """

    def __init__(self, message: str = "", setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class OtherWeights(UserError):
    """A model's weights are not those that a recipe was made with."""


def shortened(text: str, most: int = 240) -> str:
    """A library's message in one line of at most `most` characters, cut between words and without its last
    full stop, to stand inside a sentence."""
    line = " ".join(text.split()).removesuffix(".")
    if len(line) > most:
        line = (line[: most - 4].rpartition(" ")[0] or line[: most - 4]) + " ..."
    return line


def some(names: Iterable[str], most: int = 12) -> str:
    """The first of `names`, each of them shortened, as part of a sentence, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name, 60) for name in names[:most]) + more


def told(function: Callable[[], None]) -> None:
    """Call what a program does; a `UserError` is printed as a sentence and ends the program with code 2."""
    try:
        function()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
