"""Many runs in a list, and throwing runs away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.runs import retention, run_directory
from pip_core.runs.queue import TABLES, UPLOADS, RunQueue

from ..studios import BLOCK, FINISHED, STARTED, ended, state

DAY = 86400.0


def measured(iteration: int, accuracy: float, perplexity: float) -> ev.Evaluated:
    right = round(10 * accuracy)
    task = ev.TaskResult("ten", accuracy, 0.1, 10, 0.0, "1" * right + "0" * (10 - right))
    return ev.Evaluated(iteration, 5, 99, perplexity, 1.0, 8, 256, accuracy, 0.1, (task,), 1.0)


def test_what_a_list_tells(studio, workers):
    told = (
        ev.Loading("loading x"),
        STARTED,
        measured(0, 0.5, 20.0),
        BLOCK,
        measured(1, 0.4, 30.0),
        ev.Exported("x", 1, 1, 0.0, 20, 1.0),
        FINISHED,
    )
    run_id = ended(studio, workers, *told, name="the one")
    (info,) = studio.listed("me")
    assert (info.id, info.name, info.state, info.recipe) == (run_id, "the one", "finished", Recipe())
    assert (info.iterations, info.planned, info.exported) == (1, 2, True)
    assert (info.parameters, info.dense_parameters) == (80, 99)
    assert info.kept == pytest.approx(0.8)
    assert (info.perplexity, info.dense_perplexity) == (30.0, 20.0)
    assert abs(info.created - time.time()) < 60
    studio.undo(run_id)
    (info,) = studio.listed("me")
    assert (info.iterations, info.exported, info.perplexity, info.parameters) == (0, False, 20.0, 99)


def test_a_list_is_newest_first_and_names_can_be_changed(studio, workers):
    first = studio.start(Recipe().replace(model="x/y-1b", target=0.3), "me")
    second = studio.start(Recipe(), "me", "mine")
    assert [i.id for i in studio.listed("me")] == [second, first]
    assert studio.listed("me")[1].name == "y-1b, 30% by pip-gate"
    studio.rename(first, "  a\n new   name ")
    assert studio.listed("me")[1].name == "a new name"
    studio.rename(first, "x" * 500)
    assert len(studio.listed("me")[1].name) == 80
    studio.rename(first, "")
    assert studio.listed("me")[1].name == "y-1b, 30% by pip-gate"
    assert studio.owns(first, "me")


def test_an_events_file_is_read_once(studio, workers, monkeypatch):
    ended(studio, workers, STARTED, FINISHED)
    assert studio.listed("me")[0].state == "finished"
    monkeypatch.setattr(ev, "from_line", lambda _: pytest.fail("read again"))
    monkeypatch.setattr(Recipe, "from_json", lambda _: pytest.fail("read again"))
    assert studio.listed("me")[0].state == "finished"


def test_a_run_of_another_version_is_listed_as_such(studio, workers):
    one = ended(studio, workers, FINISHED)
    (studio.folder(one) / run_directory.RECIPE).write_text('{"colour": 1}')
    two = ended(studio, workers, FINISHED)
    with (studio.folder(two) / run_directory.EVENTS).open("a") as file:
        file.write('{"event": "Later", "at": 1}\n')
    assert [(i.state, i.recipe) for i in studio.listed("me")] == [("failed", None)] * 2
    assert "another version" in studio.listed("me")[0].message
    assert "colour" in studio.listed("me")[1].message


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "ended from outside: by hand, by a restart, or by the system for want of memory"),
        ("error: an old one\n=== resume, now\n", "ended from outside"),
        ("=== resume, now\nerror: The disk is full. Make room.\n", "The disk is full. Make room."),
        (
            "=== resume, now\nTraceback (most recent call last):\n  x\nValueError: odd\n",
            "failed (ValueError: odd)",
        ),
        ("error: from before there were marks\n", "from before there were marks"),
    ],
)
def test_why_a_run_was_interrupted(studio, workers, log, message):
    run_id = ended(studio, workers, STARTED)
    (studio.folder(run_id) / run_directory.LOG).write_text(log)
    (info,) = studio.listed("me")
    assert info.state == "interrupted"
    assert message in info.message


def test_a_full_disk_tells_so_where_the_worker_could_not(studio, workers, monkeypatch):
    run_id = ended(studio, workers, STARTED)
    usage = run_directory.shutil.disk_usage(studio.root)
    monkeypatch.setattr(run_directory.shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert run_directory.why_interrupted(studio.folder(run_id)).startswith("The disk is full.")


def test_deleting(studio, workers):
    run_id = studio.start(Recipe(), "me")
    waiting = studio.start(Recipe(), "me")
    with pytest.raises(UserError, match="is being worked on"):
        studio.delete(run_id)
    studio.delete(waiting)
    workers.end(studio.folder(run_id), FINISHED)
    studio.delete(run_id)
    assert studio.listed(None) == []
    assert [p.name for p in studio.root.iterdir()] == ["studio.lock"]
    with pytest.raises(UserError, match="There is no such run"):
        studio.delete(run_id)


def test_a_run_that_cannot_be_made_leaves_nothing(studio, workers, monkeypatch):
    def full(*_):
        raise UserError("The disk is full.")

    monkeypatch.setattr(run_directory, "create", full)
    with pytest.raises(UserError, match="The disk is full"):
        studio.start(Recipe())
    monkeypatch.undo()
    assert studio.listed(None) == []
    assert not [p for p in studio.root.iterdir() if p.name != "studio.lock"]


def aged(studio: RunQueue, run_id: str, days: float, bytes_: int = 0) -> Path:
    folder = studio.folder(run_id)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_bytes(bytes(bytes_))
    then = time.time() - days * DAY
    os.utime(folder / run_directory.EVENTS, (then, then))
    return folder


@pytest.fixture
def various(studio, workers) -> dict[str, Path]:
    """Runs in every state, all of them ten days old and a megabyte large."""
    found = {
        "finished": ended(studio, workers, FINISHED),
        "stopped": ended(studio, workers, ev.Stopped(0)),
        "failed": ended(studio, workers, ev.Failed("No.")),
        "interrupted": ended(studio, workers, STARTED),
        "paused": ended(studio, workers, ev.Paused(0)),
        "running": studio.start(Recipe()),
        "waiting": studio.start(Recipe()),
    }
    workers.say(studio.folder(found["running"]), STARTED)
    folders = {name: aged(studio, run_id, 10, 10**6) for name, run_id in found.items()}
    assert {name: state(studio, f.name) for name, f in folders.items()} == {name: name for name in found}
    return folders


def test_cleaning_by_age(studio, various):
    assert studio.clean(11 * DAY) == []
    told = studio.clean(9 * DAY)
    assert len(told) == 4
    left = {name for name, folder in various.items() if folder.exists()}
    assert left == {"paused", "running", "waiting"}
    log = (studio.root / retention.LOG).read_text()
    assert log.count("thrown away: 'demo, 20% by pip-gate', ") == 4
    assert all(line in log for line in told)
    assert "10.0 days old, 1.0 MB" in log


def test_cleaning_by_size(studio, workers):
    old, middle, new = (ended(studio, workers, FINISHED) for _ in range(3))
    stopped = ended(studio, workers, ev.Stopped(0))
    for run_id, days in ((old, 3), (middle, 2), (new, 1), (stopped, 9)):
        aged(studio, run_id, days, 10**6)
    assert studio.clean(None, 5e6) == []
    (told,) = studio.clean(None, 3.5e6)
    assert "finished, to make room" in told
    assert [studio.folder(i) is None for i in (old, middle, new, stopped)] == [True, False, False, False]
    assert len(studio.clean(None, 1)) == 2
    # What was stopped has something left to do, however little room there is.
    assert [i.id for i in studio.listed("me")] == [stopped]


def test_what_can_be_made_again_goes_before_any_run(studio, workers):
    folder = aged(studio, ended(studio, workers, FINISHED), 1, 10**6)
    packed = folder / f"pruned-{folder.name[:6]}.zip"
    packed.write_bytes(bytes(10**6))
    assert studio.clean(None, 1.5e6)  # somebody may be downloading it
    assert not folder.exists()
    folder = aged(studio, ended(studio, workers, FINISHED), 1, 10**6)
    packed = folder / f"pruned-{folder.name[:6]}.zip"
    packed.write_bytes(bytes(10**6))
    os.utime(packed, (1000, 1000))
    (told,) = studio.clean(None, 1.5e6)
    assert "which can be packed again" in told
    assert folder.exists()
    assert not packed.exists()


def test_what_a_crash_left_behind_goes(studio, workers):
    done, running = ended(studio, workers, FINISHED), studio.start(Recipe())
    for parent in (studio.folder(done), studio.folder(running)):
        (parent / "model.partial").mkdir()
        (parent / "pruned-abc.zip.partial").touch()
    for name in (".making-abc", ".leaving-abc"):
        (studio.root / name).mkdir()
    assert studio.clean() == []
    for path in [*studio.root.rglob("*.partial"), *studio.root.glob(".*-abc")]:
        os.utime(path, (1000, 1000))
    assert len(studio.clean()) == 4
    assert {p.parent.name for p in studio.root.rglob("*.partial")} == {running}
    assert not list(studio.root.glob(".*-abc"))


def test_what_no_run_needs_goes_after_a_day(studio, workers):
    needed, unused = (studio.root / UPLOADS / name / "mine.txt" for name in ("aa" * 8, "bb" * 8))
    table = studio.root / TABLES / "abc" / "compared.csv"
    for path in (needed, unused, table):
        path.parent.mkdir(parents=True)
        path.write_text("text")
    studio.start(Recipe(calibration=str(needed)))
    for path, hours in ((needed, 30), (unused, 30), (table, 2)):
        os.utime(path.parent, (time.time() - hours * 3600,) * 2)
    assert len(studio.clean()) == 1
    assert needed.exists()
    assert table.exists()
    assert not unused.parent.exists()
    os.utime(table.parent, (1000, 1000))
    assert len(studio.clean()) == 1
    assert not table.exists()


def test_limits_from_the_environment(studio, various, monkeypatch):
    assert studio.clean() == []
    monkeypatch.setenv("PIP_STUDIO_KEEP_GB", "0.0065")
    assert len(studio.clean()) == 1
    monkeypatch.setenv("PIP_STUDIO_KEEP_DAYS", "9.5")
    assert len(studio.clean()) == 3
    for bad in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("PIP_STUDIO_KEEP_DAYS", bad)
        with pytest.raises(UserError, match="PIP_STUDIO_KEEP_DAYS must be a number above 0"):
            studio.clean()
