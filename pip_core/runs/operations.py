"""Having a hand in a run: take a removal back, go on to a deeper target, go on with other settings.

Events are only ever added: what was taken back no longer counts (`events.effective_events`), but stays told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..budget.budget import budget_of
from ..budget.pruning_budget import PruningBudget
from ..checkpoints.load import config_of
from ..core import events as ev
from ..core.errors import UserError
from ..core.recipe import Recipe, handing_settings, measuring_settings
from ..engine.replay import ReplayState
from ..engine.run import check, hands_over
from ..runs import run_directory
from ..structure.anatomy import anatomy_of


def undo(folder: Path) -> None:
    """Take the last removal back; its units then stay for the rest of the run.

    A worker is stopped by that, and does it; without one it is done at once.

    Raises:
        UserError: nothing was removed.
    """
    removals = ev.removals(run_directory.read_events(folder))
    if not removals:
        raise UserError("Nothing has been removed yet, so there is nothing to take back.")
    # Asked twice before it is done, it is done once: the number is that of what was seen.
    if not (folder / run_directory.UNDO).exists():
        run_directory.write(folder / run_directory.UNDO, str(len(removals)))
    if not run_directory.working(folder):
        run_directory.apply_pending_undo(folder)


def extend(folder: Path, target: float) -> None:
    """Give a run another target, deeper than what it has reached. An export stays until the next.

    Raises:
        UserError: a worker is at it, or the target takes nothing more.
    """
    _check_idle(folder)
    before, history = run_directory.recipe_of(folder), run_directory.read_events(folder)
    recipe = before.replace(target=target)
    if target == before.target and not _complete(recipe, history):
        raise UserError(f"The target is {target:.1%} already: resume the run.")
    if _complete(recipe, history):
        reached = _reached(history)
        raise UserError(
            f"A target of {target:.1%} would take nothing more: {reached:.1%} of the parameters are gone. "
            "Choose a higher one; for less, go on from an earlier iteration in a new run."
        )
    check(recipe, history)
    # The event first: a crash between the two leaves a target that the next worker takes from it.
    run_directory.record(folder, [ev.TargetExtended(before.target, target)])
    run_directory.write(folder / run_directory.RECIPE, recipe.to_json())


def fork(folder: Path, new: Path, changes: Mapping, upto: int | None = None, name: str = "") -> None:
    """Make a run in `new` that takes over what another has decided, and goes on with other settings.

    What was measured is taken over too, unless a change makes it a measurement of something else. What
    was taken back stays, unless `keep` is changed.

    Args:
        changes: recipe fields and their new values.
        upto: how many iterations are taken over; None means all.
        name: what the other run is called.

    Raises:
        UserError: it has fewer iterations, or the changed recipe cannot go on from there.
    """
    before, history = run_directory.recipe_of(folder), ev.effective_events(run_directory.read_events(folder))
    # Another method goes on with what this run removes, not with what it would usually remove itself.
    alike = changes.get("model", before.model) == before.model
    stay = {name: getattr(before, name) for name in before.automatic()} if alike else {}
    recipe = before.but(**stay | dict(changes))
    decided = len(ev.removals(history))
    upto = decided if upto is None else upto
    if not 0 <= upto <= decided:
        raise UserError(f"The run has {decided} iterations to go on from: choose 0 to {decided}, not {upto}.")
    taken = _taken(before, recipe, history, upto, name)
    goal = check(recipe, taken).budget
    taken = [_restarted(e, recipe, goal, upto) if isinstance(e, ev.Started) else e for e in taken]
    run_directory.create(new, recipe)
    now = time.time()
    run_directory.write(new / run_directory.EVENTS, "".join(ev.to_line(e, now) + "\n" for e in taken))


def _taken(
    before: Recipe, recipe: Recipe, history: Sequence[ev.Event], upto: int, name: str
) -> list[ev.Event]:
    """The events that a fork begins with."""
    changed = before.differences(recipe)
    if "model" in changed and upto:
        _check_alike(before, recipe)
    stays: list[type] = [ev.Removed]
    if "model" not in changed:
        stays.append(ev.Scored)
    if not set(changed) & measuring_settings():
        stays.append(ev.Evaluated)
    # First of all, where nothing that is told later is taken back by them.
    first: list[ev.Event] = [ev.Forked(name, upto, changed)]
    if "keep" not in changed and "model" not in changed:
        first += [e for e in history if isinstance(e, ev.RemovalUndone)]
    if not {"model", "dtype"} & set(changed):
        first += [e for e in history if isinstance(e, ev.Started)][-1:]
    taken = [e for e in history if isinstance(e, tuple(stays)) and e.iteration <= upto]
    # What is handed over from block to block goes with the text, and so does what was measured after it.
    handed = any(map(hands_over, (before, recipe))) and handing_settings() & set(changed)
    # A fork runs the stages after the last removal itself, and measures what they come to.
    return first + [
        e for e in taken if not isinstance(e, ev.Evaluated) or not (e.final or (handed and e.iteration))
    ]


def _restarted(event: ev.Started, recipe: Recipe, goal: PruningBudget, upto: int) -> ev.Started:
    """What a run said of its plan, as its fork will say it."""
    return replace(
        event,
        method=recipe.method,
        units=recipe.units,
        target=recipe.target,
        goal=goal.description,
        planned=goal.iterations,
        planned_share=goal.share,
        resumed=upto,
    )


def _check_alike(before: Recipe, recipe: Recipe) -> None:
    """Whether blocks of one model can be told by the numbers of another's."""
    one, other = anatomy_of(config_of(before.model)), anatomy_of(config_of(recipe.model))
    same = one.model_type == other.model_type and one.parameters == other.parameters
    if not same or one.blocks != other.blocks:
        raise UserError(
            f"What was removed from '{before.model}' cannot be removed from '{recipe.model}': their blocks "
            "are not alike. Take no iterations over, or choose a model of the same shape."
        )


def _check_idle(folder: Path) -> None:
    if run_directory.working(folder):
        raise UserError("The run is being worked on: stop or pause it first.")


def _complete(recipe: Recipe, history: Sequence[ev.Event]) -> bool:
    past = ReplayState.of(history)
    anatomy = anatomy_of(config_of(recipe.model))
    return past.complete(recipe, anatomy, budget_of(recipe, anatomy, past.pinned_units))


def _reached(history: Sequence[ev.Event]) -> float:
    """Share of the parameters that is gone."""
    past = ReplayState.of(history)
    if not past.removals or not past.started:
        return 0.0
    return 1 - past.removals[-1].parameters / past.started[-1].parameters
