"""Changing a run: undo a removal, continue to a deeper target, repeat a stage that follows the last removal,
continue with other settings in a new run.

Events are only ever added: an undone removal no longer counts (`events.effective_events`) but stays recorded.

Whether a run can be changed depends on its model and its texts, which may take long to look at. So what
looks at them (`extended`, `repeated`, `forked`) is apart from what writes (`apply`, `begin`): the page has
the first done by another process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from ..budget.budget import budget_of
from ..budget.pruning_budget import PruningBudget
from ..checkpoints.load import config_of
from ..core import events as ev
from ..core.decisions import Decided
from ..core.decisions import settings_of as chosen_settings
from ..core.errors import UserError
from ..core.figures import percent
from ..core.recipe import Recipe, handing_settings, measuring_settings
from ..core.sample import Sampled
from ..engine.aim import aimed, by_share
from ..engine.identity import settings_of
from ..engine.replay import ReplayState
from ..engine.run import check_without_downloads, hands_over
from ..engine.stages import stage_types
from ..structure.anatomy import anatomy_of
from . import run_directory, worker
from .files import EVENTS, RECIPE, UNDO, write

Value = TypeVar("Value")


class Look(Protocol):
    """Calls a function that reads a run's model and texts, here or in another process."""

    def __call__(self, function: Callable[..., Value], *arguments: object) -> Value: ...


def look_here(function: Callable[..., Value], *arguments: object) -> Value:
    """`function(*arguments)`."""
    return function(*arguments)


def undo(folder: Path) -> None:
    """Undo the last removal; its units then stay for the rest of the run.

    A worker that holds the run is stopped and does it; without one it is done at once.

    Raises:
        UserError: nothing was removed.
        UnreadableRun: the run is damaged, or of a newer version.
    """
    run_directory.check_readable(folder)
    removals = ev.removals(run_directory.read_events(folder))
    if not removals:
        raise UserError("Nothing has been removed yet, so there is nothing to undo.")
    # Requested twice before it is done, it is done once: the number is that of the removal that was seen.
    if not (folder / UNDO).exists():
        write(folder / UNDO, str(len(removals)))
    if not worker.working(folder):
        run_directory.apply_pending_undo(folder)


@dataclass(frozen=True)
class Change:
    """How a run that no worker holds goes on differently.

    Attributes:
        seen: how many events it had when this was found.
        before: its recipe then; `recipe` is the new one.
        event: what records the change; None where nothing changes.
    """

    seen: int
    before: Recipe
    recipe: Recipe
    event: ev.Event | None


def apply(folder: Path, change: Change) -> None:
    """Change a run. Its export stays until the next one.

    Raises:
        UserError: a worker holds the run, or it was changed since.
        UnreadableRun: the run is damaged, or of a newer version.
    """
    _check_idle(folder)
    if change.event is None:
        return
    if (len(run_directory.read_events(folder)), run_directory.recipe_of(folder)) != (
        change.seen,
        change.before,
    ):
        raise UserError("The run was changed meanwhile. Look at what it is now, then try again.")
    # The event first: after a crash between the two the next worker takes the target from the event, and what
    # was measured and exported is of the old settings.
    run_directory.record(folder, [change.event])
    write(folder / RECIPE, change.recipe.to_json())


def extend(folder: Path, target: float) -> None:
    """Give a run another target, see `extended`."""
    apply(folder, extended(folder, target))


def repeat(folder: Path, stage: str, changes: Mapping[str, object]) -> None:
    """Let a stage do its work anew, see `repeated`."""
    apply(folder, repeated(folder, stage, changes))


def fork(folder: Path, new: Path, changes: Mapping, upto: int | None = None, name: str = "") -> None:
    """Make a run in `new` that continues from another, see `forked`."""
    begin(new, *forked(folder, changes, upto, name))


def extended(folder: Path, target: float) -> Change:
    """How a run gets another target, deeper than what it has reached: a share of the parameters, in place of
    bytes or of a speed-up where it aimed at these. Where it has this target, and has not reached it, nothing
    changes.

    Raises:
        UserError: a worker holds the run, or the target removes nothing more.
        UnreadableRun: the run is damaged, or of a newer version.
    """
    _check_idle(folder)
    before, history = _before(folder)
    recipe = by_share(before, target)
    if recipe == before and not _complete(recipe, history):
        return Change(len(history), before, recipe, None)  # the way to it is only to be gone on
    if _complete(recipe, history):
        reached = _reached(history)
        raise UserError(
            f"A target of {percent(target)} would remove nothing more: {percent(reached)} of the parameters "
            "are removed already. Choose a higher target; for a lower one, branch from an earlier iteration."
        )
    event = ev.TargetExtended(aimed(before).target, target)
    check_without_downloads(recipe, [*history, event])
    return Change(len(history), before, recipe, event)


def repeated(folder: Path, stage: str, changes: Mapping[str, object]) -> Change:
    """How a stage that follows the last removal does its work anew, with other settings of its own.

    Args:
        stage: its name; it is switched on where `changes` leave it off.

    Raises:
        UserError: a worker holds the run, nothing was removed, the settings are not the stage's or none of
            them is another, or the removals depend on them.
        UnreadableRun: the run is damaged, or of a newer version.
    """
    _check_idle(folder)
    before, history = _before(folder)
    kind = next(kind for kind in stage_types() if kind.name == stage)
    own = set(kind.Settings.model_fields)
    if strange := sorted(set(changes) - own) if kind.switched_on else sorted(changes):
        raise UserError(
            f"What was removed depends on {', '.join(strange)}. Branch from the run to change that."
        )
    finished = any(isinstance(e, ev.Evaluated) and e.final for e in ev.effective_events(history))
    if not (ev.removals(history) or finished):  # a run may remove tokens alone
        raise UserError("Nothing has been removed yet: resume the run first.")
    recipe = _as_chosen(before.replace(**changes), before, history, keeps_removals=True)
    if not kind(recipe).enabled:
        recipe = recipe.replace(**kind.switched_on)
    changed = before.differences(recipe)
    if not changed:
        raise UserError("The run has these settings already: resume it, or choose others.")
    event = ev.SettingsChanged(changed)
    check_without_downloads(recipe, [*history, event])
    return Change(len(history), before, recipe, event)


def forked(
    folder: Path, changes: Mapping, upto: int | None = None, name: str = ""
) -> tuple[Recipe, list[ev.Event]]:
    """Recipe and first events of a run that keeps another's removals and continues with other settings.

    Measurements are kept too, unless a change makes them measurements of something else. Units whose removal
    was undone stay pinned, unless `keep` is changed.

    Args:
        changes: settings of the recipe and their new values. What the run chose itself is no change where it
            is asked for what the run was asked for, such as the number format "auto".
        upto: how many iterations are kept; None means all.
        name: the name of the other run.

    Raises:
        UserError: it has fewer iterations, or the changed recipe cannot continue from there.
        UnreadableRun: the other run is damaged, or of a newer version.
    """
    before, recorded = _before(folder)
    history = ev.effective_events(recorded)
    # Another method continues with the units of this run, not with those it would usually remove itself.
    alike = changes.get("model", before.model) == before.model
    stay = {name: getattr(before, name) for name in before.automatic()} if alike else {}
    if "target" in changes:  # in place of bytes or of a speed-up, unless these are named too
        changes = {"target_bytes": "", "target_speedup": "", **changes}
    decided = len(ev.removals(history))
    upto = decided if upto is None else upto
    if not 0 <= upto <= decided:
        raise UserError(
            f"The run has {decided} iterations to keep: choose 0 to {decided}, not {upto}.", "upto"
        )
    recipe = _as_chosen(before.but(**stay | dict(changes)), before, history, upto > 0)
    kept = kept_events(before, recipe, history, upto, name)
    budget = check_without_downloads(recipe, kept).budget
    return recipe, [_restarted(e, recipe, budget, upto) if isinstance(e, ev.Started) else e for e in kept]


def begin(new: Path, recipe: Recipe, events: Sequence[ev.Event]) -> None:
    """Make a run in `new` that goes on from these events."""
    run_directory.create(new, recipe)
    now = time.time()
    write(new / EVENTS, "".join(ev.to_line(e, now) + "\n" for e in events))


def _as_chosen(asked: Recipe, before: Recipe, history: Sequence[ev.Event], keeps_removals: bool) -> Recipe:
    """A recipe that a run goes on with, with what the run chose itself where it is asked for what the run was
    asked for: a number format, commits and checksums, and where removals are kept, what it decided by
    measuring.

    Args:
        before: the run's recipe, into which its choices are written.
    """
    began = next((dict(e.settings) for e in history if isinstance(e, ev.Started)), {})
    alike = {name for name, value in settings_of(asked) if began.get(name) == value}
    if asked.model != before.model and "model" not in alike:
        return asked
    kept: set[str] = set()
    for event in history:
        found = set(chosen_settings(event))
        if not isinstance(event, Decided):
            kept |= found & alike
        elif keeps_removals and found <= alike:  # all of a decision, or none
            kept |= found
    changed = {name for e in history if isinstance(e, ev.SettingsChanged) for name in e.changed}
    return asked.replace(**{name: getattr(before, name) for name in kept - changed})


def kept_events(
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
        stays += [ev.Evaluated, Sampled]
    # First of all: an undo supersedes only events before it.
    first: list[ev.Event] = [ev.Forked(name, upto, changed)]
    if "keep" not in changed and "model" not in changed:
        first += [e for e in history if isinstance(e, ev.RemovalUndone)]
    if not {"model", "dtype"} & set(changed):
        first += [_without(e, recipe, changed) for e in history if isinstance(e, ev.Started)][-1:]
    kept = [e for e in history if isinstance(e, tuple(stays)) and e.reached <= upto]
    # What is handed over from block to block depends on the text, and so do the measurements after it.
    handed = any(map(hands_over, (before, recipe))) and handing_settings() & set(changed)

    def again(e: ev.Event) -> bool:
        # A fork runs the stages after the last removal itself, and measures their result.
        return isinstance(e, ev.Evaluated | Sampled) and bool(e.final or (handed and e.iteration))

    return first + [e for e in kept if not again(e)]


def _restarted(event: ev.Started, recipe: Recipe, budget: PruningBudget, upto: int) -> ev.Started:
    """The plan of a run, as its fork records it."""
    return replace(
        event,
        method=recipe.method,
        units=recipe.units,
        target=recipe.target,
        goal=budget.description,
        planned=budget.iterations,
        planned_share=budget.share,
        resumed=upto,
    )


def _without(event: ev.Started, recipe: Recipe, changed: Collection[str]) -> ev.Started:
    """What a run recorded of its recipe and of what it read, as a fork of another recipe records it."""
    pinned = tuple((name, value) for name, value in event.pinned if name not in changed)
    # What was chosen for it stays, and so does what it was asked for.
    asked = {name: value for name, value in event.settings if name in dict(pinned)}
    settings = tuple((name, asked.get(name, value)) for name, value in settings_of(recipe))
    return replace(
        event,
        pinned=pinned,
        settings=settings if event.settings else (),
        contents=tuple((w, value) for w, value in event.contents if w.partition(":")[0] not in changed),
    )


def _check_alike(before: Recipe, recipe: Recipe) -> None:
    """Check that the blocks of two models correspond by their numbers.

    Raises:
        UserError: they do not.
    """
    one, other = anatomy_of(config_of(before.model)), anatomy_of(config_of(recipe.model))
    same = one.model_type == other.model_type and one.parameters == other.parameters
    if not same or one.blocks != other.blocks:
        raise UserError(
            f"What was removed from '{before.model}' cannot be removed from '{recipe.model}': their blocks "
            "are not alike. Keep no removals, or choose a model of the same shape."
        )


def _before(folder: Path) -> tuple[Recipe, list[ev.Event]]:
    """Recipe and events of a run that is to be changed.

    Raises:
        UserError: somebody edited the recipe since it began.
    """
    recipe, history = run_directory.recipe_of(folder), run_directory.read_events(folder)
    ReplayState.of(history).check_same_settings(recipe)
    return recipe, history


def _check_idle(folder: Path) -> None:
    if worker.working(folder):
        raise UserError("The run is still running: stop or pause it first.")


def _complete(recipe: Recipe, history: Sequence[ev.Event]) -> bool:
    past = ReplayState.of(history)
    anatomy = anatomy_of(config_of(recipe.model))
    return past.complete(recipe, anatomy, budget_of(recipe, anatomy, past.pinned_units))


def _reached(history: Sequence[ev.Event]) -> float:
    """Share of the parameters that was removed."""
    past = ReplayState.of(history)
    if not past.removals or not past.started:
        return 0.0
    return 1 - past.removals[-1].parameters / past.started[-1].parameters
