"""Many runs below one folder: the queue, what is asked of workers, owners."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psutil
import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.runs import run_directory
from pip_core.runs.queue import RunQueue

from .. import tiny
from ..runs.test_run_directory import wait_for
from ..studios import BLOCK, FINISHED, Gone, ended, state


def test_as_many_at_once_as_there_are_workers(tmp_path, workers):
    studio = RunQueue(tmp_path, workers=2)
    ids = [studio.start(Recipe(), "me") for _ in range(4)]
    assert [name for name, _ in workers.launched] == ids[:2]
    assert [state(studio, i) for i in ids] == ["starting", "starting", "waiting", "waiting"]
    assert [studio.place(i) for i in ids] == [None, None, 1, 2]
    assert [i.place for i in studio.listed("me")] == [2, 1, None, None]
    assert studio.tend() == []
    workers.end(studio.folder(ids[1]), FINISHED)
    assert studio.tend() == [ids[2]]
    assert studio.place(ids[3]) == 1
    assert [state(studio, i) for i in ids] == ["starting", "finished", "starting", "waiting"]


def test_waiting_runs_are_found_again_after_a_restart(tmp_path, workers):
    before = RunQueue(tmp_path)
    first, second, third = (before.start(Recipe(), "me") for _ in range(3))
    again = RunQueue(tmp_path)
    assert again.tend() == []  # the worker of before is at it still
    assert again.place(third) == 2
    workers.end(again.folder(first), FINISHED)
    assert again.tend() == [second]
    assert before.tend() == []
    assert state(before, second) == "starting"


def test_two_pages_do_not_start_the_same_run(tmp_path, workers):
    studios = [RunQueue(tmp_path) for _ in range(2)]
    first = studios[0].start(Recipe())
    waiting = [studios[0].start(Recipe()) for _ in range(3)]
    workers.end(studios[0].folder(first), FINISHED)
    started: list[list[str]] = []
    threads = [threading.Thread(target=lambda s=s: started.append(s.tend())) for s in studios * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(i for ids in started for i in ids) == waiting[:1]
    assert [name for name, _ in workers.launched] == [first, waiting[0]]


def test_a_worker_that_is_launched_counts_before_it_holds_its_lock(studio, monkeypatch):
    """It loads its libraries first; meanwhile its process number tells that it is there."""
    me = psutil.Process()

    def launch(folder: Path, command: str) -> Gone:
        facts = {"pid": me.pid, "began": me.create_time(), "said": 0}
        run_directory.write(folder / run_directory.LAUNCHED, json.dumps(facts))
        return Gone()

    monkeypatch.setattr(run_directory, "launch", launch)
    first, second = studio.start(Recipe()), studio.start(Recipe())
    again = RunQueue(studio.root)
    assert again.tend() == []
    assert (state(again, first), state(again, second)) == ("starting", "waiting")
    assert not run_directory.alive(again.folder(first))
    # A process that has got the same number since is another one.
    facts = {"pid": me.pid, "began": me.create_time() - 60, "said": 0}
    run_directory.write(again.folder(first) / run_directory.LAUNCHED, json.dumps(facts))
    assert again.tend() == [second]
    assert state(again, first) == "interrupted"


def test_workers_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_WORKERS", "3")
    assert RunQueue(tmp_path).workers == 3
    monkeypatch.delenv("PIP_STUDIO_WORKERS")
    assert RunQueue(tmp_path).workers == 1
    for bad in ("many", "0", "-1"):
        monkeypatch.setenv("PIP_STUDIO_WORKERS", bad)
        with pytest.raises(UserError, match="PIP_STUDIO_WORKERS must be a whole number, 1 or more"):
            RunQueue(tmp_path)


def test_a_worker_that_cannot_be_started_leaves_its_run_waiting(studio, monkeypatch):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(run_directory.subprocess, "Popen", refuse)
    with pytest.raises(UserError, match="No worker could be started: Resource temporarily unavailable"):
        studio.start(Recipe(), "me")
    (info,) = studio.listed("me")
    assert (info.state, info.place) == ("waiting", 1)


def test_tending_in_the_background(studio, workers, monkeypatch):
    cleaned = []
    monkeypatch.setattr(RunQueue, "clean", lambda self: cleaned.append(self))
    first, second = studio.start(Recipe()), studio.start(Recipe())
    studio.keep_tending(0.01)
    workers.end(studio.folder(first), FINISHED)
    wait_for(lambda: (second, "resume") in workers.launched)
    assert cleaned == [studio]


@pytest.mark.parametrize(
    ("ask", "flag", "ending"), [("stop", "stop", "stopped"), ("pause", "pause", "paused")]
)
def test_out_of_the_queue(studio, workers, ask, flag, ending):
    studio.start(Recipe())
    waiting = studio.start(Recipe())
    getattr(studio, ask)(waiting)
    assert state(studio, waiting) == ending
    assert studio.place(waiting) is None
    assert not (studio.folder(waiting) / flag).exists()
    studio.resume(waiting)
    assert state(studio, waiting) == "waiting"


@pytest.mark.parametrize(("ask", "flag", "other"), [("stop", "stop", "pause"), ("pause", "pause", "stop")])
def test_a_worker_is_asked(studio, workers, ask, flag, other):
    run_id = studio.start(Recipe())
    folder = studio.folder(run_id)
    assert state(studio, run_id) == "starting"
    getattr(studio, other)(run_id)
    getattr(studio, ask)(run_id)
    assert (folder / flag).exists()
    assert not (folder / other).exists()
    workers.say(folder, ev.Loading("loading x"))
    assert state(studio, run_id) == "stopping"


def test_a_run_that_is_stopping_goes_on_when_it_has_stopped(studio, workers):
    run_id = studio.start(Recipe())
    folder = studio.folder(run_id)
    workers.say(folder, ev.Loading("loading x"))
    studio.stop(run_id)
    studio.resume(run_id)
    assert state(studio, run_id) == "stopping"
    assert len(workers.launched) == 1
    workers.end(folder, ev.Stopped(0))
    assert state(studio, run_id) == "waiting"
    assert studio.tend() == [run_id]
    assert not (folder / run_directory.STOP).exists()
    studio.resume(run_id)  # goes on already
    assert studio.place(run_id) is None


def test_what_has_ended_is_not_stopped_nor_a_finished_run_resumed(studio, workers):
    run_id = ended(studio, workers, FINISHED)
    before = run_directory.read_events(studio.folder(run_id))
    studio.stop(run_id)
    studio.pause(run_id)
    studio.resume(run_id)
    assert run_directory.read_events(studio.folder(run_id)) == before
    assert state(studio, run_id) == "finished"


def test_export_now(studio, workers):
    run_id = studio.start(Recipe())
    folder = studio.folder(run_id)
    with pytest.raises(UserError, match="stop or pause it first"):
        studio.export_now(run_id)
    workers.end(folder, ev.Stopped(0))
    with pytest.raises(UserError, match="Nothing has been removed yet"):
        studio.export_now(run_id)
    workers.say(folder, BLOCK, ev.Stopped(1))
    studio.export_now(run_id)
    assert workers.launched[-1] == (run_id, "export")


def test_undo_of_a_run_that_nobody_works_on_is_done_at_once(studio, workers):
    run_id = ended(studio, workers, BLOCK, FINISHED)
    studio.undo(run_id)
    assert run_directory.read_events(studio.folder(run_id))[-2:] == [
        ev.RemovalUndone(1, BLOCK.units),
        ev.Stopped(0),
    ]
    assert state(studio, run_id) == "stopped"
    with pytest.raises(UserError, match="Nothing has been removed yet"):
        studio.undo(run_id)


def test_extend_and_fork_wait_for_a_worker(studio, workers, recipe, monkeypatch):
    run_id = studio.start(recipe, "me", "mine")
    workers.end(studio.folder(run_id), BLOCK, FINISHED)
    other = studio.start(recipe)
    assert studio.extend(run_id, 0.29) == run_id
    assert (studio.place(run_id), studio.story(run_id)[1]) == (1, "waiting")
    forked = studio.fork(run_id, {"seed": 3}, 1, "me")
    assert studio.place(forked) == 2
    assert studio.listed("me")[0].name == "mine, forked"
    assert tiny.asked_recipe(studio.folder(forked)) == recipe.replace(target=0.29, seed=3)
    workers.end(studio.folder(other), FINISHED)
    assert studio.tend() == [run_id]


def test_undo_that_a_killed_worker_left_is_seen_to(studio, workers):
    run_id = studio.start(Recipe())
    folder = studio.folder(run_id)
    workers.say(folder, BLOCK)
    studio.undo(run_id)
    assert state(studio, run_id) == "stopping"
    assert not tiny.only(run_directory.read_events(folder), ev.RemovalUndone)
    workers.end(folder)
    studio.tend()
    assert tiny.only(run_directory.read_events(folder), ev.RemovalUndone)
    assert state(studio, run_id) == "stopped"


def test_a_list_shows_only_ones_own(studio, workers):
    mine = studio.start(Recipe(), "me", "first")
    theirs = studio.start(Recipe(), "you")
    nobodys = studio.start(Recipe())
    assert [i.id for i in studio.listed("me")] == [mine]
    assert [i.id for i in studio.listed("you")] == [theirs]
    assert studio.listed("") == studio.listed("somebody else") == []
    assert {i.id for i in studio.listed(None)} == {mine, theirs, nobodys}
    assert (studio.owns(mine, "me"), studio.owns(mine, "you")) == (True, False)
    assert not studio.owns(nobodys, "")
    # What is nobody's may be steered by whoever knows of it; what is somebody's by them alone.
    assert (studio.steers(mine, "me"), studio.steers(mine, "you")) == (True, False)
    assert studio.steers(nobodys, "you")
    assert not studio.steers("0" * 24, "me")
    # Who has the id sees the run.
    assert studio.story(theirs)[1] == "waiting"


def test_a_token_is_not_kept(studio, workers):
    run_id = studio.start(Recipe(), "a-secret-token")
    kept = "".join(p.read_text() for p in studio.folder(run_id).iterdir())
    assert "a-secret-token" not in kept


def test_ids_cannot_be_guessed(studio, workers):
    ids = {studio.start(Recipe()) for _ in range(20)}
    assert len(ids) == 20
    assert all(len(i) == 24 for i in ids)
    one = ids.pop()
    assert studio.folder(one) == studio.root / one
    assert studio.folder(one[:-1]) is None


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
def test_ids_lead_nowhere_else(studio, run_id):
    run_directory.create(studio.root.parent / "outside", Recipe())
    run_directory.create(studio.root / "inside", Recipe())
    run_directory.create(studio.root / ("A" * 24), Recipe())
    assert studio.folder(run_id) is None
    assert studio.story(run_id)[1] == "none"
    for change in (studio.stop, studio.pause, studio.resume, studio.undo, studio.delete, studio.export_now):
        with pytest.raises(UserError, match="There is no such run"):
            change(run_id)
