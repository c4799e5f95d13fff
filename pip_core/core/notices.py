"""What happens on the way that the reader of a run should hear of, said where no event can be yielded.

A run takes what was said whenever it passes on an event, and yields it as one of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Notice:
    """Something that was said.

    Attributes:
        on_card: whether it makes the figures of what is exported say less than they seem to.
    """

    message: str
    on_card: bool = False


_said: list[Notice] = []
_known: set[Notice] = set()


def say(message: str, on_card: bool = False) -> None:
    """Have a sentence heard, once in a run."""
    notice = Notice(message, on_card)
    if notice not in _known:
        _known.add(notice)
        _said.append(notice)


def taken() -> list[Notice]:
    """What was said since it was asked last."""
    found = list(_said)
    _said.clear()
    return found


def begin() -> None:
    """Forget what an earlier run said."""
    _said.clear()
    _known.clear()
