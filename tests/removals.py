"""What a run removed, by its events, and a run during which something happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pip_core.core import events as ev
from pip_core.core.units import Units
from pip_core.runs import run_directory

TWO, THREE = 0.2, 0.29  # targets that take two and three of the five blocks
WIDTH = {"units": ("heads", "channels"), "target": 0.1}


def removed_blocks(events: Sequence[ev.Event]) -> list[int]:
    """Blocks that were removed, in order."""
    return [b for r in ev.removals(events) for b in r.blocks]


def removed_units(events: Sequence[ev.Event]) -> list[tuple[Units, ...]]:
    return [r.units for r in ev.removals(events)]


def work_until(folder: Path, when: Callable[[ev.Event], bool], do: Callable[[], None]) -> list[ev.Event]:
    """Work on a run, and do something when an event comes."""
    found = []
    for event in run_directory.work(folder):
        found.append(event)
        if when(event):
            do()
    return found
