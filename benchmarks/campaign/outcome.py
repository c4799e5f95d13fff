"""What came of an attack, as a line of the campaign's table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

MB = 1e6


@dataclass
class Outcome:
    """What came of one kind of attack.

    Attributes:
        tried: attacks that were made.
        survived: those after which nothing was lost, and whoever else was there went on.
        lost: what was lost or broken, in words.
        before, after: memory of the process that was attacked, in bytes; 0 where each attack had its own.
        note: what one has to know to read the numbers.
    """

    part: str
    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    seconds: float = 0.0
    note: str = ""

    def count(self, right: bool, words: str, attacks: int = 1) -> None:
        """Count attacks that ended alike; `words` say what they were where they did harm."""
        self.tried += attacks
        if right:
            self.survived += attacks
        else:
            self.lost.append(words)


@contextmanager
def measured(part: str, note: str, memory: Callable[[], int] = lambda: 0) -> Iterator[Outcome]:
    """An outcome to be filled, with its time and the memory before and after."""
    outcome, began = Outcome(part, note=note, before=memory()), time.monotonic()
    yield outcome
    outcome.after, outcome.seconds = memory(), time.monotonic() - began


def own_memory() -> int:
    return psutil.Process().memory_info().rss


def markdown(outcomes: list[Outcome]) -> str:
    """The table, and below it what was lost."""
    head = ("attack", "tried", "survived", "lost", "memory before", "after", "time", "what was done")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in outcomes:
        memory = [f"{value / MB:.0f} MB" if one.before else "-" for value in (one.before, one.after)]
        counts = [str(one.tried), str(one.survived), str(one.tried - one.survived)]
        lines.append("| " + " | ".join([one.part, *counts, *memory, f"{one.seconds:.0f} s", one.note]) + " |")
    return "\n".join([*lines, *(f"\nLost in {one.part}: {what}" for one in outcomes for what in one.lost)])
