"""A run in one line: what a list of many shows of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from . import events as ev
from .recipe import Recipe
from .runs import why_interrupted
from .stats import retained
from .story import Story


@dataclass(frozen=True)
class RunInfo:
    """A run in a list.

    Attributes:
        state: see `runs.state`.
        place: in the queue, from 1, where it waits.
        created: when it was made, in seconds since 1970.
        recipe: None where another version wrote it.
        message: what went wrong, where something did.
        iterations: removals that are decided, of about `planned`.
        parameters: that are left, of `dense_parameters`; 0 while they are not known.
        kept: share of the dense model's accuracy, None until both are measured; likewise `perplexity`.
        seconds: that workers have been at it.
        exported: whether there is a verified export of what is decided.
    """

    id: str
    name: str
    state: str
    place: int | None
    created: float
    recipe: Recipe | None = None
    message: str = ""
    iterations: int = 0
    planned: int = 0
    parameters: int = 0
    dense_parameters: int = 0
    kept: float | None = None
    perplexity: float | None = None
    dense_perplexity: float | None = None
    seconds: float = 0.0
    exported: bool = False


def told(info: RunInfo, folder: Path, recipe: Recipe, story: Story, state: str) -> RunInfo:
    """`info` with all that a run's story tells."""
    message = story.ending.message if isinstance(story.ending, ev.Failed) else ""
    if state == "interrupted":
        message = why_interrupted(folder)
    dense, latest, started = story.dense, story.latest, story.started
    first = started.parameters if started else 0
    return replace(
        info,
        state=state,
        recipe=recipe,
        message=message,
        iterations=len(story.removals),
        planned=story.planned,
        parameters=story.removals[-1].parameters if story.removals else first,
        dense_parameters=first,
        kept=retained(dense, latest) if dense and latest else None,
        perplexity=latest.perplexity if latest else None,
        dense_perplexity=dense.perplexity if dense else None,
        seconds=story.worked,
        exported=story.exported is not None and story.exported.iterations == len(story.removals),
    )
