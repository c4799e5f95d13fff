"""Many runs below one folder: the queue, what is asked of workers, owners."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.fork_server import ForkServer
from pip_core.core.recipe import Recipe
from pip_core.runs import files, run_directory, worker
from pip_core.runs.queue import RunQueue

from .. import tiny
from ..run_queues import BLOCK, FINISHED, STARTED, Gone, ended, state
from ..runs.test_run_directory import wait_for


def test_as_many_at_once_as_there_are_workers(tmp_path, workers):
    queue = RunQueue(tmp_path, workers=2)
    ids = [queue.start(Recipe(), "me") for _ in range(4)]
    assert [name for name, _ in workers.launched] == ids[:2]
    assert [state(queue, i) for i in ids] == ["starting", "starting", "waiting", "waiting"]
    assert [queue.place(i) for i in ids] == [None, None, 1, 2]
    yours = queue.start(Recipe(), "you")
    assert [queue.place(i) for i in (*ids, yours)] == [None, None, 1, 3, 2]  # each owner has their turn
    assert [i.place for i in queue.listed("me")] == [3, 1, None, None]
    assert queue.schedule_workers() == []
    workers.end(queue.folder(ids[1]), FINISHED)
    assert queue.schedule_workers() == [ids[2]]
    assert queue.place(yours) == 2
    assert queue.used() == {time.strftime("%Y-%m-%d", time.gmtime()): 5}
    assert [state(queue, i) for i in ids] == ["starting", "finished", "starting", "waiting"]


def test_waiting_runs_are_found_again_after_a_restart(tmp_path, workers):
    before = RunQueue(tmp_path)
    first, second, third = (before.start(Recipe(), "me") for _ in range(3))
    again = RunQueue(tmp_path)
    assert again.schedule_workers() == []  # the worker of before is at it still
    assert again.place(third) == 2
    workers.end(again.folder(first), FINISHED)
    assert again.schedule_workers() == [second]
    assert before.schedule_workers() == []
    assert state(before, second) == "starting"


def test_two_pages_do_not_start_the_same_run(tmp_path, workers):
    queues = [RunQueue(tmp_path) for _ in range(2)]
    first = queues[0].start(Recipe())
    waiting = [queues[0].start(Recipe()) for _ in range(3)]
    workers.end(queues[0].folder(first), FINISHED)
    started: list[list[str]] = []
    threads = [threading.Thread(target=lambda s=s: started.append(s.schedule_workers())) for s in queues * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(i for ids in started for i in ids) == waiting[:1]
    assert [name for name, _ in workers.launched] == [first, waiting[0]]


def test_a_worker_that_is_launched_counts_before_it_holds_its_lock(queue, monkeypatch):
    """It loads its libraries first; meanwhile its process number tells that it is there."""
    me = psutil.Process()

    def launch(folder: Path, command: str, server: None, token: str) -> Gone:
        facts = {"pid": me.pid, "began": me.create_time(), "said": 0}
        files.write(folder / files.LAUNCHED, json.dumps(facts))
        return Gone()

    monkeypatch.setattr(worker, "launch", launch)
    first, second = queue.start(Recipe()), queue.start(Recipe())
    again = RunQueue(queue.root)
    assert again.schedule_workers() == []
    assert (state(again, first), state(again, second)) == ("starting", "waiting")
    assert not worker.alive(again.folder(first))
    # A process that has got the same number since is another one.
    facts = {"pid": me.pid, "began": me.create_time() - 60, "said": 0}
    files.write(again.folder(first) / files.LAUNCHED, json.dumps(facts))
    assert again.schedule_workers() == [second]
    assert state(again, first) == "interrupted"


def test_workers_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_WORKERS", "3")
    assert RunQueue(tmp_path).workers == 3
    monkeypatch.delenv("PIP_STUDIO_WORKERS")
    assert RunQueue(tmp_path).workers == 1
    for bad in ("many", "0", "-1"):
        monkeypatch.setenv("PIP_STUDIO_WORKERS", bad)
        with pytest.raises(UserError, match="PIP_STUDIO_WORKERS"):
            RunQueue(tmp_path)


def test_a_worker_that_cannot_be_started_leaves_its_run_waiting(queue, monkeypatch):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(worker.subprocess, "Popen", refuse)
    with pytest.raises(UserError, match="Resource temporarily unavailable"):
        queue.start(Recipe(), "me")
    (info,) = queue.listed("me")
    assert (info.state, info.place) == ("waiting", 1)


def test_tending_in_the_background(queue, workers, monkeypatch):
    cleaned = []
    monkeypatch.setattr(RunQueue, "clean", lambda self: cleaned.append(self))
    first, second = queue.start(Recipe()), queue.start(Recipe())
    queue.server = ForkServer(())
    queue.schedule_in_background(0.01)
    workers.end(queue.folder(first), FINISHED)
    wait_for(lambda: (second, "resume") in workers.launched)
    wait_for(lambda: cleaned == [queue])


def test_after_a_restart_runs_go_on_until_they_get_no_further(queue, workers):
    queue.workers = 2
    run_id, stopping = queue.start(Recipe()), queue.start(Recipe())

    def killed(which: str, *said) -> None:
        folder = queue.folder(which)
        workers.end(folder, *said)
        facts = {"pid": 2**22 + 1, "began": 0.0, "said": 0, "command": "resume"}
        files.write(folder / files.LAUNCHED, json.dumps(facts))

    def restarted() -> list[str]:
        again = RunQueue(queue.root, workers=2)
        found = again.continue_interrupted()
        assert again.schedule_workers() == found
        return found

    files.write(queue.folder(stopping) / files.STOP, "")
    killed(stopping, STARTED)
    killed(run_id, STARTED, BLOCK)
    for said in ((), (), (BLOCK,), (), (), ()):
        assert restarted() == [run_id]
        assert restarted() == []
        killed(run_id, *said)
    assert restarted() == []
    assert state(queue, run_id) == "interrupted"


@pytest.mark.parametrize(
    ("ask", "flag", "ending"), [("stop", "stop", "stopped"), ("pause", "pause", "paused")]
)
def test_out_of_the_queue(queue, workers, ask, flag, ending):
    queue.start(Recipe())
    waiting = queue.start(Recipe())
    getattr(queue, ask)(waiting)
    assert state(queue, waiting) == ending
    assert queue.place(waiting) is None
    assert not (queue.folder(waiting) / flag).exists()
    queue.resume(waiting)
    assert state(queue, waiting) == "waiting"


@pytest.mark.parametrize(("ask", "flag", "other"), [("stop", "stop", "pause"), ("pause", "pause", "stop")])
def test_a_worker_is_asked(queue, workers, ask, flag, other):
    run_id = queue.start(Recipe())
    folder = queue.folder(run_id)
    assert state(queue, run_id) == "starting"
    getattr(queue, other)(run_id)
    getattr(queue, ask)(run_id)
    assert (folder / flag).exists()
    assert not (folder / other).exists()
    workers.say(folder, ev.Loading("loading x"))
    assert state(queue, run_id) == "stopping"


def test_a_run_that_is_stopping_goes_on_when_it_has_stopped(queue, workers):
    run_id = queue.start(Recipe())
    folder = queue.folder(run_id)
    workers.say(folder, ev.Loading("loading x"))
    queue.stop(run_id)
    queue.resume(run_id)
    assert state(queue, run_id) == "stopping"
    assert len(workers.launched) == 1
    workers.end(folder, ev.Stopped(0))
    assert state(queue, run_id) == "waiting"
    assert queue.schedule_workers() == [run_id]
    assert not (folder / files.STOP).exists()
    queue.resume(run_id)  # goes on already
    assert queue.place(run_id) is None


def test_what_has_ended_is_not_stopped_nor_a_finished_run_resumed(queue, workers):
    run_id = ended(queue, workers, FINISHED)
    before = run_directory.read_events(queue.folder(run_id))
    queue.stop(run_id)
    queue.pause(run_id)
    queue.resume(run_id)
    assert run_directory.read_events(queue.folder(run_id)) == before
    assert state(queue, run_id) == "finished"


def test_export_now(queue, workers):
    run_id = queue.start(Recipe())
    folder = queue.folder(run_id)
    with pytest.raises(UserError, match="stop or pause it first"):
        queue.export_now(run_id)
    workers.end(folder, ev.Stopped(0))
    with pytest.raises(UserError, match="Nothing has been removed yet"):
        queue.export_now(run_id)
    workers.say(folder, BLOCK, ev.Stopped(1))
    queue.export_now(run_id)
    assert workers.launched[-1] == (run_id, "export")


def test_undo_of_a_run_that_nobody_works_on_is_done_at_once(queue, workers):
    run_id = ended(queue, workers, BLOCK, FINISHED)
    queue.undo(run_id)
    assert run_directory.read_events(queue.folder(run_id))[-2:] == [
        ev.RemovalUndone(1, BLOCK.units),
        ev.Stopped(0),
    ]
    assert state(queue, run_id) == "stopped"
    with pytest.raises(UserError, match="Nothing has been removed yet"):
        queue.undo(run_id)


def test_extend_and_fork_wait_for_a_worker(queue, workers, recipe, monkeypatch):
    run_id = queue.start(recipe, "me", "mine")
    workers.end(queue.folder(run_id), BLOCK, FINISHED)
    other = queue.start(recipe)
    assert queue.extend(run_id, 0.29) == run_id
    assert (queue.place(run_id), queue.summary(run_id)[1]) == (1, "waiting")
    forked = queue.fork(run_id, {"seed": 3}, 1, "me")
    assert queue.place(forked) == 2
    assert queue.listed("me")[0].name == "mine, branch"
    assert tiny.asked_recipe(queue.folder(forked)) == recipe.replace(target=0.29, seed=3)
    workers.end(queue.folder(other), FINISHED)
    assert queue.schedule_workers() == [run_id]


def test_a_name_follows_the_recipe_unless_it_was_given(queue, workers, recipe):
    run_id = queue.start(recipe, "me")
    workers.end(queue.folder(run_id), BLOCK, FINISHED)
    queue.extend(run_id, 0.29)
    forked = queue.fork(run_id, {"method": "random"}, 1, "me")
    names = {i.id: i.name for i in queue.listed("me")}
    assert (names[run_id].split(", ")[1], names[forked].split(", ")[1]) == (
        f"29 % by {recipe.method}",
        "29 % by random",
    )
    queue.rename(forked, "mine")
    again = queue.fork(queue.fork(forked, {}, 1, "me"), {}, 1, "me")
    assert {i.id: i.name for i in queue.listed("me")}[again] == "mine, branch"
    queue.rename(again, "")
    assert "random" in {i.id: i.name for i in queue.listed("me")}[again]


def test_a_run_exported_early_can_be_resumed(queue, workers):
    run_id = queue.start(Recipe())
    workers.end(queue.folder(run_id), BLOCK, replace(FINISHED, early=True))
    assert state(queue, run_id) == "finished"
    assert queue.summary(run_id)[0].early
    queue.resume(run_id)
    assert workers.launched[-1] == (run_id, "resume")
    workers.end(queue.folder(run_id), FINISHED)
    launched = list(workers.launched)
    queue.resume(run_id)
    assert workers.launched == launched


def test_undo_that_a_killed_worker_left_is_seen_to(queue, workers):
    run_id = queue.start(Recipe())
    folder = queue.folder(run_id)
    workers.say(folder, BLOCK)
    queue.undo(run_id)
    assert state(queue, run_id) == "stopping"
    assert not tiny.only(run_directory.read_events(folder), ev.RemovalUndone)
    workers.end(folder)
    queue.schedule_workers()
    assert tiny.only(run_directory.read_events(folder), ev.RemovalUndone)
    assert state(queue, run_id) == "stopped"


def test_a_list_shows_only_ones_own(queue, workers):
    mine = queue.start(Recipe(), "me", "first")
    theirs = queue.start(Recipe(), "you")
    nobodys = queue.start(Recipe())
    assert [i.id for i in queue.listed("me")] == [mine]
    assert [i.id for i in queue.listed("you")] == [theirs]
    assert queue.listed("") == queue.listed("somebody else") == []
    assert {i.id for i in queue.everybodys()} == {mine, theirs, nobodys}
    assert (queue.owns(mine, "me"), queue.owns(mine, "you")) == (True, False)
    assert not queue.owns(nobodys, "")
    # What is nobody's may be steered by whoever knows of it; what is somebody's by them alone.
    assert (queue.may_change(mine, "me"), queue.may_change(mine, "you")) == (True, False)
    assert queue.may_change(nobodys, "you")
    assert not queue.may_change("0" * 24, "me")
    # Who has the id sees the run.
    assert queue.summary(theirs)[1] == "waiting"


def test_a_token_is_not_kept(queue, workers):
    run_id = queue.start(Recipe(), "a-secret-token")
    kept = "".join(p.read_text() for p in queue.folder(run_id).iterdir())
    assert "a-secret-token" not in kept


def test_ids_cannot_be_guessed(queue, workers):
    ids = {queue.start(Recipe()) for _ in range(20)}
    assert len(ids) == 20
    assert all(len(i) == 24 for i in ids)
    one = ids.pop()
    assert queue.folder(one) == queue.root / one
    assert queue.folder(one[:-1]) is None


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        ".",
        "..",
        "../outside",
        "inside/../../outside",
        "/etc",
        "run id",
        "x\0y",
        "..\\a",
        "inside",
        "0" * 24,
        "A" * 24,
        "0" * 24 + "\n",
        None,
        ["0" * 24],
    ],
)
def test_ids_lead_nowhere_else(queue, run_id):
    run_directory.create(queue.root.parent / "outside", Recipe())
    run_directory.create(queue.root / "inside", Recipe())
    run_directory.create(queue.root / ("A" * 24), Recipe())
    assert queue.folder(run_id) is None
    assert queue.summary(run_id)[1] == "none"
    for change in (queue.stop, queue.pause, queue.resume, queue.undo, queue.delete, queue.export_now):
        with pytest.raises(UserError, match="There is no such run"):
            change(run_id)


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(UserError, match="PIP_STUDIO_RUNS names another"):
            RunQueue(root)
    queue = RunQueue(tmp_path)
    queue.check_writable()

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(UserError, match="no permission"):
        queue.check_writable()
