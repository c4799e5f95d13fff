"""A run is a directory: `recipe.json`, `events.jsonl` (one event a line, flushed), `model/`.

One worker process writes it, holding a lock; anybody may read it. So a reload, a second tab or a
crash loses nothing, and whether a run is alive is asked of the lock. Only until a worker that was
just launched has reached that lock (it loads its libraries first) is its process number asked.

What is asked of a worker are empty files that it looks for at every batch: `stop`, `pause`, `undo`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import psutil
from filelock import FileLock, Timeout

from ..core import events as ev
from ..core.device import user_message
from ..core.errors import UserError
from ..core.paths import ROOT
from ..core.recipe import Recipe
from ..engine.run import run as run_engine

RECIPE, EVENTS, MODEL, LOCK, LOG = "recipe.json", "events.jsonl", "model", "worker.lock", "worker.log"
# Asked of a worker; `undo` holds the number of the iteration to take back.
STOP, PAUSE, UNDO = "stop", "pause", "undo"
ASKED = (STOP, PAUSE, UNDO)
# A run that waits for a worker; a worker that was launched.
QUEUED, LAUNCHED = "queued", "launched"
# Before what a worker says on its standard error.
LOG_MARK = "=== "
# A disk with less than this is full.
FULL_BYTES = 2**20
_probing = threading.Lock()


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
    """Raises:
    UserError: there is something in the folder already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if (folder / RECIPE).is_file() and (folder / EVENTS).is_file():
            raise UserError(
                f"'{folder}' already holds a run. Go on with it by 'python -m pip_core resume "
                f"{folder}', or choose another folder."
            )
        raise UserError(f"'{folder}' exists and is not a run of ours. Choose a new or empty folder.")


def write(path: Path, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = user_message(error) or f"'{path.parent}' cannot be written: {error.strerror}."
        raise UserError(reason) from None


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        UserError: the folder is not a run.
    """
    if not (folder / RECIPE).is_file() or not (folder / EVENTS).is_file():
        raise UserError(f"'{folder}' is not a run (it has no {RECIPE} and {EVENTS}).")
    return Recipe.from_json((folder / RECIPE).read_text(encoding="utf-8"))


def work(
    folder: Path, prune_on: bool = True, launched: bool = False, export: bool = True
) -> Iterator[ev.Event]:
    """Drain the engine into the run's directory, and pass its events on.

    Whatever an earlier attempt recorded is the history the engine goes on from. A file `stop`,
    `pause` or `undo` in the directory stops it at the next batch.

    Args:
        launched: whether `launch` began this process, and so saw to what was asked before.
        export: whether to write the pruned model at the end.

    Raises:
        UserError: the folder is not a run, or another process works on it.
    """
    recipe = recipe_of(folder)
    lock = _hold(folder)
    try:
        if not launched:
            _drop_old(folder / STOP, folder / PAUSE)
        yield from _take_back(folder)
        history = read_events(folder)
        if not prune_on and not ev.removals(history):
            raise UserError("Nothing has been removed yet, so there is nothing to export.")
        recipe = _with_last_target(recipe, history)
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            out = folder / MODEL if export else None
            for event in run_engine(recipe, out, history, lambda: asked(folder), prune_on):
                if isinstance(event, ev.Stopped) and (folder / PAUSE).exists():
                    event = ev.Paused(event.iterations)
                _append(file, event)
                if isinstance(event, ev.Started):
                    # From here on the recipe names what this machine had to choose.
                    recipe = recipe.replace(**dict(event.pinned))
                    write(folder / RECIPE, recipe.to_json())
                yield event
        yield from _take_back(folder)
    finally:
        for name in (STOP, PAUSE, LAUNCHED):
            (folder / name).unlink(missing_ok=True)
        lock.release()
        # Asked while the lock was still held, and so left to this worker, though it looked for the last time.
        if (folder / UNDO).exists():
            apply_pending_undo(folder)


def _with_last_target(recipe: Recipe, history: Sequence[ev.Event]) -> Recipe:
    """The recipe with the target that was set last: a crash may have come before it was written there."""
    targets = [e.target for e in history if isinstance(e, ev.TargetExtended)]
    return recipe.replace(target=targets[-1]) if targets else recipe


def asked(folder: Path) -> bool:
    """Whether the run's worker is asked to stop, for whatever reason."""
    return any((folder / name).exists() for name in ASKED)


def record(folder: Path, events: Sequence[ev.Event]) -> None:
    """Add events to a run that nobody works on.

    Raises:
        UserError: somebody does, or there is no room for it.
    """
    lock = _hold(folder)
    try:
        _drop_torn_line(folder / EVENTS)
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            for event in events:
                _append(file, event)
    finally:
        lock.release()


def apply_pending_undo(folder: Path) -> None:
    """Take back what was asked to be, in a run that nobody works on.

    Raises:
        UserError: as `record`.
    """
    lock = _hold(folder)
    try:
        for _ in _take_back(folder):
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
    return lock


def _append(file: TextIO, event: ev.Event) -> None:
    try:
        file.write(ev.to_line(event, time.time()) + "\n")
        file.flush()
    except OSError as error:
        raise UserError(user_message(error) or f"Cannot write: {error}") from None


def _take_back(folder: Path) -> Iterator[ev.Event]:
    """Do what the file `undo` asks for, and say so; a torn line goes first. The lock must be held."""
    _drop_torn_line(folder / EVENTS)
    request = folder / UNDO
    if not request.exists():
        return
    iteration, history = int(request.read_text(encoding="utf-8")), read_events(folder)
    removals = ev.removals(history)
    if len(removals) >= iteration:
        ending = ev.Paused if isinstance(history[-1], ev.Paused) else ev.Stopped
        events = ev.RemovalUndone(iteration, removals[iteration - 1].units), ending(iteration - 1)
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            for event in events:
                _append(file, event)
                yield event
    request.unlink(missing_ok=True)


def read_events(folder: Path) -> list[ev.Event]:
    """Every event recorded so far (a line that is still being written is left out)."""
    return [event for event, _ in Tail(folder).poll()]


class Tail:
    """Reads a growing `events.jsonl`, each line once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS
        self.offset = 0

    def poll(self) -> list[tuple[ev.Event, float]]:
        """Events that have come since the last call, with their times."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [ev.from_line(line) for line in whole.decode("utf-8").splitlines()]


def _drop_old(*paths: Path) -> None:
    """A stop that was asked of an earlier worker is not meant for this one.

    One asked since this process began is: loading the libraries takes seconds.
    """
    for path in paths:
        if path.exists() and path.stat().st_mtime < psutil.Process().create_time():
            path.unlink(missing_ok=True)


def _drop_torn_line(path: Path) -> None:
    """A killed worker may have left half a line."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def alive(folder: Path) -> bool:
    """Whether a worker holds the run."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    with _probing:
        try:
            # Another process that asks the same holds the lock for an instant.
            lock.acquire(timeout=0.05, poll_interval=0.01)
        except Timeout:
            return True
        lock.release()
    return False


def working(folder: Path) -> bool:
    """Whether a worker is at the run, or has just been launched for it."""
    return _launching(folder) or alive(folder)


def silent(folder: Path) -> bool:
    """Whether the worker that was launched has yet to say its first word."""
    return (folder / EVENTS).stat().st_size == _launched(folder).get("said")


def _launched(folder: Path) -> dict:
    try:
        return json.loads((folder / LAUNCHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _launching(folder: Path) -> bool:
    """Whether the process that was launched is there still."""
    found = _launched(folder)
    try:
        process = psutil.Process(found["pid"])
        # A number is given again to another process some day.
        same = abs(process.create_time() - found["began"]) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, psutil.Error):
        return False


def state(folder: Path, ending: ev.Event | None, told: bool, working: bool, silent: bool = False) -> str:
    """A run's state in one word.

    Args:
        ending: the run's last event where that is Finished, Stopped or Failed.
        told: whether it has said anything yet.
        working: whether a worker is at it.
        silent: whether that worker has yet to say its first word.

    Returns:
        "waiting", "starting", "running", "stopping", "finished", "stopped", "paused", "failed" or
        "interrupted".
    """
    if (folder / QUEUED).exists() and (ending is not None or not working):
        return "waiting"
    if working and (silent or not told):
        return "stopping" if asked(folder) else "starting"
    if ending is not None:  # a worker lives a little longer than its last word
        return type(ending).__name__.lower()
    if not working:
        return "interrupted"
    return "stopping" if asked(folder) else "running"


def why_interrupted(folder: Path) -> str:
    """What became of the worker of an interrupted run, in a sentence."""
    log = folder / LOG
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = ("\n" + said).rpartition("\n" + LOG_MARK)[2].strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if any(line.startswith("Traceback") for line in lines):
        return f"The worker failed ({lines[-1][:200]}). Resume to go on; nothing decided is lost."
    if shutil.disk_usage(folder).free < FULL_BYTES:
        return "The disk is full. Make room, then resume the run; nothing decided is lost."
    return (
        "The worker was ended from outside: by hand, by a restart, or by the system for want of memory. "
        "Resume to go on; nothing decided is lost."
    )


def request_stop(folder: Path) -> None:
    """Ask the worker to stop at its next batch."""
    write(folder / STOP, "")


def launch(folder: Path, command: str, *options: str) -> subprocess.Popen:
    """Start a worker: `resume` to prune on, `export` to export what is pruned so far.

    Nobody may be working on the run.

    Raises:
        UserError: the system starts no process, or there is no room to write.
    """
    for name in (STOP, PAUSE):
        (folder / name).unlink(missing_ok=True)
    said = (folder / EVENTS).stat().st_size
    try:
        with (folder / LOG).open("ab") as log:
            log.write(f"{LOG_MARK}{command}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", "pip_core", command, str(folder), "--launched", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                # A signal to the page's own process group (Ctrl-C) must not end a run.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _with_this_project()},
            )
    except OSError as error:
        raise UserError(user_message(error) or f"No worker could be started: {error.strerror}.") from None
    began = psutil.Process(process.pid).create_time()
    write(folder / LAUNCHED, json.dumps({"pid": process.pid, "began": began, "said": said}))
    return process


def _with_this_project() -> str:
    """PYTHONPATH for a worker, which runs in the user's folder, where relative paths mean something."""
    here = str(ROOT)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
