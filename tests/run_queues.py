"""What tests of many runs share: workers that are none, and runs that have ended."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.core.units import Units
from pip_core.runs import files, worker
from pip_core.runs.queue import RunQueue

BLOCK = ev.Removed(1, (Units("blocks", 2, (0,)),), 0.5, 0.25, 80, "1 of 5 blocks")
FINISHED = ev.Finished(1, "1 of 5 blocks", 80, 1.0, 1)
STARTED = ev.Started(
    "a/b", "folder", "llama", 5, 99, "pip", ("blocks",), 0.2, "2 of 5 blocks", 2, 0.2, "f", "cpu"
)


class Workers:
    """Stands in for worker processes: what was launched, each holding its run's lock."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.launched: list[tuple[str, str]] = []
        self.tokens: dict[str, str] = {}
        self._locks: dict[str, FileLock] = {}
        patch.setattr(worker, "launch", self._launch)

    def _launch(self, folder: Path, command: str, server: None = None, token: str = "") -> threading.Thread:
        self.tokens[folder.name] = token
        for name in (files.STOP, files.PAUSE):
            (folder / name).unlink(missing_ok=True)
        self.launched.append((folder.name, command))
        self._locks[folder.name] = FileLock(folder / files.LOCK)
        self._locks[folder.name].acquire()
        return Gone()

    def say(self, folder: Path, *events: ev.Event) -> None:
        with (folder / files.EVENTS).open("a") as file:
            file.writelines(ev.to_line(e, time.time()) + "\n" for e in events)

    def end(self, folder: Path, *events: ev.Event) -> None:
        """Say something and be gone."""
        self.say(folder, *events)
        self._locks.pop(folder.name).release()


class Gone:
    """A child that is not there to be waited for."""

    def poll(self) -> int:
        return 0


def state(queue: RunQueue, run_id: str) -> str:
    return queue.summary(run_id)[1]


def ended(queue: RunQueue, workers: Workers, *events: ev.Event, owner: str = "me", name: str = "") -> str:
    """A run that was worked on and ended."""
    run_id = queue.start(Recipe(), owner, name)
    workers.end(queue.folder(run_id), *events)
    return run_id
