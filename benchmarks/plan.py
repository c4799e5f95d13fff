"""Whether a plan holds: `python -m benchmarks.plan` runs recipes on SmolLM2-135M by a clock of its own.

For each recipe it prints what the plan said, what the run took (with the process that verifies the export),
the speed of each kind of work, and by how much the remaining time grew at most. The clock counts processor
time of one thread, which is the same beside other work, but for what programs take of each other's cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from pip_core.core.events import Event, Failed, Progress
from pip_core.core.recipe import Recipe
from pip_core.engine import state
from pip_core.engine.clock import Clock
from pip_core.engine.run import run
from pip_core.planning.estimate import make_plan

USUAL = {"model": "smollm2-135m", "method": "pip-gate", "target": 0.15, "windows": 12, "items": 40}
RECIPES: Mapping[str, Mapping] = {
    "blocks": {"units": ("blocks",), "refit": False, "vocabulary": 0.0},
    "channels": {"units": ("channels",), "step": 0.04, "refit": False, "vocabulary": 0.0},
    "divided": {"units": ("channels",), "step": 0.04, "refit_tokens": 6144},
}
# Of the remaining time, in seconds; less is the time of a single step.
LEAST = 5.0


def processor_seconds() -> float:
    """Of this process and of the ones that it started and that have ended."""
    return sum(os.times()[:4])


class ProcessorClock(Clock):
    """A run's clock, by processor time."""

    def __init__(self, planned: dict[str, float], fixed: float = 0.0) -> None:
        super().__init__(planned, fixed, now=processor_seconds)
        clocks.append(self)


clocks: list[ProcessorClock] = []


def remaining(events: Iterator[Event]) -> list[float]:
    """The remaining seconds, whenever a run said them.

    Raises:
        SystemExit: it failed.
    """
    found = []
    for event in events:
        if isinstance(event, Failed):
            raise SystemExit(event.message)
        if isinstance(event, Progress):
            found.append(event.remaining)
    return found


def growth(seconds: list[float]) -> float:
    """The largest remaining time over the least before it."""
    least, most = seconds[0], 1.0
    for one in seconds:
        if least > LEAST:
            most = max(most, one / least)
        least = min(least, one)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", choices=RECIPES, help="one of them; otherwise all")
    torch.set_num_threads(1)
    state.Clock = ProcessorClock  # which a run makes for itself
    chosen = parser.parse_args().recipe
    for name in [chosen] if chosen else RECIPES:
        recipe = Recipe(**{**USUAL, **RECIPES[name]})
        planned, began = make_plan(recipe).seconds, processor_seconds()
        with tempfile.TemporaryDirectory() as folder:
            said = remaining(run(recipe, Path(folder) / "model"))
        took = processor_seconds() - began
        print(f"{name}: planned {planned:.0f} s, took {took:.0f} s: {planned / took - 1:+.0%}", flush=True)
        print(f"  the remaining time grew by at most {growth(said) - 1:.0%}")
        speeds = [f"{kind} {1e6 * each:.0f}" for kind, each in clocks[-1].speeds.items()]
        print(f"  microseconds for a token in a block: {', '.join(speeds)}", flush=True)


if __name__ == "__main__":
    main()
