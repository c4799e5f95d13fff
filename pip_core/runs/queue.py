"""Many runs below one folder: whose they are, which wait for a worker, which may be thrown away.

All of it lies on disk, so that it is there again after a restart, and for other processes: who changes
anything holds the lock of the root folder. A run's folder holds, beside what `runs` keeps there,
`about.json` (its name, when it was made, a hash of its owner's token) and, while it waits for a
worker, `queued`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..checkpoints.packing import zip_folder
from ..core import events as ev
from ..core.errors import UserError
from ..core.recipe import Recipe
from ..reporting.run_summary import RunSummary
from ..runs import operations, retention, run_directory
from .index import ABOUT, RunIndex, RunInfo, about
from .retention import Kept

LOCK = "studio.lock"
ID = re.compile(r"[0-9a-f]{24}")
LONGEST_NAME = 80
CLEAN_SECONDS = 3600.0
PATIENCE_SECONDS = 30.0
# Folders that are being made or thrown away; a crash may leave them behind.
MAKING, LEAVING = ".making-", ".leaving-"
# Folders beside the runs: texts that were uploaded, and tables of several runs made to be downloaded.
UPLOADS, TABLES = "uploads", "tables"


def _workers() -> int:
    """Workers at once, from the environment; every one needs the memory of a run."""
    text = os.environ.get("PIP_STUDIO_WORKERS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"PIP_STUDIO_WORKERS must be a whole number, 1 or more, not '{text}'.")
    return int(text)


@dataclass
class RunQueue:
    """The runs below `root`, worked on by at most `workers` processes at once.

    Ids cannot be guessed: knowing one is the right to see that run. A list shows only one's own.
    """

    root: Path
    workers: int = field(default_factory=_workers)
    _mutex: threading.RLock = field(default_factory=threading.RLock, repr=False)
    # Ours, so that they leave no zombies; whether a worker lives is not asked of them.
    _children: list[subprocess.Popen] = field(default_factory=list, repr=False)
    _reader: RunIndex = field(default_factory=RunIndex, repr=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.root / LOCK, thread_local=False)

    # Finding runs

    def folder(self, run_id: str) -> Path | None:
        """The directory of a run, or None where there is no such run."""
        if not isinstance(run_id, str) or not ID.fullmatch(run_id):
            return None
        folder = self.root / run_id
        return folder if (folder / run_directory.RECIPE).is_file() else None

    def story(self, run_id: str) -> tuple[RunSummary, str]:
        """A run as it stands, and its state; "none" where there is no such run.

        Raises:
            UserError: it was written by another version.
        """
        folder = self.folder(run_id)
        if folder is None:
            return RunSummary(), "none"
        try:
            return self._reader.story(folder)
        except FileNotFoundError:  # just deleted
            return RunSummary(), "none"

    def listed(self, owner: str | None) -> list[RunInfo]:
        """The runs of an owner, newest first; None lists everybody's."""
        if owner == "":
            return []
        found = [f for f in self._folders() if owner is None or self._owned(f, owner)]
        waiting, infos = [f.name for f in self._waiting()], []
        for folder in found:
            with suppress(FileNotFoundError):  # just deleted
                infos.append(self._reader.info(folder, waiting))
        return sorted(infos, key=lambda i: (-i.created, i.id))

    def owns(self, run_id: str, owner: str) -> bool:
        """Whether a run is this owner's."""
        folder = self.folder(run_id)
        return bool(folder and owner and self._owned(folder, owner))

    def steers(self, run_id: str, owner: str) -> bool:
        """Whether an owner may change a run: it is theirs, or nobody's, as one of the command line is."""
        folder = self.folder(run_id)
        return bool(folder and (self.owns(run_id, owner) or not about(folder).get("owner")))

    def place(self, run_id: str) -> int | None:
        """A waiting run's place in the queue, 1 being next; None for one that does not wait."""
        waiting = [f.name for f in self._waiting()]
        return waiting.index(run_id) + 1 if run_id in waiting else None

    # Making and changing runs

    def start(self, recipe: Recipe, owner: str = "", name: str = "") -> str:
        """Make a run, which starts when a worker is free; returns its id.

        Raises:
            UserError: there is no room for it.
        """
        return self._make(lambda folder: run_directory.create(folder, recipe), owner, name or _name(recipe))

    def fork(
        self, run_id: str, changes: Mapping, upto: int | None = None, owner: str = "", name: str = ""
    ) -> str:
        """Make a run that goes on from another with changed settings, see `steering.fork`.

        Raises:
            UserError: see there.
        """
        old = self._existing(run_id)
        called = about(old).get("name", "")
        name = name or f"{called}, forked"[:LONGEST_NAME]
        return self._make(lambda folder: operations.fork(old, folder, changes, upto, called), owner, name)

    def rename(self, run_id: str, name: str) -> None:
        """Call a run something else; an empty name gives it its first one back."""
        with self._held():
            folder = self._existing(run_id)
            name = " ".join(name.split())[:LONGEST_NAME] or _name(run_directory.recipe_of(folder))
            run_directory.write(folder / ABOUT, json.dumps({**about(folder), "name": name}))

    def delete(self, run_id: str) -> None:
        """Throw a run away.

        Raises:
            UserError: it is being worked on.
        """
        with self._held():
            folder = self._existing(run_id)
            if run_directory.working(folder):
                raise UserError("The run is being worked on: stop it first, then delete it.")
            self._discard(folder)

    def clean(self, max_age_seconds: float | None = None, max_bytes: float | None = None) -> list[str]:
        """Throw away old finished runs and what can be made again, see `cleaning.clean`.

        Without arguments the limits are those of the environment: PIP_STUDIO_KEEP_DAYS and
        PIP_STUDIO_KEEP_GB, and none where these are not set.
        """
        if max_age_seconds is None:
            max_age_seconds = retention.limit("PIP_STUDIO_KEEP_DAYS", 86400.0)
        if max_bytes is None:
            max_bytes = retention.limit("PIP_STUDIO_KEEP_GB", 1e9)
        with self._held():
            infos = [(f, self._reader.info(f, [])) for f in self._folders()]
            kept = [Kept(f, i.name, i.state, (f / run_directory.EVENTS).stat().st_mtime) for f, i in infos]
            recipes = "".join((f / run_directory.RECIPE).read_text(encoding="utf-8") for f, _ in infos)
            unused = [p for p in self.root.glob(f"{UPLOADS}/*") if p.name not in recipes]
            leftovers = [
                p for name in (f"{MAKING}*", f"{LEAVING}*", ".*.partial") for p in self.root.glob(name)
            ]
            spare = [*unused, *self.root.glob(f"{TABLES}/*")]
            return retention.clean(
                self.root, kept, leftovers, spare, max_age_seconds, max_bytes, self._discard
            )

    def _discard(self, folder: Path) -> None:
        """Remove a run's folder at once from every list, then from the disk."""
        gone = folder.with_name(f"{LEAVING}{folder.name}")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        self._reader.forget(folder)
        shutil.rmtree(gone, ignore_errors=True)

    # Steering

    def stop(self, run_id: str) -> None:
        """Stop a run at its next batch, or take it out of the queue."""
        self._halt(run_id, run_directory.STOP, ev.Stopped)

    def pause(self, run_id: str) -> None:
        """As `stop`, for a run that is meant to go on: it is never thrown away."""
        self._halt(run_id, run_directory.PAUSE, ev.Paused)

    def resume(self, run_id: str) -> None:
        """Go on with a run as soon as a worker is free; one that is stopping goes on when it has."""
        with self._held():
            folder = self._existing(run_id)
            going = run_directory.working(folder) and not run_directory.asked(folder)
            if not going and self.story(run_id)[1] != "finished":
                self._queue(folder, "resume")
        self.tend()

    def export_now(self, run_id: str) -> None:
        """Export a run as pruned so far, as soon as a worker is free.

        Raises:
            UserError: nothing was removed, or the run is going on.
        """
        with self._held():
            folder = self._existing(run_id)
            if run_directory.working(folder) and not run_directory.asked(folder):
                raise UserError("The run is being worked on: stop or pause it first, then export.")
            if not ev.removals(run_directory.read_events(folder)):
                raise UserError("Nothing has been removed yet, so there is nothing to export.")
            self._queue(folder, "export")
        self.tend()

    def undo(self, run_id: str) -> None:
        """Take the last removal back, see `steering.undo`; `resume` then goes on differently.

        Raises:
            UserError: nothing was removed.
        """
        with self._held():
            operations.undo(self._existing(run_id))

    def extend(self, run_id: str, target: float) -> str:
        """Go on with a run to a deeper target, see `steering.extend`; returns its id.

        Raises:
            UserError: see there.
        """
        with self._held():
            folder = self._existing(run_id)
            operations.extend(folder, target)
            self._queue(folder, "resume")
        self.tend()
        return run_id

    # Workers

    def tend(self) -> list[str]:
        """Start workers for runs that wait, as far as there is room; returns their ids.

        Called whenever something changed, once a second, and at the start.

        Raises:
            UserError: a worker cannot be started; the run goes on waiting.
        """
        with self._held():
            return self._tend()

    def _tend(self) -> list[str]:
        self._children = [child for child in self._children if child.poll() is None]
        for folder in self._folders():
            if (folder / run_directory.UNDO).exists() and not run_directory.working(folder):
                with suppress(UserError):  # no room on the disk, or a worker came first: next time
                    run_directory.apply_pending_undo(folder)
        started, waiting = [], [f for f in self._waiting() if not run_directory.working(f)]
        room = self.workers - sum(map(run_directory.working, self._folders())) if waiting else 0
        for folder in waiting[: max(room, 0)]:
            command = json.loads((folder / run_directory.QUEUED).read_text(encoding="utf-8"))["command"]
            self._children.append(run_directory.launch(folder, command))
            (folder / run_directory.QUEUED).unlink()
            started.append(folder.name)
        return started

    def keep_tending(self, seconds: float = 1.0) -> threading.Thread:
        """Tend in the background as long as this process lives, and clean every hour."""

        def tend_and_clean() -> None:
            cleaned = -math.inf
            while True:
                try:
                    self.tend()
                    if time.monotonic() - cleaned > CLEAN_SECONDS:
                        cleaned = time.monotonic()
                        self.clean()
                except Exception:  # the next round may well do better, and waiting runs must not hang
                    logging.getLogger(__name__).exception("the queue could not be tended")
                time.sleep(seconds)

        thread = threading.Thread(target=tend_and_clean, name="studio", daemon=True)
        thread.start()
        return thread

    def zipped(self, run_id: str) -> Path:
        """The exported model as one file, made on first use.

        Raises:
            UserError: no export, or no space for it.
        """
        folder = self._existing(run_id)
        if not (folder / run_directory.MODEL).is_dir():
            raise UserError("There is no exported model yet.")
        return zip_folder(folder / run_directory.MODEL, folder / f"pruned-{run_id[:6]}.zip")

    # Below: what lies on disk

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody else changes anything below the root meanwhile."""
        with self._mutex:
            try:
                self._lock.acquire(timeout=PATIENCE_SECONDS)
            except Timeout:
                raise UserError("Another process is busy with the runs. Try again in a moment.") from None
            try:
                yield
            finally:
                self._lock.release()

    def _folders(self) -> list[Path]:
        """All runs, also those whose folder the command line named."""
        return [
            f
            for f in sorted(self.root.iterdir())
            if f.name[0] != "." and (f / run_directory.RECIPE).is_file()
        ]

    def _waiting(self) -> list[Path]:
        found = []
        for folder in self._folders():
            try:
                queued = json.loads((folder / run_directory.QUEUED).read_text(encoding="utf-8"))
                found.append((queued["at"], folder))
            except FileNotFoundError:
                continue
        return [folder for _, folder in sorted(found)]

    def _queue(self, folder: Path, command: str) -> None:
        run_directory.write(
            folder / run_directory.QUEUED, json.dumps({"at": time.time(), "command": command})
        )

    def _halt(self, run_id: str, flag: str, ending: type[ev.Stopped] | type[ev.Paused]) -> None:
        with self._held():
            folder = self._existing(run_id)
            waited = (folder / run_directory.QUEUED).exists()
            (folder / run_directory.QUEUED).unlink(missing_ok=True)
            if run_directory.working(folder):
                other = {run_directory.STOP: run_directory.PAUSE, run_directory.PAUSE: run_directory.STOP}[
                    flag
                ]
                run_directory.write(folder / flag, "")
                (folder / other).unlink(missing_ok=True)
            elif waited:
                run_directory.record(folder, [ending(len(ev.removals(run_directory.read_events(folder))))])

    def _make(self, fill: Callable[[Path], None], owner: str, name: str) -> str:
        run_id = secrets.token_hex(12)
        making = self.root / f"{MAKING}{run_id}"
        facts = {"name": name[:LONGEST_NAME], "owner": _hashed(owner), "created": time.time()}
        try:
            fill(making)
            run_directory.write(making / ABOUT, json.dumps(facts))
            self._queue(making, "resume")
            making.rename(self.root / run_id)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        self.tend()
        return run_id

    def _existing(self, run_id: str) -> Path:
        folder = self.folder(run_id)
        if folder is None:
            raise UserError("There is no such run. It may have been deleted.")
        return folder

    def _owned(self, folder: Path, owner: str) -> bool:
        return hmac.compare_digest(about(folder).get("owner", ""), _hashed(owner))


def _hashed(owner: str) -> str:
    """An owner's token is a secret of their browser: it is not kept."""
    return hashlib.sha256(owner.encode()).hexdigest() if owner else ""


def _name(recipe: Recipe) -> str:
    """What a run is called unless its owner says otherwise."""
    model = recipe.model.rstrip("/").rsplit("/", 1)[-1]
    return f"{model}, {recipe.target:.0%} by {recipe.method}"[:LONGEST_NAME]
