"""Real worker processes: queued, killed, paused, stopped, and nothing lost."""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.runs import files, run_directory, worker
from pip_core.runs.queue import RunQueue

from .. import tiny
from ..processes import HOLD, warm_server
from ..run_queues import state
from ..runs.test_run_directory import wait_for


@pytest.fixture
def living(tmp_path) -> Iterator[RunQueue]:
    """A queue whose workers do not outlive the test."""
    queue = RunQueue(tmp_path / "living", server=warm_server())
    yield queue
    for child in queue.children:
        child.kill()
        child.wait()


def until(queue: RunQueue, true: Callable[[], bool]) -> None:
    def tended() -> bool:
        queue.schedule_workers()
        return true()

    wait_for(tended, 120)


def scoring(queue: RunQueue, run_id: str, iteration: int) -> bool:
    progress = queue.summary(run_id)[0].progress
    return (
        isinstance(progress, ev.Progress) and progress.stage == "scoring" and progress.iteration == iteration
    )


@pytest.fixture
def hold(tmp_path) -> Path:
    """While this file lies there, every run waits in its second iteration."""
    found = tmp_path / HOLD
    found.touch()
    return found


def test_two_runs_one_worker_and_the_product(living, recipe):
    first, second = living.start(recipe, "me"), living.start(recipe, "me")
    most = 0

    def both_finished() -> bool:
        nonlocal most
        most = max(most, sum(worker.working(living.folder(i)) for i in (first, second)))
        return {state(living, first), state(living, second)} == {"finished"}

    until(living, both_finished)
    assert most == 1
    assert len(tiny.only(run_directory.read_events(living.folder(first)), ev.Started)) == 1
    one, two = (tiny.only(run_directory.read_events(living.folder(i)), ev.Removed) for i in (first, second))
    assert one == two
    made = living.packed(first)
    assert made.parent == living.folder(first)
    assert first not in made.name
    with zipfile.ZipFile(made) as archive:
        assert {"model/model.safetensors", "model/config.json"} <= set(archive.namelist())


def test_killed_while_starting_and_while_running_then_on(living, recipe, hold):
    run_id = living.start(recipe, "me")
    folder = living.folder(run_id)
    # Just launched, it has no lock yet.
    os.kill(files.read_launched(folder)["pid"], signal.SIGKILL)
    wait_for(lambda: state(living, run_id) == "interrupted")
    assert "ended from outside" in living.listed("me")[0].message
    assert living.schedule_workers() == []  # what was interrupted waits for its owner
    living.resume(run_id)
    until(living, lambda: scoring(living, run_id, 2))
    assert state(living, run_id) == "running"
    with pytest.raises(UserError, match="still running"):
        living.extend(run_id, 0.29)
    os.kill(files.read_launched(folder)["pid"], signal.SIGKILL)
    wait_for(lambda: state(living, run_id) == "interrupted")
    before = ev.removals(run_directory.read_events(folder))
    hold.unlink()
    # Another process of the page, since then.
    again = RunQueue(living.root, server=living.server)
    assert again.continue_interrupted() == [run_id]
    again.schedule_workers()
    living.children += again.children
    until(again, lambda: len(ev.removals(run_directory.read_events(folder))) == 2)
    assert ev.removals(run_directory.read_events(folder))[:1] == before
    until(again, lambda: state(again, run_id) == "finished")


def test_paused_undone_and_on_differently(living, recipe, hold):
    run_id = living.start(recipe, "me")
    folder = living.folder(run_id)
    until(living, lambda: scoring(living, run_id, 2))
    living.pause(run_id)
    until(living, lambda: state(living, run_id) == "paused")
    assert living.clean(0.0, 0.0) == []
    living.resume(run_id)
    until(living, lambda: scoring(living, run_id, 2))
    (first,) = ev.removals(run_directory.read_events(folder))
    living.undo(run_id)
    living.resume(run_id)
    until(living, lambda: ev.removals(run_directory.read_events(folder)) not in ([], [first]))
    (instead,) = ev.removals(run_directory.read_events(folder))
    assert instead.iteration == first.iteration == 1
    assert instead.blocks != first.blocks
    living.stop(run_id)
    until(living, lambda: state(living, run_id) == "stopped")
    wait_for(lambda: not (folder / files.LAUNCHED).exists())  # a moment after its last word
    hold.unlink()
    forked = living.fork(run_id, {"windows": 3, "method": "pip"}, 1, "me")
    until(living, lambda: state(living, forked) == "finished")
    found = run_directory.read_events(living.folder(forked))
    assert ev.removals(found)[0] == instead
    assert first.blocks[0] not in [b for r in ev.removals(found) for b in r.blocks]


def test_stopped_before_its_worker_has_said_a_word(living, recipe):
    run_id = living.start(recipe)
    living.stop(run_id)
    assert state(living, run_id) == "stopping"
    until(living, lambda: state(living, run_id) == "stopped")
    assert run_directory.read_events(living.folder(run_id))[-1] == ev.Stopped(0)
