"""What came of an attack, as a line of the campaign's table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
        name, asked: which attack it is, and how many were asked for.
    """

    part: str
    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    seconds: float = 0.0
    note: str = ""
    name: str = ""
    asked: int = 0

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


def append(path: Path, outcome: Outcome) -> None:
    """Add an outcome to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> list[Outcome]:
    """The outcomes that a file holds; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


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
