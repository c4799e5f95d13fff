"""The queue: which runs wait for a worker, starting workers, and what is requested of a run.

The queue is the files `queued` in the folders of the runs, so that it survives a restart, and several pages
over the same folder share it.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoints.packing import Packing, start_packing, zip_folder
from ..core import events as ev
from ..core.errors import UserError
from ..core.fork_server import ForkServer, Process
from ..core.limits import limits
from ..core.network import asking, asking_token, or_sign_in, visitors_limits
from ..core.recipe import Recipe
from . import operations, run_directory, worker
from .files import (
    ABOUT,
    MODEL,
    PAUSE,
    QUEUED,
    RESTARTED,
    STOP,
    UNDO,
    UnreadableRun,
    drop_damaged_requests,
    read_about,
    read_launched,
    read_object,
    write,
)
from .operations import Look, look_here
from .places import Place, place_named, usual_place
from .pushing import Order, Pushes
from .recorded import decided
from .store import LONGEST_NAME, MAKING, RunStore, hashed

CLEAN_SECONDS = 3600.0
# Restarts in a row after which a run goes on by itself without having decided or measured anything between.
MOST_RESTARTS = 3
# At the end of a branch's name.
BRANCH = ", branch"


@dataclass
class RunQueue(RunStore):
    """The runs below `root`, of which at most `workers` run at once, each in a process of its own."""

    workers: int = field(default_factory=lambda: limits().workers)
    # Kept so that they leave no zombies. Whether a worker is alive is read from its run's lock.
    children: list[Process] = field(default_factory=list, repr=False)
    # Forks the workers; see `schedule_in_background`.
    server: ForkServer | None = field(default=None, repr=False)
    pushes: Pushes = field(init=False, repr=False)
    where: Place = field(init=False, repr=False)
    # Of runs that wait, until they are begun: tokens of visitors, which are kept nowhere else, and the
    # contexts in which they asked.
    _lent: dict[str, tuple[str, Context]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pushes = Pushes(lambda: self.server)
        self.where = place_named(usual_place(), lambda: self.server)

    # Making runs

    def start(self, recipe: Recipe, owner: str = "", name: str = "") -> str:
        """Make a run, which starts when a worker is free; returns its id.

        Raises:
            UserError: the disk is full, or no worker can be started.
        """
        return self._make(lambda folder: run_directory.create(folder, recipe), owner, name)

    def fork(
        self,
        run_id: str,
        changes: Mapping,
        upto: int | None = None,
        owner: str = "",
        name: str = "",
        look: Look = look_here,
    ) -> str:
        """Make a run that continues from another with changed settings, see `operations.forked`.

        Raises:
            UserError: see there.
        """
        old = self._readable(run_id)
        before = self._index.info(old, []).name
        if not name and self._index.about(old).get("name"):
            # Named by hand, where a name of the recipe's making is made anew.
            name = f"{before.removesuffix(BRANCH)[: LONGEST_NAME - len(BRANCH)]}{BRANCH}"
        recipe, events = look(operations.forked, old, changes, upto, before)
        return self._make(lambda folder: operations.begin(folder, recipe, events), owner, name)

    def check_room(self, owner: str, more: int = 1) -> None:
        """Check that `more` runs of an owner may be queued.

        Raises:
            UserError: too many of this owner, or of all, wait or run already.
        """
        self._check_room(hashed(owner), more)

    # Requests

    def stop(self, run_id: str) -> None:
        """Stop a run at its next batch, or take it out of the queue."""
        self._halt(run_id, STOP, ev.Stopped)

    def pause(self, run_id: str) -> None:
        """As `stop`, for a run that is to be continued: it is never deleted to make room."""
        self._halt(run_id, PAUSE, ev.Paused)

    def resume(self, run_id: str) -> None:
        """Continue a run as soon as a worker is free; one that is stopping continues after it stopped, and
        one that was exported early goes on to its target.

        Raises:
            UnreadableRun: it is damaged, or of a newer version.
        """
        with self._locked():
            folder = self._readable(run_id)
            drop_damaged_requests(folder)
            going = worker.working(folder) and not run_directory.has_request(folder)
            summary, state = self.summary(run_id)
            if not going and (state != "finished" or summary.early):
                self._check_room_for(folder)
                self._queue(folder, "resume")
        self.schedule_workers()

    def export_now(self, run_id: str) -> None:
        """Export a run as pruned so far, as soon as a worker is free.

        Raises:
            UserError: nothing was removed, or the run is running.
            UnreadableRun: it is damaged, or of a newer version.
        """
        with self._locked():
            folder = self._readable(run_id)
            if worker.working(folder) and not run_directory.has_request(folder):
                raise UserError("The run is still running: stop or pause it first, then export.")
            if not ev.removals(run_directory.read_events(folder)):
                raise UserError("Nothing has been removed yet, so there is nothing to export.")
            self._check_room_for(folder)
            self._queue(folder, "export")
        self.schedule_workers()

    def undo(self, run_id: str) -> None:
        """Undo the last removal, see `operations.undo`; `resume` then removes something else.

        Raises:
            UserError: nothing was removed.
            UnreadableRun: it is damaged, or of a newer version.
        """
        with self._locked():
            operations.undo(self._readable(run_id))

    def extend(self, run_id: str, target: float, look: Look = look_here) -> str:
        """Continue a run to a deeper target, see `operations.extended`; returns its id.

        Raises:
            UserError: see there.
        """
        self._change(run_id, look(operations.extended, self._readable(run_id), target))
        return run_id

    def repeat(self, run_id: str, stage: str, changes: Mapping[str, object], look: Look = look_here) -> None:
        """Let a stage do its work anew with other settings, see `operations.repeated`.

        Raises:
            UserError: see there.
        """
        self._change(run_id, look(operations.repeated, self._readable(run_id), stage, changes))

    def _change(self, run_id: str, change: operations.Change) -> None:
        """Change a run, and queue it. It was looked at before, without the lock, for which others wait."""
        with self._locked():
            folder = self._readable(run_id)
            self._check_room_for(folder)
            operations.apply(folder, change)
            self._queue(folder, "resume")
        self.schedule_workers()

    # Workers

    def schedule_workers(self) -> list[str]:
        """Start workers for runs that wait, as far as there is room; returns their ids.

        Called whenever something changed, once a second, and at the start.

        Raises:
            UserError: a worker cannot be started; the run continues to wait.
        """
        with self._locked():
            return self._schedule()

    def _schedule(self) -> list[str]:
        self.children = [child for child in self.children if child.poll() is None]
        for run_id in list(self._lent):
            # A run is made under another name, and then renamed.
            if not any((self.root / f"{name}{run_id}").exists() for name in (MAKING, "")):
                self._lent.pop(run_id, None)
        for folder in self._folders():
            if (folder / UNDO).exists() and not worker.working(folder) and self._is_readable(folder):
                with suppress(UserError):  # the disk is full, or a worker came first: next time
                    run_directory.apply_pending_undo(folder)
        started: list[str] = []
        waiting = [f for f in self._waiting() if not worker.working(f)]
        room = self.workers - sum(map(worker.working, self._folders())) if waiting else 0
        refused: UserError | None = None
        for folder in waiting:
            if len(started) >= room:
                break
            try:
                queued = self._index.queued(folder)
                if queued is None:
                    continue
                lent = self._lent.get(folder.name, ("", None))
                self.children.append(self.where.start(folder, queued["command"], *lent))
                self._lent.pop(folder.name, None)
                (folder / QUEUED).unlink(missing_ok=True)
                started.append(folder.name)
            except UserError as error:  # of this run alone, perhaps: the others have their turn
                refused = refused or error
        if refused is not None:
            raise refused
        return started

    def continue_interrupted(self) -> list[str]:
        """Queue the runs whose worker was ended from outside, by a restart of the machine say; returns their
        ids. A run that gets no further so, time after time, is left to its owner."""
        with self._locked():
            found = []
            for folder in self._folders():
                command = read_launched(folder).get("command")
                if command is None or worker.working(folder) or run_directory.has_request(folder):
                    continue
                with suppress(UserError, FileNotFoundError):  # it cannot be read, or was just deleted
                    if self._index.summary(self._readable(folder.name))[1] != "interrupted":
                        continue
                    so_far = decided(folder)
                    before = _restarted(folder)
                    times = before["times"] + 1 if before["decided"] == so_far else 1
                    if times <= MOST_RESTARTS:
                        write(folder / RESTARTED, json.dumps({"decided": so_far, "times": times}))
                        self._queue(folder, command)
                        found.append(folder.name)
            return found

    def schedule_in_background(self, seconds: float = 1.0) -> threading.Thread:
        """Continue what a restart interrupted, schedule workers as long as this process lives, and clean
        every hour. From now on workers are forked from a process that has their libraries loaded.

        Raises:
            UserError: see `check_writable`.
        """
        self.check_writable()
        if self.where.alone:
            self.continue_interrupted()
        self.server = self.server or ForkServer(worker.WORKER_MODULES)
        self.server.warm_up()

        def schedule_and_clean() -> None:
            cleaned = -math.inf
            while True:
                try:
                    self.schedule_workers()
                    self.forget_thrown_away()
                    if time.monotonic() - cleaned > CLEAN_SECONDS:
                        cleaned = time.monotonic()
                        self.clean()
                except Exception:  # the next round may do better, and waiting runs must not hang
                    logging.getLogger(__name__).exception("workers could not be scheduled")
                time.sleep(seconds)

        thread = threading.Thread(target=schedule_and_clean, name="queue", daemon=True)
        thread.start()
        return thread

    # Downloads

    def packing(self, run_id: str) -> Packing:
        """How far the packing of the exported model into one file has come; it is started where it was not.

        Raises:
            UserError: there is no export.
        """
        return start_packing(*self._to_pack(run_id))

    def packed(self, run_id: str) -> Path:
        """The exported model as one file; waits until it is packed.

        Raises:
            UserError: there is no export, or the disk is full.
        """
        return zip_folder(*self._to_pack(run_id))

    def push(self, run_id: str, owner: str, **order: Any) -> None:
        """Push the exported model to the Hub for whoever asks, see `pushing`.

        Args:
            owner: the token of their browser.
            order: what `pushing.Order` takes, but for the folder.

        Raises:
            UserError: there is no export; else as `Pushes.start`.
        """
        folder, _ = self._to_pack(run_id)
        self.pushes.start((run_id, owner), Order(folder, **order))

    def _to_pack(self, run_id: str) -> tuple[Path, Path]:
        folder = self._readable(run_id)
        if not (folder / MODEL).is_dir():
            raise UserError("There is no exported model yet.")
        return folder / MODEL, folder / f"pruned-{run_id[:6]}.zip"

    def _check_room_for(self, folder: Path) -> None:
        """`check_room` for a run that exists, and may wait or run already."""
        if (folder / QUEUED).exists() or worker.working(folder):
            return
        self._check_room(self._owner_of(folder), 1)

    def _check_room(self, owner: str, more: int) -> None:
        """As `check_room`, for the hash of an owner's token."""
        set_, larger = visitors_limits(), limits(signed_in=True).runs_per_owner
        busy = [f for f in self._folders() if (f / QUEUED).exists() or worker.working(f)]
        own = sum(self._owner_of(f) == owner for f in busy)
        signing = or_sign_in(f"{larger}", own + more <= larger)
        for count, most, whose, stop in (
            (own, set_.runs_per_owner, "of yours", f", stop one{signing}" if signing else ", or stop one"),
            (len(busy), set_.runs_waiting, "of all visitors", ", or stop one"),
        ):
            if count + more > most:
                raise UserError(
                    f"{count} runs {whose} wait or run already, and at most {most} may. Wait until one has "
                    f"finished{stop}."
                )

    def _owner_of(self, folder: Path) -> str:
        """The hash of the token of a run's owner; empty where it has none, or that cannot be read."""
        try:
            return self._index.about(folder).get("owner", "")
        except UnreadableRun:
            return ""

    def _queue(self, folder: Path, command: str) -> None:
        """Let a run wait. Who signed in gives it larger limits for good, see `run_directory.hours_of`."""
        if (token := asking()) is not None:
            about = read_about(folder)
            signed_in = bool(token) or about.get("signed_in", False)
            if about.get("signed_in") is not signed_in:
                write(folder / ABOUT, json.dumps({**about, "signed_in": signed_in}))
        write(folder / QUEUED, json.dumps({"at": time.time(), "command": command}))
        self._lent[folder.name.removeprefix(MAKING)] = asking_token(), copy_context()

    def _halt(self, run_id: str, flag: str, ending: type[ev.Stopped] | type[ev.Paused]) -> None:
        with self._locked():
            folder = self._existing(run_id)
            self._lent.pop(run_id, None)
            if worker.working(folder):
                (folder / QUEUED).unlink(missing_ok=True)
                write(folder / flag, "")
                (folder / (PAUSE if flag == STOP else STOP)).unlink(missing_ok=True)
                return
            self._readable(run_id)
            waited = (folder / QUEUED).exists()
            drop_damaged_requests(folder)
            (folder / QUEUED).unlink(missing_ok=True)
            if waited:
                run_directory.record(folder, [ending(len(ev.removals(run_directory.read_events(folder))))])

    def _make(self, fill: Callable[[Path], None], owner: str, name: str) -> str:
        self.check_room(owner)
        run_id = secrets.token_hex(12)
        making = self.root / f"{MAKING}{run_id}"
        facts = {"name": name[:LONGEST_NAME], "owner": hashed(owner), "created": time.time()}
        try:
            fill(making)
            write(making / ABOUT, json.dumps(facts))
            self._queue(making, "resume")
            making.rename(self.root / run_id)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        self.count_use()
        self.schedule_workers()
        return run_id


def _restarted(folder: Path) -> dict:
    """What a run had "decided" when it last went on after a restart, and how many "times" it had then."""
    try:
        return read_object(folder / RESTARTED, decided=int, times=int)
    except (FileNotFoundError, UnreadableRun):
        return {"decided": -1, "times": 0}
