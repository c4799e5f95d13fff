"""Run several recipes that differ in the method, below one folder: one after another, or beside one another
on several accelerators.

Every run is an ordinary run directory that a process of its own works on, so that its peak memory is its own.
A comparison that was stopped goes on where it was: finished runs are kept, others are resumed. The dense
model is measured once for all runs that measure in the same way, and runs that differ only in what follows
the last removal take the removals from one another.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..core import events as ev
from ..core.accelerator import VARIABLE, devices
from ..core.decisions import Decided, settings_of
from ..core.errors import UserError
from ..core.recipe import Recipe, measuring_settings
from ..core.settings import option_of
from ..engine.run import check
from ..engine.stages import repeatable
from ..planning.estimate import resolve_auto_units
from ..runs.files import EVENTS, RECIPE
from ..runs.recorded import Tail, read_events
from ..runs.run_directory import create, recipe_of, request_stop
from ..runs.worker import launch, why_interrupted
from ..scoring import get_scorer

POLL_SECONDS = 0.3
# What decides a dense model's figures beside its recipe: they are taken over by a run that is bound to the
# same.
MEASURED_WITH = ("dtype", "weights")


@dataclass(frozen=True)
class Entry:
    """One run of a comparison.

    Attributes:
        label: name of the run and of its directory.
        curve: name that it shares with the same method's runs to other targets.
    """

    label: str
    curve: str
    recipe: Recipe


def entries_from(
    base: Recipe, given: Mapping[str, object], plan: Sequence[Mapping], targets: Sequence[float]
) -> list[Entry]:
    """One entry for each line of a plan and each target.

    A line is `{"label": ..., "method": ..., any other setting: ...}`. Its settings override those `given`,
    which override the method's usual ones, which override `base`.

    Raises:
        UserError: not such a plan, an unknown method, or settings that do not go together.
    """
    entries = []
    for line in plan:
        if not isinstance(line, Mapping) or not isinstance(line.get("label"), str):
            raise UserError(
                'A line of the plan must be an object with a "label", for example {"label": "flap"}.'
            )
        settings = {k: v for k, v in line.items() if k != "label"}
        unknown = sorted(set(settings) - set(Recipe.describe()))
        if unknown:
            raise UserError(f"The plan has settings no recipe has: {', '.join(unknown)}.")
        method = settings.get("method", given.get("method", base.method))
        if not isinstance(method, str):
            raise UserError(f"The method of '{line['label']}' must be a name, not {method!r}.")
        settings = {**get_scorer(method).usual, **given, **settings, "method": method}
        recipe = base.but(**settings)
        for target in [recipe.target] if "target" in settings else targets:
            label = line["label"] if len(targets) == 1 else f"{line['label']}-{target:g}"
            if not label or label in (".", "..", "dense") or set(label) & set("/\\"):
                raise UserError(f"'{label}' cannot name a run: it is also the name of its folder.")
            resolved = resolve_auto_units(recipe.replace(target=target), settings)
            entries.append(Entry(label, line["label"], resolved))
    labels = [e.label for e in entries]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if not entries:
        raise UserError("There is nothing to compare: name at least one method.")
    if repeated:
        raise UserError(f"Every run needs a label of its own; repeated: {', '.join(repeated)}.")
    return entries


def before_and_after(entries: Sequence[Entry]) -> list[Entry]:
    """Each entry also without the stages that could be done later, such as recovery, and first.

    Raises:
        UserError: an entry has no such stage.
    """
    found = []
    for entry in entries:
        asked = [kind for kind in repeatable() if kind(entry.recipe).enabled]
        if not asked:
            options = ", ".join(sorted(option_of(name) for kind in repeatable() for name in kind.switched_on))
            raise UserError(
                f"'{entry.label}' has nothing that could be done later, so it is the same before and after: "
                f"ask for it too ({options})."
            )
        usual = Recipe().to_dict()
        off = {name: usual[name] for kind in asked for name in kind.Settings.model_fields}
        suffix = "".join(f"+{kind.name}" for kind in asked)
        found.append(replace(entry, recipe=entry.recipe.replace(**off)))
        found.append(replace(entry, label=f"{entry.label}{suffix}", curve=f"{entry.curve}{suffix}"))
    return found


def read_plan(path: Path) -> list:
    """The lines of a plan file.

    Raises:
        UserError: not a JSON list.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"The plan '{path}' cannot be read: {error}.") from None
    if not isinstance(plan, list):
        raise UserError('The plan must be a JSON list, for example [{"label": "a", "method": "flap"}].')
    return plan


def align_targets(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with budgets as close to one another as whole units allow.

    Blocks meet a target only roughly. Where the whole units of one run miss it, all runs of that target aim
    at the share that the run which misses it most removes.

    Raises:
        UserError: as `engine.run.check`, with the label of the run.
    """
    aligned: list[Entry] = []
    for target in dict.fromkeys(e.recipe.target for e in entries):
        same = [e for e in entries if e.recipe.target == target]
        farthest = max((_share(e) for e in same), key=lambda share: abs(share - target))
        changed = [replace(e, recipe=e.recipe.replace(target=farthest)) for e in same]
        for entry in changed:
            _share(entry)
        aligned += changed
    order = [e.label for e in entries]
    return sorted(aligned, key=lambda e: order.index(e.label))


def _share(entry: Entry) -> float:
    """Share of all parameters that the entry's whole units make up."""
    try:
        return check(entry.recipe).budget.share
    except UserError as error:
        raise UserError(f"{entry.label}: {error}") from None


def run_sweep(
    folder: Path,
    entries: Sequence[Entry],
    export: bool = True,
    worker: Callable[[Path, bool], Iterator[ev.Event | None]] | None = None,
    lanes: Sequence[str] = (),
) -> Iterator[tuple[str, ev.Event]]:
    """Work on every entry that is not finished; yields labels with their events. On several accelerators each
    works on a run of its own, as soon as the dense model was measured for it.

    A run that fails, or whose record is damaged, says so, and the others go on. The comparison ends early
    where a run was stopped.

    Args:
        export: whether each run ends with an exported model.
        worker: works on a run's directory, given whether to export, and yields None where nothing is new; by
            default a process of its own.
        lanes: what runs are done beside one another, one on each: numbers of accelerators; by default those
            that are here.

    Raises:
        UserError: a directory below `folder` holds another run than the entry's.
    """
    damaged = {e.label: why for e in entries if (why := _damage(folder / e.label))}
    sound = [e for e in entries if e.label not in damaged]
    for entry in sound:
        _check_same(folder, sound, entry)
    waiting, going = list(entries), dict[str, _UnderWay]()
    lanes, stopped = list(lanes) or _accelerators(), False
    try:
        while going or (waiting and not stopped):
            for lane in (lane for lane in lanes if lane not in going):
                while waiting and not stopped and _may_begin(folder, sound, waiting[0], going):
                    entry = waiting.pop(0)
                    if entry.label in damaged:
                        yield entry.label, ev.Failed(damaged[entry.label])
                    elif place := _begun(folder, sound, entry):
                        work = worker(place, export) if worker else work_in_a_process(place, export, lane)
                        going[lane] = _UnderWay(entry, work)
                        break
            new = False
            for lane, run in list(going.items()):
                try:
                    event = next(run.work)
                except StopIteration:
                    del going[lane]
                    new = True
                    continue
                if event is not None:
                    new = True
                    yield run.entry.label, event
                if isinstance(event, ev.Stopped | ev.Paused) and not stopped:
                    stopped = True
                    for other in going.values():
                        if other is not run:
                            request_stop(folder / other.entry.label)
            if not new and going:
                time.sleep(POLL_SECONDS)
    finally:
        for run in going.values():
            if isinstance(run.work, Generator):
                run.work.close()  # at once: it may hold a process


@dataclass(frozen=True)
class _UnderWay:
    entry: Entry
    work: Iterator[ev.Event | None]


def _accelerators() -> list[str]:
    """A lane for each accelerator, by its number; one without a name where there are not several."""
    found = devices()
    return [str(number) for number in range(len(found))] if len(found) > 1 else [""]


def _may_begin(folder: Path, entries: Sequence[Entry], entry: Entry, going: Mapping[str, _UnderWay]) -> bool:
    """Whether a run need not wait for what another measures, the dense model, or for its removals."""
    later = {name for kind in repeatable() for name in kind.Settings.model_fields}
    different = [set(entry.recipe.differences(run.entry.recipe)) for run in going.values()]
    if any(not names - later for names in different):
        return False
    alike = any(not names & measuring_settings() for names in different)
    return not alike or dense_measurement(folder, entries, entry.recipe) is not None


def _begun(folder: Path, sound: Sequence[Entry], entry: Entry) -> Path | None:
    """The directory of an entry's run, made where there is none; None where it is finished."""
    place = folder / entry.label
    if not place.exists():
        begun = removed_before(folder, sound, entry.recipe)
        dense = None if begun else dense_measurement(folder, sound, entry.recipe)
        taken = begun or (TakenOver((dense.event,), dense.pins) if dense else TakenOver(()))
        create(place, entry.recipe.replace(**taken.pins), taken.events)
    return None if isinstance(_last_event(place), ev.Finished) else place


def work_in_a_process(place: Path, export: bool, lane: str = "") -> Iterator[ev.Event | None]:
    """Work on a run in a process of its own, and pass its events on as they are recorded; None where there is
    no new one.

    Args:
        lane: number of the accelerator that it has to itself; empty where it may take what is there.
    """
    tail = Tail(place)
    tail.poll()
    options = [] if export else ["--no-export"]
    process, last = launch(place, "resume", *options, variables={VARIABLE: lane} if lane else {}), None
    try:
        while True:
            # Asked before reading, so that the events it recorded just before its end are still read.
            ended = process.poll() is not None
            for last, _ in tail.poll():
                yield last
            if ended:
                break
            yield None
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    if not isinstance(last, ev.ENDINGS):
        yield ev.Failed(why_interrupted(place))


@dataclass(frozen=True)
class DenseMeasurement:
    """A measurement of the dense model by one run of a comparison.

    Attributes:
        pins: settings of a recipe that bind another run to what this one was measured with, by name.
    """

    event: ev.Evaluated
    pins: Mapping[str, str] = field(default_factory=dict)


def dense_measurement(folder: Path, entries: Sequence[Entry], recipe: Recipe) -> DenseMeasurement | None:
    """The dense model's measurement that a run by `recipe` can take over, where there is one.

    Another run of the comparison must have measured by the same settings, and must have recorded number
    format and weights: `auto` may be decided otherwise by the next process, and so may what a model's name
    stands for. A run that takes the measurement over is bound to both.
    """
    measuring = measuring_settings()
    for other in entries:
        different = set(recipe.differences(other.recipe))
        if different & measuring or not (folder / other.label).exists():
            continue
        events = read_events(folder / other.label)
        dense = next((e for e in events if isinstance(e, ev.Evaluated) and e.of_dense), None)
        pins = _pins(events)
        if dense and all(pins.get(name) for name in MEASURED_WITH):
            return DenseMeasurement(dense, {n: v for n, v in pins.items() if n not in different})
    return None


@dataclass(frozen=True)
class TakenOver:
    """What a run begins with: events of another, and settings that bind it to what they are of."""

    events: tuple[ev.Event, ...]
    pins: Mapping[str, str] = field(default_factory=dict)


def removed_before(folder: Path, entries: Sequence[Entry], recipe: Recipe) -> TakenOver | None:
    """The removals, and what was decided and measured on the way, of a finished run by a recipe that differs
    only in what follows the last removal; None where there is none."""
    later = {name for kind in repeatable() for name in kind.Settings.model_fields}
    for other in entries:
        different = set(recipe.differences(other.recipe))
        if not different or different - later or not (folder / other.label).exists():
            continue
        events = read_events(folder / other.label)
        pins = _pins(events)
        if isinstance(events[-1] if events else None, ev.Finished) and all(map(pins.get, MEASURED_WITH)):
            kept = tuple(
                e
                for e in ev.effective_events(events)
                if isinstance(e, Decided | ev.Scored | ev.Removed)
                or (isinstance(e, ev.Evaluated) and not e.final)
            )
            return TakenOver(kept, {n: v for n, v in pins.items() if n not in later})
    return None


def _pins(events: Sequence[ev.Event]) -> dict[str, str]:
    """Settings that a run decided for itself when it began, by name; without any that it decided twice."""
    found: dict[str, set[str]] = {}
    for event in events:
        for name, value in event.pinned if isinstance(event, ev.Started) else ():
            found.setdefault(name, set()).add(value)
    return {name: min(values) for name, values in found.items() if len(values) == 1}


def _damage(place: Path) -> str:
    """Why the recipe or the record of the run in `place` cannot be read; empty where there is no run."""
    if (place / RECIPE).is_file() and (place / EVENTS).is_file():
        try:
            recipe_of(place), read_events(place)
        except (UserError, OSError, UnicodeDecodeError) as error:
            return str(error)
    return ""


def _last_event(place: Path) -> ev.Event | None:
    events = read_events(place)
    return events[-1] if events else None


def _check_same(folder: Path, entries: Sequence[Entry], entry: Entry) -> None:
    """A directory that exists already must be the entry's own.

    Its recipe may differ from the entry's in what the run decided when it began, or was bound to from the
    start by a measurement that it took over.

    Raises:
        UserError: it is not.
    """
    place = folder / entry.label
    if not place.exists():
        return
    if not (place / RECIPE).is_file() or not (place / EVENTS).is_file():
        raise UserError(f"'{place}' exists and is not a run of ours. Choose a new or empty folder.")
    recipe = recipe_of(place)
    decided = {name for event in read_events(place) for name in settings_of(event)}
    dense = dense_measurement(folder, [e for e in entries if e.label != entry.label], entry.recipe)
    bound = {name for name, value in dense.pins.items() if getattr(recipe, name) == value} if dense else set()
    if set(recipe.differences(entry.recipe)) - decided - bound:
        raise UserError(
            f"'{place}' holds a run of another recipe. Repeat the command that made it to go on with it, or "
            "choose another folder."
        )
