"""Methods side by side: several runs of one recipe that differ in the method.

Every run is an ordinary run directory below one folder, worked on by a process of its own, so that
its peak memory is its own. A comparison that was stopped goes on where it was: runs that are
finished are kept, others resumed. The dense model is measured once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core import events as ev
from ..core.errors import UserError
from ..core.recipe import Recipe, measuring_settings
from ..engine.run import check
from ..planning.estimate import resolve_auto_units
from ..runs.run_directory import EVENTS, RECIPE, Tail, create, launch, read_events, recipe_of, why_interrupted
from ..scoring import get_scorer

POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Entry:
    """One run of a comparison; `label` names it and its directory, `curve` it and its other targets."""

    label: str
    curve: str
    recipe: Recipe


def entries_from(
    base: Recipe, given: Mapping[str, object], plan: Sequence[Mapping], targets: Sequence[float]
) -> list[Entry]:
    """An entry for each line of a plan, `{"label": ..., "method": ..., any other setting: ...}`, and target.

    A line's settings come before those `given`, these before the method's usual ones, and these before
    `base`.

    Raises:
        UserError: not such a plan, an unknown method, or settings that do not go together.
    """
    found = []
    for line in plan:
        if not isinstance(line, Mapping) or not isinstance(line.get("label"), str):
            raise UserError(
                'A line of the plan must be an object with a "label", for example {"label": "flap"}.'
            )
        settings = {k: v for k, v in line.items() if k != "label"}
        unknown = sorted(set(settings) - set(Recipe.describe()))
        if unknown:
            raise UserError(f"The plan has settings no recipe has: {', '.join(unknown)}.")
        name = settings.get("method", given.get("method", base.method))
        if not isinstance(name, str):
            raise UserError(f"The method of '{line['label']}' must be a name, not {name!r}.")
        settings = {**get_scorer(name).usual, **given, **settings, "method": name}
        recipe = base.but(**settings)
        for target in [recipe.target] if "target" in settings else targets:
            label = line["label"] if len(targets) == 1 else f"{line['label']}-{target:g}"
            if not label or label in (".", "..", "dense") or set(label) & set("/\\"):
                raise UserError(f"'{label}' cannot name a run: it is also the name of its folder.")
            aimed = resolve_auto_units(recipe.replace(target=target), settings)
            found.append(Entry(label, line["label"], aimed))
    labels = [e.label for e in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if not found:
        raise UserError("There is nothing to compare: name at least one method.")
    if twice:
        raise UserError(f"Every run needs a label of its own; there twice: {', '.join(twice)}.")
    return found


def read_plan(path: Path) -> list:
    """The lines of a plan file.

    Raises:
        UserError: not a JSON list.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"The plan '{path}' cannot be read: {error}.") from None
    if not isinstance(plan, list):
        raise UserError('The plan must be a JSON list, for example [{"label": "a", "method": "flap"}].')
    return plan


def aligned(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with budgets as near to one another as whole units allow.

    Blocks meet a target only roughly. Where one run's whole units miss it, all runs of that target
    aim at what that one removes.

    Raises:
        UserError: as `engine.check`, with the run's label.
    """
    found: list[Entry] = []
    for target in dict.fromkeys(e.recipe.target for e in entries):
        same = [e for e in entries if e.recipe.target == target]
        farthest = max((_share(e) for e in same), key=lambda share: abs(share - target))
        near = [replace(e, recipe=e.recipe.replace(target=farthest)) for e in same]
        for entry in near:
            _share(entry)
        found += near
    order = [e.label for e in entries]
    return sorted(found, key=lambda e: order.index(e.label))


def _share(entry: Entry) -> float:
    try:
        return check(entry.recipe).budget.share
    except UserError as error:
        raise UserError(f"{entry.label}: {error}") from None


def run_sweep(
    folder: Path,
    entries: Sequence[Entry],
    export: bool = True,
    worker: Callable[[Path, bool], Iterator[ev.Event]] | None = None,
) -> Iterator[tuple[str, ev.Event]]:
    """Work on every entry that is not finished, one after another; yields labels with their events.

    A run that fails is told and left; the others go on. Ends early where a run was stopped.

    Args:
        export: whether each run ends with an exported model.
        worker: works on a run's directory, given whether to export; a process of its own if left out.

    Raises:
        UserError: a directory below `folder` holds another run than the entry's.
    """
    worker = worker or in_a_process
    for entry in entries:
        _check_same(folder / entry.label, entry)
    for entry in entries:
        place = folder / entry.label
        if not place.exists():
            create(place, entry.recipe, _dense_of(folder, entries, entry.recipe))
        if isinstance(_last(place), ev.Finished):
            continue
        last = None
        for last in worker(place, export):
            yield entry.label, last
        if isinstance(last, ev.Stopped | ev.Paused):
            return


def in_a_process(place: Path, export: bool) -> Iterator[ev.Event]:
    """Work on a run in a process of its own, and pass its events on as they are recorded."""
    tail = Tail(place)
    tail.poll()
    process, last = launch(place, "resume", *([] if export else ["--no-export"])), None
    try:
        while True:
            # Asked before reading, so that its last words are still read.
            ended = process.poll() is not None
            for last, _ in tail.poll():
                yield last
            if ended:
                break
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if not isinstance(last, ev.ENDINGS):
        yield ev.Failed(why_interrupted(place))


def _last(place: Path) -> ev.Event | None:
    found = read_events(place)
    return found[-1] if found else None


def _check_same(place: Path, entry: Entry) -> None:
    """A directory that is there already must be the entry's own."""
    if not place.exists():
        return
    if not (place / RECIPE).is_file() or not (place / EVENTS).is_file():
        raise UserError(f"'{place}' exists and is not a run of ours. Choose a new or empty folder.")
    if set(recipe_of(place).differences(entry.recipe)) - _pinned(place):
        raise UserError(
            f"'{place}' holds a run of another recipe. Repeat the command it was made by to go on with it, "
            "or choose another folder."
        )


def _pinned(place: Path) -> set[str]:
    """Settings that the run itself settled when it began."""
    started = [e for e in read_events(place) if isinstance(e, ev.Started)]
    return {name for event in started for name, _ in event.pinned}


def _dense_of(folder: Path, entries: Sequence[Entry], recipe: Recipe) -> list[ev.Event]:
    """The dense model's measurement by a run that measured as `recipe` does, where there is one."""
    for other in entries:
        if (folder / other.label).exists() and not measuring_settings() & set(
            recipe.differences(other.recipe)
        ):
            for event in read_events(folder / other.label):
                if isinstance(event, ev.Evaluated) and event.iteration == 0:
                    return [event]
    return []
