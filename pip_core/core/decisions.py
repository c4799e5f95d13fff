"""What a run decides that its recipe leaves open, such as how a target is divided among kinds of units.

A setting is left open by the value `measured`, or by any value where it says so (`opens`). The stage that
decides says so with an event derived from `Decided`; from there on the run's recipe names what was decided,
so that a resumed or repeated run removes the same units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .events import Event, StageResult, value
from .recipe import Recipe
from .settings import MEASURED


@value
class Decided(StageResult):
    """Settings that a run has decided: `settled`, by name. With them `goal` will go, in about `planned`
    iterations: `planned_share` of all parameters (as in `Started`)."""

    superseded_by_undo, of_the_end = False, False
    settled: tuple[tuple[str, float | str | tuple[str, ...]], ...]
    goal: str
    planned: int
    planned_share: float

    def words(self) -> str:
        """What was decided, and why, as the model's card says it."""
        raise NotImplementedError(f"{type(self).__name__} has no words")


def settings_of(event: Event) -> Mapping[str, Any]:
    """The settings that an event writes into its run's recipe; none for most."""
    return dict(event.settled if isinstance(event, Decided) else getattr(event, "pinned", ()))


def is_open(recipe: Recipe) -> bool:
    """Whether a recipe leaves a setting to be decided by the run."""
    return any(
        getattr(recipe, info.name) == MEASURED
        if MEASURED in info.words
        else info.opens and getattr(recipe, info.name) != info.default
        for info in recipe.settings()
    )


def settled(recipe: Recipe, history: Iterable[Event]) -> Recipe:
    """`recipe` with what its run has decided already; a recipe that leaves nothing open stays as it is."""
    for event in history:
        if isinstance(event, Decided) and is_open(recipe):
            recipe = recipe.replace(**settings_of(event))
    return recipe
