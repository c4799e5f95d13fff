"""A run that is damaged, or of a newer version, hurts itself alone and is never written."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import FORMAT, Recipe
from pip_core.core.units import Units
from pip_core.runs import files, operations, run_directory
from pip_core.runs.queue import RunQueue
from pip_core.runs.store import UPLOADS

from ..run_queues import BLOCK, FINISHED, STARTED, Workers, ended, state

DAMAGES = {
    "empty": b"",
    "cut off": b'{"nam',
    "binary": bytes(range(256)),
    "a number": b"17",
    "a list": b"[1, 2]",
    "the wrong fields": b'{"name": 3, "at": "now", "command": 5, "model": 7, "owner": [], "created": "x"}',
}
SMALL = (files.RECIPE, files.ABOUT, files.QUEUED, files.UNDO, files.LAUNCHED)
# Half a line at the end is no damage: it is still being written.
BROKEN_EVENTS = {
    "binary": bytes(range(128, 256)) + b"\n",
    "no JSON": b"{torn}\n",
    "a number": b"17\n",
    "a list": b"[]\n",
    "no event": b'{"at": 1}\n',
}


def damage(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def check_that_others_go_on(queue: RunQueue, workers: Workers, bad: str) -> None:
    """Lists, queue and cleaning work, and the bad run is shown with a sentence."""
    good = queue.start(Recipe(), "me", "good")
    assert good in [i.id for i in queue.listed("me")]
    assert {bad, good} <= {i.id for i in queue.everybodys()}
    assert queue.clean(1e9, 1e15) == []
    assert (good, "resume") in workers.launched
    summary, found = queue.summary(bad)
    (info,) = [i for i in queue.everybodys() if i.id == bad]
    assert info.state == found
    if found in ("damaged", "newer"):
        assert info.message == summary.ending.message
        assert info.message.endswith(".")
    workers.end(queue.folder(good), FINISHED)
    assert state(queue, good) == "finished"


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_small_file_hurts_its_run_alone(queue, workers, name, what):
    bad = ended(queue, workers, STARTED, BLOCK, ev.Stopped(1))
    damage(queue.folder(bad), name, DAMAGES[what])
    before = contents(queue.folder(bad))
    check_that_others_go_on(queue, workers, bad)
    repaired = name == files.LAUNCHED  # only says which process was launched last
    number = name == files.UNDO and what == "a number"  # is what that file holds
    expected = "damaged"
    if repaired or number:
        expected = "stopped"
    assert state(queue, bad) == expected
    if expected == "damaged":
        assert contents(queue.folder(bad)) == before
        assert [i for i in workers.launched if i[0] == bad] == [(bad, "resume")]  # when it was made


@pytest.mark.parametrize("what", BROKEN_EVENTS)
def test_damaged_events_hurt_their_run_alone(queue, workers, what):
    bad = ended(queue, workers, STARTED, BLOCK)
    with (queue.folder(bad) / files.EVENTS).open("ab") as file:
        file.write(BROKEN_EVENTS[what])
    check_that_others_go_on(queue, workers, bad)
    assert state(queue, bad) == "damaged"
    assert len(queue.summary(bad)[0].removals) == 1  # what can be read is shown
    before = contents(queue.folder(bad))
    for change in (queue.resume, queue.undo, queue.stop, queue.pause, queue.export_now):
        with pytest.raises(UserError, match="damaged"):
            change(bad)
    with pytest.raises(UserError, match="damaged"):
        list(run_directory.work(queue.folder(bad)))
    assert contents(queue.folder(bad)) == before
    queue.delete(bad)


@pytest.mark.parametrize("name", [files.RECIPE, files.EVENTS])
def test_a_missing_file_of_a_queued_run_does_not_stall_the_queue(queue, workers, name):
    first = queue.start(Recipe(), "me")
    bad = queue.start(Recipe(), "me")
    last = queue.start(Recipe(), "me")
    (queue.folder(bad) / name).unlink()
    workers.end(queue.folder(first), FINISHED)
    assert queue.schedule_workers() == [last]
    assert state(queue, bad) == "damaged"
    assert queue.place(bad) is None
    (info,) = [i for i in queue.listed("me") if i.id == bad]
    assert name in info.message
    with pytest.raises(UserError):
        queue.resume(bad)


def test_a_damaged_request_is_dropped_by_resume(queue, workers):
    run_id = ended(queue, workers, STARTED, BLOCK, ev.Stopped(1))
    for name in (files.UNDO, files.QUEUED):
        damage(queue.folder(run_id), name, b"")
    assert queue.schedule_workers() == []
    assert state(queue, run_id) == "damaged"
    queue.resume(run_id)
    assert workers.launched[-1] == (run_id, "resume")
    assert not (queue.folder(run_id) / files.UNDO).exists()


def test_nobody_owns_a_run_whose_owner_cannot_be_read(queue, workers):
    run_id = ended(queue, workers, FINISHED)
    damage(queue.folder(run_id), files.ABOUT, b"")
    assert not queue.owns(run_id, "me")
    assert not queue.may_change(run_id, "me")
    assert queue.listed("me") == []


def newer_recipe(folder: Path) -> None:
    values = json.loads((folder / files.RECIPE).read_text())
    (folder / files.RECIPE).write_text(json.dumps({**values, "format": FORMAT + 1, "colour": "red"}))


def newer_event(folder: Path) -> None:
    with (folder / files.EVENTS).open("a") as file:
        file.write('{"event": "Recovered", "at": 1, "steps": 3}\n')


@pytest.mark.parametrize("make_newer", [newer_recipe, newer_event])
def test_a_run_of_a_newer_version_is_shown_and_never_altered(queue, workers, make_newer):
    run_id = ended(queue, workers, STARTED, BLOCK, FINISHED)
    folder = queue.folder(run_id)
    (folder / "model").mkdir()
    (folder / "model.partial").mkdir()
    os.utime(folder / "model.partial", (1000, 1000))
    make_newer(folder)
    before, launched = contents(folder), list(workers.launched)
    check_that_others_go_on(queue, workers, run_id)
    summary, found = queue.summary(run_id)
    assert (found, len(summary.removals)) == ("newer", 1)
    changes = [queue.resume, queue.undo, queue.stop, queue.pause, queue.export_now, queue.packing]
    changes += [lambda i: queue.extend(i, 0.4), lambda i: queue.rename(i, "x"), lambda i: queue.fork(i, {})]
    changes += [lambda i: operations.undo(folder), lambda i: list(run_directory.work(folder))]
    changes += [lambda i: run_directory.record(folder, [ev.Stopped(1)])]
    for change in changes:
        with pytest.raises(UserError, match="newer version"):
            change(run_id)
    damage(folder, files.QUEUED, b'{"at": 1, "command": "resume"}')
    damage(folder, files.UNDO, b"1")
    assert run_id not in queue.schedule_workers()
    queue.clean(0.0, 0.0)
    assert (folder / "model.partial").is_dir()
    (folder / files.QUEUED).unlink()
    (folder / files.UNDO).unlink()
    assert contents(folder) == before
    assert [i for i in workers.launched if i[0] == run_id] == [i for i in launched if i[0] == run_id]


def test_an_upload_that_a_damaged_recipe_names_is_kept(queue, workers):
    upload = queue.root / UPLOADS / ("ab" * 8) / "mine.txt"
    upload.parent.mkdir(parents=True)
    upload.write_text("text")
    run_id = ended(queue, workers, FINISHED)
    damage(queue.folder(run_id), files.RECIPE, b"\xff" + str(upload).encode())
    os.utime(upload.parent, (1000, 1000))
    queue.clean()
    assert upload.exists()


def test_threads_draw_a_run_while_it_goes_on(queue, workers):
    """What is handed out never changes."""
    run_id = queue.start(Recipe())
    folder, faults, done = queue.folder(run_id), [], threading.Event()
    workers.say(folder, STARTED)

    def draw() -> None:
        try:
            while not done.is_set():
                summary, _ = queue.summary(run_id)
                removals, scored = len(summary.removals), len(summary.scored)
                for _ in range(50):
                    assert sum(1 for _ in summary.removals) == removals
                    assert len([s for s in summary.scored.values() if s]) == scored
                    assert len(summary.sentences) >= removals
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 16):
        workers.say(
            folder,
            ev.Scored(number, "blocks", (0.5, 0.8), 1.0),
            ev.Removed(number, (Units("blocks", number, (0,)),), 0.5, 0.25, 80, "some"),
        )
        queue.summary(run_id)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(queue.summary(run_id)[0].removals) == 15


def test_a_crash_between_event_and_recipe_of_an_extension_is_healed(finished, monkeypatch):
    """`extend` records the event first; the next worker takes the target from it."""

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(operations, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        operations.extend(finished, 0.29)
    monkeypatch.undo()
    assert run_directory.recipe_of(finished).target == 0.2
    work = run_directory.work(finished, export=False)
    started = next(e for e in work if isinstance(e, ev.Started))
    work.close()
    assert (started.target, started.planned) == (0.29, 3)
    assert run_directory.recipe_of(finished).target == 0.29
