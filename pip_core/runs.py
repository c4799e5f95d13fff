"""A run is a directory: `recipe.json`, `events.jsonl` (one event a line, flushed), `model/`.

One worker process writes it, holding a lock; anybody may read it. So a reload, a second tab or a
crash loses nothing, and whether a run is alive is asked of the lock, not of a process number.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from . import events as ev
from .engine import run as run_engine
from .engine import user_message
from .errors import UserError
from .export import zip_folder
from .recipe import Recipe

RECIPE, EVENTS, MODEL, STOP, LOCK, LOG = (
    "recipe.json",
    "events.jsonl",
    "model",
    "stop",
    "worker.lock",
    "worker.log",
)


def create(folder: Path, recipe: Recipe) -> None:
    """Make a run's directory and write its recipe.

    Raises:
        UserError: the folder exists and is not empty, or cannot be made.
    """
    refuse_taken(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
        (folder / EVENTS).touch()
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror}.") from None


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


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        UserError: the folder is not a run.
    """
    if not (folder / RECIPE).is_file() or not (folder / EVENTS).is_file():
        raise UserError(f"'{folder}' is not a run (it has no {RECIPE} and {EVENTS}).")
    return Recipe.from_json((folder / RECIPE).read_text(encoding="utf-8"))


def work(folder: Path, prune_on: bool = True) -> Iterator[ev.Event]:
    """Drain the engine into the run's directory, and pass its events on.

    Whatever an earlier attempt recorded is the history the engine goes on from. A `stop` file in
    the directory stops it at the next batch.

    Raises:
        UserError: the folder is not a run, or another process works on it.
    """
    recipe = recipe_of(folder)
    lock = FileLock(folder / LOCK)
    try:
        # A reader that asks whether the run is alive holds the lock for an instant.
        lock.acquire(timeout=2)
    except Timeout:
        raise UserError(f"Another process is working on '{folder}'. Stop it first.") from None
    try:
        _drop_old_stop(folder / STOP)
        _drop_torn_line(folder / EVENTS)
        history = read_events(folder)
        if not prune_on and not any(isinstance(e, ev.Removed) for e in history):
            raise UserError("Nothing has been removed yet, so there is nothing to export.")
        stop = (folder / STOP).exists
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            for event in run_engine(recipe, folder / MODEL, history, stop, prune_on):
                try:
                    file.write(ev.to_line(event, time.time()) + "\n")
                    file.flush()
                except OSError as error:
                    raise UserError(user_message(error) or f"Cannot write: {error}") from None
                yield event
    finally:
        (folder / STOP).unlink(missing_ok=True)
        lock.release()


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


def _drop_old_stop(path: Path) -> None:
    """A stop that was asked of an earlier worker is not meant for this one.

    One asked since this process began is: loading the libraries takes seconds.
    """
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
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def state(folder: Path, ending: ev.Event | None, told: bool, working: bool, silent: bool = False) -> str:
    """A run's state in one word.

    Args:
        ending: the run's last event where that is Finished, Stopped or Failed.
        told: whether it has said anything yet.
        working: whether a worker is at it.
        silent: whether that worker has yet to say its first word.

    Returns:
        "starting", "running", "stopping", "finished", "stopped", "failed" or "interrupted".
    """
    if working and (silent or not told):
        return "starting"
    if ending is not None:  # a worker lives a little longer than its last word
        return type(ending).__name__.lower()
    if not working:
        return "interrupted"
    return "stopping" if (folder / STOP).exists() else "running"


def last_error(folder: Path) -> str | None:
    """The last thing a worker complained of outside its events, where it did."""
    log = folder / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return found[-1] if found else None


def request_stop(folder: Path) -> None:
    """Ask the worker to stop at its next batch."""
    (folder / STOP).touch()


def _with_this_project() -> str:
    """PYTHONPATH for a worker, which runs in the user's folder, where relative paths mean something."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


@dataclass
class Studio:
    """The runs below one root folder, each worked on by a process of its own.

    Ids cannot be guessed: knowing one is the right to see that run.
    """

    root: Path
    # Per run: its worker, and how long the events were when it was launched.
    _workers: dict[str, tuple[subprocess.Popen, int]] = field(default_factory=dict)

    def folder(self, run_id: str) -> Path | None:
        """The directory of a run, or None where there is no such run."""
        if not run_id or not run_id.isalnum():
            return None
        folder = self.root / run_id
        return folder if (folder / RECIPE).is_file() else None

    def start(self, recipe: Recipe) -> str:
        """Make a run and start its worker; returns the id."""
        run_id = secrets.token_hex(12)
        create(self.root / run_id, recipe)
        self.launch(run_id, "resume")
        return run_id

    def launch(self, run_id: str, command: str) -> None:
        """Start a worker: `resume` to prune on, `export` to export what is pruned so far."""
        folder = self.root / run_id
        if any(isinstance(e, ev.ENDINGS) for e in read_events(folder)[-1:]):
            self._outlive(run_id)
        if self.working(run_id):
            return
        said = (folder / EVENTS).stat().st_size
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pip_core", command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                # A signal to the page's own process group (Ctrl-C) must not end a run.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _with_this_project()},
            )
        self._workers[run_id] = (process, said)

    def _outlive(self, run_id: str) -> None:
        """Wait for a worker that has said its last word to be gone."""
        process, _ = self._workers.get(run_id, (None, 0))
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def working(self, run_id: str) -> bool:
        """Whether a worker is at it, or has just been started."""
        process, _ = self._workers.get(run_id, (None, 0))
        if process is not None and process.poll() is None:
            return True
        self._workers.pop(run_id, None)
        return alive(self.root / run_id)

    def silent(self, run_id: str) -> bool:
        """Whether its worker has yet to say its first word."""
        _, said = self._workers.get(run_id, (None, -1))
        return (self.root / run_id / EVENTS).stat().st_size == said

    def zipped(self, run_id: str) -> Path:
        """The exported model as one file, made on first use."""
        folder = self.root / run_id
        return zip_folder(folder / MODEL, folder / f"pruned-{run_id[:6]}.zip")
