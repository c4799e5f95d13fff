"""Reading many runs cheaply: each as a summary, and as one line of a list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..budget.aims import stated_target
from ..core import events as ev
from ..core.recipe import Recipe
from ..evaluation.statistics import retained
from ..reporting.run_summary import RunSummary
from . import worker
from .files import (
    ABOUT,
    EVENTS,
    QUEUED,
    RECIPE,
    UNDO,
    UnreadableRun,
    damaged,
    read_about,
    read_queued,
    read_recipe,
    read_undo,
)
from .recorded import Tail

Value = TypeVar("Value")
# Characters of a model's name in the name of a run.
LONGEST_MODEL = 50


@dataclass(frozen=True)
class RunInfo:
    """A run in a list.

    Attributes:
        state: see `worker.STATES`.
        place: in the queue, from 1, where it waits.
        created: when it was made, in seconds since 1970.
        recipe: None where it cannot be read.
        message: what went wrong, where something did.
        iterations: removals that were decided, of about `planned`.
        parameters: that are left, of `dense_parameters`; 0 while they are not known.
        kept: share of what the dense model can do above guessing, None until both are measured and where it
            only guesses; likewise, once measured, `perplexity`.
        seconds: that workers have spent on it.
        exported: whether there is a verified export of what was decided.
        early: whether it was exported before its target was reached.
        note: of its owner's.
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
    early: bool = False
    note: str = ""


class RunIndex:
    """Reads runs and remembers what it read: each event is read once, other files when they change.

    What it hands out never changes, so any number of threads may draw it while a run is running.
    """

    def __init__(self) -> None:
        self._summaries: dict[Path, tuple[Tail, RunSummary, RunSummary]] = {}
        self._files: dict[Path, tuple[object, object]] = {}
        self._mutex = threading.RLock()

    def summary(self, folder: Path) -> tuple[RunSummary, str]:
        """A snapshot of a run, and its state. Of a run that cannot be read in full the snapshot holds what
        can be, and a message as its ending.

        Raises:
            FileNotFoundError: the run was deleted.
        """
        with self._mutex:
            # Looked at first: a worker that ends meanwhile has recorded its last event.
            working, silent = worker.working(folder), worker.silent(folder)
            found = self._read(folder)[1]
            if fault := self.fault(folder):
                state = "newer" if fault.newer else "damaged"
                return replace(found, ending=ev.Failed(str(fault))), state
            return found, worker.state(folder, found.ending, bool(found.sentences), working, silent)

    def fault(self, folder: Path, requests: bool = True) -> UnreadableRun | None:
        """Why a run cannot be read in full; None where it can.

        Args:
            requests: whether damaged requests (to queue it, to undo) count, which `resume` drops.

        Raises:
            FileNotFoundError: the run was deleted.
        """
        with self._mutex:
            found = [self._unreadable(self.recipe, folder), self._read(folder)[0].fault]
            found.append(self._unreadable(self.about, folder))
            if requests:
                found += [self._unreadable(read, folder) for read in (self.queued, self._undo)]
            faults = [fault for fault in found if fault is not None]
            return next((fault for fault in faults if fault.newer), faults[0] if faults else None)

    def recipe(self, folder: Path) -> Recipe:
        """The recipe of a run.

        Raises:
            UnreadableRun: it is damaged, or of a newer version.
        """
        try:
            return self._file(folder / RECIPE, read_recipe)
        except FileNotFoundError:
            raise damaged(folder / RECIPE, "it is missing") from None

    def about(self, folder: Path) -> dict:
        """As `files.read_about`."""
        return self._file(folder / ABOUT, lambda path: read_about(path.parent))

    def queued(self, folder: Path) -> dict | None:
        """As `files.read_queued`."""
        return self._file(folder / QUEUED, lambda path: read_queued(path.parent))

    def info(self, folder: Path, waiting: Sequence[str]) -> RunInfo:
        """A run in a list; `waiting` are the ids in the queue, in order.

        Raises:
            FileNotFoundError: the run was deleted.
        """
        with self._mutex:
            facts = {} if self._unreadable(self.about, folder) else self.about(folder)
            place = waiting.index(folder.name) + 1 if folder.name in waiting else None
            created = facts.get("created") or last_change(folder, RECIPE)
            summary, state = self.summary(folder)
            recipe = None if self._unreadable(self.recipe, folder) else self.recipe(folder)
            name = facts.get("name") or (default_name(recipe) if recipe else folder.name)
            first = RunInfo(folder.name, name, state, place, created, recipe, note=facts.get("note", ""))
            return _filled_in(first, folder, summary)

    def forget(self, folder: Path) -> None:
        """Drop what was read of a run, which is being deleted."""
        with self._mutex:
            self._summaries.pop(folder, None)
            for name in (ABOUT, RECIPE, QUEUED, UNDO):
                self._files.pop(folder / name, None)

    def _read(self, folder: Path) -> tuple[Tail, RunSummary]:
        """The events of a run read up to now, and a snapshot of what they come to."""
        known = self._summaries.pop(folder, None)
        tail, summary, snapshot = known or _nothing_read(folder)
        try:
            size = tail.path.stat().st_size
            if size < tail.offset:  # replaced by something shorter
                tail, summary, snapshot = _nothing_read(folder)
            if size != tail.offset and (found := tail.poll()):
                summary.apply(found)
                snapshot = summary.snapshot()
        except OSError as error:
            if not folder.is_dir():
                raise FileNotFoundError(folder) from None
            reason = "it is missing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            tail, summary, snapshot = _nothing_read(folder)
            tail.fault = damaged(tail.path, reason)
            return tail, snapshot
        self._summaries[folder] = tail, summary, snapshot
        return tail, snapshot

    def _undo(self, folder: Path) -> int | None:
        return self._file(folder / UNDO, lambda path: read_undo(path.parent))

    def _unreadable(self, read: Callable[[Path], object], folder: Path) -> UnreadableRun | None:
        try:
            read(folder)
        except UnreadableRun as error:
            return error
        return None

    def _file(self, path: Path, read: Callable[[Path], Value]) -> Value:
        """What `read` makes of a file, read again only where the file was written again. What it raises is
        remembered likewise."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return read(path)
        except OSError as error:
            raise damaged(path, error.strerror or str(error)) from None
        version = stat.st_mtime_ns, stat.st_ino, stat.st_size
        with self._mutex:
            if path not in self._files or self._files[path][0] != version:
                found: object
                try:
                    found = read(path)
                except UnreadableRun as error:
                    found = error
                self._files[path] = version, found
            found = self._files[path][1]
        if isinstance(found, UnreadableRun):
            raise found.with_traceback(None)
        return found  # type: ignore[return-value]


def default_name(recipe: Recipe) -> str:
    """The name of a run that its owner did not name. It follows the recipe, which an extension changes."""
    model = recipe.model.rstrip("/").rsplit("/", 1)[-1]
    return f"{model[:LONGEST_MODEL]}, {stated_target(recipe)} by {recipe.method}"


def last_change(folder: Path, name: str = EVENTS) -> float:
    """When a file of a run changed last, or where it is missing the folder, in seconds since 1970."""
    try:
        return (folder / name).stat().st_mtime
    except OSError:
        return folder.stat().st_mtime


def _nothing_read(folder: Path) -> tuple[Tail, RunSummary, RunSummary]:
    summary = RunSummary()
    return Tail(folder), summary, summary.snapshot()


def _filled_in(info: RunInfo, folder: Path, summary: RunSummary) -> RunInfo:
    """`info` with what a run's summary says."""
    message = summary.ending.message if isinstance(summary.ending, ev.Failed) else ""
    if info.state == "interrupted":
        message = worker.why_interrupted(folder)
    dense, latest, started = summary.dense, summary.latest, summary.started
    first = started.parameters if started else 0
    return replace(
        info,
        message=message,
        iterations=len(summary.removals),
        planned=summary.planned,
        parameters=summary.parameters or first,
        dense_parameters=first,
        kept=retained(dense, latest).above_chance if dense and latest else None,
        perplexity=latest.perplexity if latest else None,
        dense_perplexity=dense.perplexity if dense else None,
        seconds=summary.worked,
        early=summary.early,
        exported=summary.exported is not None and summary.exported.iterations == len(summary.removals),
    )
