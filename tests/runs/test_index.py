"""Many runs in a list, and throwing runs away."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.runs import files, retention, run_directory, worker
from pip_core.runs.index import default_name
from pip_core.runs.queue import RunQueue
from pip_core.runs.store import TABLES, UPLOADS

from ..run_queues import BLOCK, FINISHED, STARTED, ended, state

DAY = 86400.0


def measured(iteration: int, accuracy: float, perplexity: float) -> ev.Evaluated:
    right = round(10 * accuracy)
    task = ev.TaskResult("ten", accuracy, 0.1, 10, 0.0, "1" * right + "0" * (10 - right))
    return ev.Evaluated(iteration, 5, 99, perplexity, 1.0, 8, 256, accuracy, 0.1, (task,), 1.0)


def test_what_a_list_tells(queue, workers):
    told = (
        ev.Loading("loading x"),
        STARTED,
        measured(0, 0.5, 20.0),
        BLOCK,
        measured(1, 0.4, 30.0),
        ev.Exported("x", 1, 1, 0.0, 20, 1.0),
        FINISHED,
    )
    run_id = ended(queue, workers, *told, name="the one")
    (info,) = queue.listed("me")
    assert (info.id, info.name, info.state, info.recipe) == (run_id, "the one", "finished", Recipe())
    assert (info.iterations, info.planned, info.exported) == (1, 2, True)
    assert (info.parameters, info.dense_parameters) == (80, 99)
    assert info.kept == pytest.approx(0.8)
    assert (info.perplexity, info.dense_perplexity) == (30.0, 20.0)
    assert abs(info.created - time.time()) < 60
    queue.undo(run_id)
    (info,) = queue.listed("me")
    assert (info.iterations, info.exported, info.perplexity, info.parameters) == (0, False, 20.0, 99)


def test_a_list_is_newest_first_and_names_can_be_changed(queue, workers):
    first = queue.start(Recipe().replace(model="x/y-1b", target=0.3), "me")
    second = queue.start(Recipe(), "me", "mine")
    assert [i.id for i in queue.listed("me")] == [second, first]
    assert queue.listed("me")[1].name == "y-1b, 30 % by pip-gate"
    queue.rename(first, "  a\n new   name ")
    assert queue.listed("me")[1].name == "a new name"
    queue.rename(first, "x" * 500)
    assert len(queue.listed("me")[1].name) == 80
    queue.rename(first, "")
    assert queue.listed("me")[1].name == "y-1b, 30 % by pip-gate"
    assert queue.owns(first, "me")


def test_a_name_says_what_the_recipe_asks_for():
    """Not the share that stands beside bytes or a speed-up, and is not read then."""
    asked = [{"target": 0.125}, {"target_bytes": "4MB"}, {"target_speedup": "decode:1.3"}]
    assert [default_name(Recipe(**one)) for one in asked] == [
        "demo, 12.5 % by pip-gate",
        "demo, at most 4MB by pip-gate",
        "demo, 1.3x faster writing by pip-gate",
    ]


def test_an_events_file_is_read_once(queue, workers, monkeypatch):
    ended(queue, workers, STARTED, FINISHED)
    assert queue.listed("me")[0].state == "finished"
    monkeypatch.setattr(ev, "from_line", lambda _: pytest.fail("read again"))
    monkeypatch.setattr(Recipe, "from_json", lambda _: pytest.fail("read again"))
    assert queue.listed("me")[0].state == "finished"


def test_a_run_of_another_version_is_listed_as_such(queue, workers):
    one = ended(queue, workers, FINISHED)
    (queue.folder(one) / files.RECIPE).write_text('{"colour": 1}')
    two = ended(queue, workers, FINISHED)
    with (queue.folder(two) / files.EVENTS).open("a") as file:
        file.write('{"event": "Later", "at": 1}\n')
    newer, damaged = queue.listed("me")
    assert (newer.state, newer.recipe, newer.iterations) == ("newer", Recipe(), 0)
    assert "newer version" in newer.message
    assert "Later" in newer.message
    assert (damaged.state, damaged.recipe) == ("damaged", None)
    assert "colour" in damaged.message


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "memory ran out"),
        ("error: an old one\n=== resume, now\n", "ended from outside"),
        ("=== resume, now\nerror: The disk is full. Make room.\n", "The disk is full. Make room."),
        (
            "=== resume, now\nTraceback (most recent call last):\n  x\nValueError: odd\n",
            "failed (ValueError: odd)",
        ),
        ("error: from before there were marks\n", "from before there were marks"),
    ],
)
def test_why_a_run_was_interrupted(queue, workers, log, message):
    run_id = ended(queue, workers, STARTED)
    (queue.folder(run_id) / files.LOG).write_text(log)
    (info,) = queue.listed("me")
    assert info.state == "interrupted"
    assert message in info.message


def test_a_full_disk_tells_so_where_the_worker_could_not(queue, workers, monkeypatch):
    run_id = ended(queue, workers, STARTED)
    usage = worker.shutil.disk_usage(queue.root)
    monkeypatch.setattr(worker.shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert worker.why_interrupted(queue.folder(run_id)).startswith("The disk is full.")


def test_deleting(queue, workers):
    run_id = queue.start(Recipe(), "me")
    waiting = queue.start(Recipe(), "me")
    with pytest.raises(UserError, match="still running"):
        queue.delete(run_id)
    queue.delete(waiting)
    workers.end(queue.folder(run_id), FINISHED)
    queue.delete(run_id)
    assert queue.everybodys() == []
    with pytest.raises(UserError, match="There is no such run"):
        queue.delete(run_id)


def test_what_was_thrown_away_can_be_brought_back_for_a_minute(queue, workers, monkeypatch):
    run_id = ended(queue, workers, STARTED, FINISHED)
    queue.rename(run_id, "mine")
    queue.annotate(run_id, "the  first")
    queue.delete(run_id)
    assert queue.folder(run_id) is None
    assert queue.thrown_away("you") == []
    again = RunQueue(queue.root)  # a page that was killed meanwhile
    assert again.thrown_away("me") == [(run_id, "mine")]
    with pytest.raises(UserError, match="brought back"):
        again.restore(run_id, "you")
    again.forget_thrown_away()
    again.restore(run_id, "me")
    (info,) = queue.listed("me")
    assert (info.name, info.note, info.state) == ("mine", "the first", "finished")
    queue.delete(run_id)
    now = time.time()
    monkeypatch.setattr("pip_core.runs.store.time.time", lambda: now + 61)
    again.forget_thrown_away()
    assert {p.name for p in queue.root.iterdir()} == {"studio.lock", "used.json"}
    with pytest.raises(UserError, match="gone"):
        again.restore(run_id, "me")


def test_a_run_that_cannot_be_made_leaves_nothing(queue, workers, monkeypatch):
    def full(*_):
        raise UserError("The disk is full.")

    monkeypatch.setattr(run_directory, "create", full)
    with pytest.raises(UserError, match="The disk is full"):
        queue.start(Recipe())
    monkeypatch.undo()
    assert queue.everybodys() == []
    assert not [p for p in queue.root.iterdir() if p.name != "studio.lock"]


def aged(queue: RunQueue, run_id: str, days: float, bytes_: int = 0) -> Path:
    folder = queue.folder(run_id)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_bytes(bytes(bytes_))
    then = time.time() - days * DAY
    os.utime(folder / files.EVENTS, (then, then))
    return folder


@pytest.fixture
def various(queue, workers) -> dict[str, Path]:
    """Runs in every state, all of them ten days old and a megabyte large."""
    found = {
        "finished": ended(queue, workers, FINISHED),
        "stopped": ended(queue, workers, ev.Stopped(0)),
        "failed": ended(queue, workers, ev.Failed("No.")),
        "interrupted": ended(queue, workers, STARTED),
        "paused": ended(queue, workers, ev.Paused(0)),
        "running": queue.start(Recipe()),
        "waiting": queue.start(Recipe()),
    }
    workers.say(queue.folder(found["running"]), STARTED)
    folders = {name: aged(queue, run_id, 10, 10**6) for name, run_id in found.items()}
    assert {name: state(queue, f.name) for name, f in folders.items()} == {name: name for name in found}
    return folders


def test_cleaning_by_age(queue, various):
    assert queue.clean(11 * DAY) == []
    told = queue.clean(9 * DAY)
    assert len(told) == 4
    left = {name for name, folder in various.items() if folder.exists()}
    assert left == {"paused", "running", "waiting"}
    log = (queue.root / retention.LOG).read_text()
    assert log.count("deleted: 'demo, 20 % by pip-gate', ") == 4
    assert all(line in log for line in told)
    assert "10.0 days old, 1.0 MB" in log


def test_cleaning_by_size(queue, workers):
    old, middle, new = (ended(queue, workers, FINISHED) for _ in range(3))
    stopped = ended(queue, workers, ev.Stopped(0))
    for run_id, days in ((old, 3), (middle, 2), (new, 1), (stopped, 9)):
        aged(queue, run_id, days, 10**6)
    assert queue.clean(None, 5e6) == []
    (told,) = queue.clean(None, 3.5e6)
    assert "finished, to make room" in told
    assert [queue.folder(i) is None for i in (old, middle, new, stopped)] == [True, False, False, False]
    assert len(queue.clean(None, 1)) == 2
    # What was stopped has something left to do, however little room there is.
    assert [i.id for i in queue.listed("me")] == [stopped]


def test_what_can_be_made_again_goes_before_any_run(queue, workers):
    folder = aged(queue, ended(queue, workers, FINISHED), 1, 10**6)
    packed = folder / f"pruned-{folder.name[:6]}.zip"
    packed.write_bytes(bytes(10**6))
    assert queue.clean(None, 1.5e6)  # somebody may be downloading it
    assert not folder.exists()
    folder = aged(queue, ended(queue, workers, FINISHED), 1, 10**6)
    packed = folder / f"pruned-{folder.name[:6]}.zip"
    packed.write_bytes(bytes(10**6))
    os.utime(packed, (1000, 1000))
    (told,) = queue.clean(None, 1.5e6)
    assert "which can be packed again" in told
    assert folder.exists()
    assert not packed.exists()


def test_what_a_crash_left_behind_goes(queue, workers):
    done, running = ended(queue, workers, FINISHED), queue.start(Recipe())
    for parent in (queue.folder(done), queue.folder(running)):
        (parent / "model.partial").mkdir()
        (parent / "pruned-abc.zip.partial").touch()
    for name in (".making-abc", ".leaving-abc"):
        (queue.root / name).mkdir()
    assert queue.clean() == []
    for path in [*queue.root.rglob("*.partial"), *queue.root.glob(".*-abc")]:
        os.utime(path, (1000, 1000))
    assert len(queue.clean()) == 4
    assert {p.parent.name for p in queue.root.rglob("*.partial")} == {running}
    assert not list(queue.root.glob(".*-abc"))


def test_what_no_run_needs_goes_after_a_day(queue, workers):
    needed, unused = (queue.root / UPLOADS / name / "mine.txt" for name in ("aa" * 8, "bb" * 8))
    table = queue.root / TABLES / "abc" / "compared.csv"
    for path in (needed, unused, table):
        path.parent.mkdir(parents=True)
        path.write_text("text")
    queue.start(Recipe(calibration=str(needed)))
    for path, hours in ((needed, 30), (unused, 30), (table, 2)):
        os.utime(path.parent, (time.time() - hours * 3600,) * 2)
    assert len(queue.clean()) == 1
    assert needed.exists()
    assert table.exists()
    assert not unused.parent.exists()
    os.utime(table.parent, (1000, 1000))
    assert len(queue.clean()) == 1
    assert not table.exists()


def test_limits_from_the_environment(queue, various, monkeypatch):
    assert queue.clean() == []
    monkeypatch.setenv("PIP_STUDIO_KEEP_GB", "0.0065")
    assert len(queue.clean()) == 1
    monkeypatch.setenv("PIP_STUDIO_KEEP_DAYS", "9.5")
    assert len(queue.clean()) == 3
    for bad in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("PIP_STUDIO_KEEP_DAYS", bad)
        with pytest.raises(UserError, match="PIP_STUDIO_KEEP_DAYS"):
            queue.clean()


def test_runs_of_the_first_version_open(queue):
    fixtures = Path(__file__).parent.parent / "fixtures" / "runs_0_1"
    for folder in fixtures.iterdir():
        shutil.copytree(folder, queue.root / folder.name)
    found = {info.id: info for info in queue.everybodys()}
    assert {name: info.state for name, info in found.items()} == {
        "finished": "finished",
        "stopped": "stopped",
        "tokens_and_refit": "finished",
    }
    assert all(info.iterations and info.recipe for info in found.values())
