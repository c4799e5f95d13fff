"""A run is a directory: `recipe.json`, `events.jsonl` (one event a line, flushed), `model/`.

One worker process writes it, holding a lock; anybody may read it. So a reload, a second tab or a
crash loses nothing. Requests to the worker are small files that it looks for at every batch: `stop`,
`pause`, `undo`. A run that this version cannot read in full is never written.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

import psutil
from filelock import FileLock, Timeout

from ..core import events as ev
from ..core.decisions import settings_of, settled
from ..core.device import user_message
from ..core.errors import UserError
from ..core.limits import limits, setting
from ..core.paths import is_run
from ..core.recipe import Recipe
from ..engine.aim import by_share
from ..engine.replay import ReplayState
from ..engine.run import run as run_engine
from .files import (
    EVENTS,
    LAUNCHED,
    LOCK,
    MODEL,
    PAUSE,
    RECIPE,
    SCRATCH,
    STOP,
    UNDO,
    drop_damaged_requests,
    read_about,
    read_launched,
    read_recipe,
    read_undo,
    write,
)
from .recorded import drop_torn_line, read_events

REQUESTS = (STOP, PAUSE, UNDO)
# What prunes: see `engine.run.run`, whose arguments these are.
Engine = Callable[..., Generator[ev.Event, None, None]]


def create(folder: Path, recipe: Recipe, history: Sequence[ev.Event] = ()) -> None:
    """Make a run's directory and write its recipe.

    Args:
        history: events to begin with, such as a measurement of the dense model made before.

    Raises:
        UserError: the folder exists and is not empty, or cannot be made.
    """
    refuse_taken(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror}.") from None
    write(folder / RECIPE, recipe.to_json())
    write(folder / EVENTS, "".join(ev.to_line(event, time.time()) + "\n" for event in history))


def refuse_taken(folder: Path) -> None:
    """Check that a run can be made in a folder.

    Raises:
        UserError: there is something in it already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if is_run(folder):
            raise UserError(
                f"'{folder}' already holds a run. Go on with it by 'python -m pip_core resume "
                f"{folder}', or choose another folder."
            )
        raise UserError(f"'{folder}' exists and is not a run of ours. Choose a new or empty folder.")


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        UserError: the folder is not a run.
        UnreadableRun: the recipe is damaged, or of a newer version.
    """
    if not (folder / RECIPE).is_file() or not (folder / EVENTS).is_file():
        raise UserError(f"'{folder}' is not a run (it has no {RECIPE} and {EVENTS}).")
    return read_recipe(folder / RECIPE)


def check_readable(folder: Path) -> None:
    """Check that recipe and events of a run can be read in full. Nothing may change it otherwise.

    Raises:
        UserError: the folder is not a run.
        UnreadableRun: they cannot be.
    """
    recipe_of(folder)
    read_events(folder)


def work(
    folder: Path,
    prune_on: bool = True,
    launched: bool = False,
    export: bool = True,
    leave: Callable[[ev.Event], bool] = lambda event: False,
    engine: Engine | None = None,
) -> Iterator[ev.Event]:
    """Drain the engine into the run's directory, and pass its events on.

    Whatever an earlier attempt recorded is the history the engine continues from. A file `stop`,
    `pause` or `undo` in the directory stops it at the next batch.

    Args:
        launched: whether `worker.launch` began this process, and so dealt with earlier requests.
        export: whether to write the pruned model at the end.
        leave: asked after every event; true leaves the run, still launched, to whoever goes on with it.
        engine: what prunes, as `engine.run.run` does, which is the usual one.

    Raises:
        UserError: the folder is not a run, or another process works on it.
        UnreadableRun: it is damaged, or of a newer version; nothing is written then.
    """
    check_readable(folder)
    lock, left = _hold(folder), False
    try:
        drop_damaged_requests(folder)
        recipe = recipe_of(folder)
        if not launched:
            _drop_old(folder / STOP, folder / PAUSE)
        yield from apply_undo(folder)
        history = read_events(folder)
        if not prune_on and not ev.removals(history):
            raise UserError("Nothing has been removed yet, so there is nothing to export.")
        recipe = settled(_with_last_target(recipe, history), history)
        with _recording(folder) as file:
            out = folder / MODEL if export else None
            scratch = folder / SCRATCH
            overdue = _deadline(folder) if launched else lambda: False
            try:
                ReplayState.of(history).check_same_settings(recipe)
            except UserError as error:
                changed = ev.Failed(str(error))
                _append(file, changed)
                yield changed
                return

            def stop() -> bool:
                return has_request(folder) or overdue()

            with closing((engine or run_engine)(recipe, out, history, stop, prune_on, scratch)) as events:
                for event in events:
                    if isinstance(event, ev.Stopped) and overdue():
                        late = ev.Warned(_late(folder))
                        _append(file, late)
                        yield late
                    if isinstance(event, ev.Stopped) and (folder / PAUSE).exists():
                        event = ev.Paused(event.iterations)
                    _append(file, event)
                    if settings := settings_of(event):
                        # From here on the recipe names what this machine had to choose, or the run decided.
                        recipe = recipe.replace(**settings)
                        write(folder / RECIPE, recipe.to_json())
                    if isinstance(event, ev.Finished):
                        shutil.rmtree(scratch, ignore_errors=True)
                    yield event
                    if left := leave(event):
                        return
        yield from apply_undo(folder)
    finally:
        for name in () if left else (STOP, PAUSE, LAUNCHED):
            (folder / name).unlink(missing_ok=True)
        lock.release()
        # Requested after this worker looked for the last time, by someone who saw that it held the lock.
        if (folder / UNDO).exists():
            apply_pending_undo(folder)


def _deadline(folder: Path) -> Callable[[], bool]:
    """Whether the time is over that a run of the page may take since it was launched; it may have been worked
    on in several calls since."""
    hours, now = hours_of(folder), time.monotonic()
    noted = read_launched(folder).get("at")
    began = min(noted, now) if isinstance(noted, float) else now
    return lambda: hours is not None and time.monotonic() - began > hours * 3600


def hours_of(folder: Path) -> float | None:
    """Hours that a run of the page may take at a time, None being any: more where who began or resumed it had
    signed in, whoever goes on with it.

    Raises:
        UnreadableRun: what the page noted of it is damaged.
    """
    return limits(signed_in=read_about(folder).get("signed_in", False)).run_hours


def _late(folder: Path) -> str:
    hours, longer = hours_of(folder) or 0.0, limits(signed_in=True).run_hours or 0.0
    signing = read_about(folder).get("signed_in") is False and longer > hours
    return (
        f"A run may take {hours:g} hours here{setting('run_hours')}, and these are over. What was removed is "
        f"kept; resume the run to go on{f', signed in for up to {longer:g} hours' if signing else ''}."
    )


def _with_last_target(recipe: Recipe, history: Sequence[ev.Event]) -> Recipe:
    """The recipe with the target that was set last. `operations.extend` records the event before it writes
    the recipe, and a crash may have come between the two."""
    targets = [e.target for e in history if isinstance(e, ev.TargetExtended)]
    return by_share(recipe, targets[-1]) if targets else recipe


def has_request(folder: Path) -> bool:
    """Whether the run's worker is requested to stop, for whatever reason."""
    return any((folder / name).exists() for name in REQUESTS)


def request_stop(folder: Path) -> None:
    """Request the worker to stop at its next batch."""
    write(folder / STOP, "")


def record(folder: Path, events: Sequence[ev.Event]) -> None:
    """Add events to a run that no worker holds.

    Raises:
        UserError: a worker holds it, or the disk is full.
        UnreadableRun: it is damaged, or of a newer version; nothing is written then.
    """
    check_readable(folder)
    lock = _hold(folder)
    try:
        drop_torn_line(folder / EVENTS)
        with _recording(folder) as file:
            for event in events:
                _append(file, event)
    finally:
        lock.release()


def end_as_requested(folder: Path) -> None:
    """End a run as the requests in its folder say, where no worker holds it.

    Raises:
        UserError: as `record`.
        UnreadableRun: as `record`.
    """
    if (folder / UNDO).exists():
        apply_pending_undo(folder)
    else:
        ending = ev.Paused if (folder / PAUSE).exists() else ev.Stopped
        record(folder, [ending(len(ev.removals(read_events(folder))))])
    for name in (STOP, PAUSE):
        (folder / name).unlink(missing_ok=True)


def apply_pending_undo(folder: Path) -> None:
    """Undo the removal that the file `undo` names, in a run that no worker holds.

    Raises:
        UserError: as `record`.
        UnreadableRun: as `record`, or the request itself is damaged.
    """
    check_readable(folder)
    lock = _hold(folder)
    try:
        for _ in apply_undo(folder):
            pass
    finally:
        lock.release()


def _hold(folder: Path) -> FileLock:
    """The run's lock, held."""
    lock = FileLock(folder / LOCK)
    try:
        # A reader that asks whether the run is alive holds the lock for an instant.
        lock.acquire(timeout=2)
    except Timeout:
        raise UserError(f"Another process is working on '{folder}'. Stop it first.") from None
    except OSError as error:  # a full disk, or a folder that may not be written
        raise UserError(user_message(error) or f"'{folder}' cannot be written: {error.strerror}.") from None
    return lock


@contextmanager
def _recording(folder: Path) -> Iterator[TextIO]:
    """The events of a run, to add to.

    Raises:
        UserError: the disk is full, or the file may not be written. What `_append` could not write is tried
            again where the file is closed.
    """
    try:
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            yield file
    except OSError as error:
        message = user_message(error)
        if message is None:
            raise
        raise UserError(message) from None


def _append(file: TextIO, event: ev.Event) -> None:
    try:
        there = os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except OSError:
        there = False
    if not there:  # what is written from here on would bring the folder back
        raise UserError("The run's folder was deleted or moved while it was worked on, so this ends here.")
    try:
        file.write(ev.to_line(event, time.time()) + "\n")
        file.flush()
    except OSError as error:
        raise UserError(user_message(error) or f"Cannot write: {error}") from None


def apply_undo(folder: Path) -> Iterator[ev.Event]:
    """Undo what the file `undo` names, and pass on the events; a torn line is dropped first. The lock must be
    held."""
    drop_torn_line(folder / EVENTS)
    iteration = read_undo(folder)
    if iteration is None:
        return
    history = read_events(folder)
    removals = ev.removals(history)
    if len(removals) >= iteration:
        ending = ev.Paused if isinstance(history[-1], ev.Paused) else ev.Stopped
        events = ev.RemovalUndone(iteration, removals[iteration - 1].units), ending(iteration - 1)
        with _recording(folder) as file:
            for event in events:
                _append(file, event)
                yield event
    (folder / UNDO).unlink(missing_ok=True)


def _drop_old(*paths: Path) -> None:
    """Delete requests to an earlier worker. One made since this process began is for this one: loading the
    libraries takes seconds."""
    for path in paths:
        if path.exists() and path.stat().st_mtime < psutil.Process().create_time():
            path.unlink(missing_ok=True)
