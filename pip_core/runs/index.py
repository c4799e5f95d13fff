"""Reading many runs cheaply: each as a story, and as one line of a list."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..core import events as ev
from ..core.errors import UserError
from ..core.recipe import Recipe
from ..evaluation.statistics import retained
from ..reporting.run_summary import RunSummary
from ..runs import run_directory

ABOUT = "about.json"
Value = TypeVar("Value")


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


class RunIndex:
    """Reads runs, and remembers what it has read: each event is read once, other files when they change."""

    def __init__(self) -> None:
        self._told: dict[Path, tuple[run_directory.Tail, RunSummary]] = {}
        self._files: dict[Path, tuple[tuple[int, int], object]] = {}
        self._mutex = threading.RLock()

    def story(self, folder: Path) -> tuple[RunSummary, str]:
        """A run as it stands, and its state.

        Raises:
            UserError: another version wrote it.
            FileNotFoundError: it is gone.
        """
        with self._mutex:
            # Asked first: a worker that ends meanwhile has written its last event.
            working, silent = run_directory.working(folder), run_directory.silent(folder)
            tail, story = self._told.pop(folder, None) or (run_directory.Tail(folder), RunSummary())
            if tail.path.stat().st_size != tail.offset:
                story.apply(tail.poll())
            self._told[folder] = (tail, story)
            return story, run_directory.state(folder, story.ending, bool(story.sentences), working, silent)

    def info(self, folder: Path, waiting: Sequence[str]) -> RunInfo:
        """A run in a list; `waiting` are the ids in the queue, in order.

        Raises:
            FileNotFoundError: it is gone.
        """
        with self._mutex:
            facts = self._file(folder / ABOUT, lambda path: about(path.parent))
            place = waiting.index(folder.name) + 1 if folder.name in waiting else None
            created = facts.get("created") or (folder / run_directory.RECIPE).stat().st_mtime
            first = RunInfo(folder.name, facts.get("name") or folder.name, "failed", place, created)
            try:
                recipe = self._file(
                    folder / run_directory.RECIPE, lambda path: run_directory.recipe_of(path.parent)
                )
                return _filled_in(first, folder, recipe, *self.story(folder))
            except UserError as error:  # another version wrote it, or it is damaged
                return replace(first, message=str(error))

    def forget(self, folder: Path) -> None:
        """A run is thrown away."""
        with self._mutex:
            self._told.pop(folder, None)
            for name in (ABOUT, run_directory.RECIPE):
                self._files.pop(folder / name, None)

    def _file(self, path: Path, read: Callable[[Path], Value]) -> Value:
        """What `read` makes of a file, read again only where the file was written again."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return read(path)
        version = stat.st_mtime_ns, stat.st_ino
        if path not in self._files or self._files[path][0] != version:
            self._files[path] = version, read(path)
        return self._files[path][1]


def about(folder: Path) -> dict:
    """What a studio has noted of a run: "name", "created" and "owner" (a hash); nothing where the
    command line made it."""
    try:
        return json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _filled_in(info: RunInfo, folder: Path, recipe: Recipe, story: RunSummary, state: str) -> RunInfo:
    """`info` with all that a run's story tells."""
    message = story.ending.message if isinstance(story.ending, ev.Failed) else ""
    if state == "interrupted":
        message = run_directory.why_interrupted(folder)
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
        kept=retained(dense, latest).share if dense and latest else None,
        perplexity=latest.perplexity if latest else None,
        dense_perplexity=dense.perplexity if dense else None,
        seconds=story.worked,
        exported=story.exported is not None and story.exported.iterations == len(story.removals),
    )
