"""One run by several processes (`torchrun`, `accelerate launch`): the first begins it, the others join in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.events import Event, Failed, from_line, to_line
from ..core.process_group import OthersEnded, ProcessGroup, met, shared
from ..core.recipe import Recipe

_lost = False


@contextmanager
def together(
    recipe: Recipe, out: Path | None, history: Sequence[Event], prune_on: bool, scratch: Path | None
) -> Iterator[None]:
    """Do a run inside a `with` block with the processes that were met, if any; the first tells the others
    what to run.

    Raises:
        UserError: an earlier run did not come to its end, so that the others are no longer where they were.
    """
    global _lost
    group = met()
    if group.size == 1:
        yield
        return
    if _lost:
        raise UserError(
            "The processes of this program no longer work together, since a run before did not come to its "
            "end. Start them again."
        )
    if group.first:
        told = recipe.to_json(), out, [to_line(e, 0.0) for e in history], prune_on, scratch
        group.told_by_first(told)
    _lost = True
    with shared(group):
        yield
    # Nothing was raised and nobody stopped: every process is at the end of this run.
    _lost = False


def follow(group: ProcessGroup, run: Callable[..., Iterator[Event]]) -> None:
    """Join in the runs that the first process begins, until it has none left or has gone.

    Args:
        run: `engine.run.run`.

    Raises:
        UserError: what is wrong in this process alone.
    """
    while True:
        try:
            told: Any = group.told_by_first(None)
        except OthersEnded:
            return  # it said why itself
        if told is None:
            return
        recipe, out, history, prune_on, scratch = told
        events = [from_line(line)[0] for line in history]
        followed = run(Recipe.from_json(recipe), out, events, prune_on=prune_on, scratch=scratch)
        for event in followed:  # the first process says what happens
            if isinstance(event, Failed):
                # This process is no longer where the others are. Its end ends theirs.
                raise UserError(f"Process {group.rank}: {event.message}")


def dismiss(group: ProcessGroup) -> None:
    """Let the others go."""
    if group.first and not _lost:
        group.told_by_first(None)
