"""A run is a directory: written by one worker, read by anybody, and nothing lost when it is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pip_core.checkpoints import packing
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.units import Units
from pip_core.runs import run_directory, worker
from pip_core.runs.recorded import Tail, drop_torn_line

from .. import tiny, zoo
from ..processes import HELD, cli, start


def wait_for(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def scoring(folder: Path, iteration: int) -> bool:
    """Whether the run is scoring `iteration`."""
    found = [e for e in tiny.only(run_directory.read_events(folder), ev.Progress) if e.stage == "scoring"]
    return bool(found) and found[-1].iteration == iteration


def removed(folder: Path) -> list[int]:
    return [block for e in tiny.only(run_directory.read_events(folder), ev.Removed) for block in e.blocks]


@pytest.fixture
def made(tmp_path, recipe) -> Path:
    """A run that nobody has worked on yet."""
    run_directory.create(tmp_path / "run", recipe)
    return tmp_path / "run"


def test_killed_and_resumed_ends_as_undisturbed(tmp_path, command_run):
    folder = tmp_path / "run"
    run_directory.create(folder, command_run.recipe)
    first = start("resume", folder, **{HELD: "1"})
    wait_for(lambda: scoring(folder, 2))
    assert worker.alive(folder)
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    assert not worker.alive(folder)
    before = run_directory.read_events(folder)
    assert removed(folder) == removed(command_run.folder)[:1]
    assert isinstance(before[-1], ev.Progress)
    assert not (folder / "model").exists()
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "Scored", "at": 17')

    done = cli("resume", folder)
    assert done.returncode == 0, done.stderr
    assert removed(folder) == removed(command_run.folder)
    after = run_directory.read_events(folder)
    assert after[: len(before)] == before
    assert tiny.only(after, ev.Started)[-1].resumed == 1
    assert [e.iteration for e in tiny.only(after, ev.Evaluated)] == [0, 1, 2]
    ours = {p.name: p.read_bytes() for p in (folder / "model").iterdir()}
    theirs = {p.name: p.read_bytes() for p in (command_run.folder / "model").iterdir()}
    assert ours["model.safetensors"] == theirs["model.safetensors"]
    assert ours == theirs


def test_stopped_politely_and_exported(tmp_path, command_run):
    folder = tmp_path / "run"
    run_directory.create(folder, command_run.recipe)
    with (tmp_path / "errors").open("w") as errors:
        process = start("resume", folder, stderr=errors, **{HELD: "1"})
    wait_for(lambda: scoring(folder, 2))
    process.send_signal(signal.SIGTERM)
    assert (process.wait(60), (tmp_path / "errors").read_text()) == (1, "")
    assert run_directory.read_events(folder)[-1] == ev.Stopped(1)
    assert not (folder / "stop").exists()
    done = cli("export", folder)
    assert done.returncode == 0, done.stderr
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == zoo.BLOCKS - 1


def test_work_records_what_it_tells(made):
    told = list(run_directory.work(made))
    assert isinstance(told[-1], ev.Finished)
    assert run_directory.read_events(made) == told
    assert not worker.alive(made)
    times = [at for _, at in Tail(made).poll()]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 60


def test_events_are_there_as_soon_as_they_are_told(made):
    for count, event in enumerate(run_directory.work(made), 1):
        assert worker.alive(made)
        found = run_directory.read_events(made)
        assert len(found) == count
        assert found[-1] == event


def test_a_stop_file_stops(made):
    told = []
    for event in run_directory.work(made):
        told.append(event)
        if isinstance(event, ev.Removed):
            run_directory.request_stop(made)
            assert worker.state(made, None, True, True) == "stopping"
    assert [type(e) for e in told[-2:]] == [ev.Removed, ev.Stopped]
    assert not (made / "stop").exists()
    assert not (made / "model").exists()


def test_an_old_stop_file_is_not_meant_for_a_new_worker(made):
    run_directory.request_stop(made)
    os.utime(made / "stop", (1000, 1000))
    assert isinstance(list(run_directory.work(made))[-1], ev.Finished)


def test_export_as_pruned_so_far_then_on(made):
    for event in run_directory.work(made):
        if isinstance(event, ev.Removed):
            run_directory.request_stop(made)
    first = list(run_directory.work(made, prune_on=False))
    assert isinstance(first[-1], ev.Finished)
    assert first[-1].iterations == 1
    zipped = packing.zip_folder(made / "model", made / "model.zip")
    size = zipped.stat().st_size
    second = list(run_directory.work(made))
    assert second[-1].iterations == 2
    gone = [e.blocks for e in tiny.only(run_directory.read_events(made), ev.Removed)]
    assert len(gone) == len(set(gone)) == 2
    assert packing.zip_folder(made / "model", made / "model.zip").stat().st_size < size


def test_nothing_removed_nothing_to_export(made):
    with pytest.raises(UserError, match="Nothing has been removed yet"):
        list(run_directory.work(made, prune_on=False))
    assert run_directory.read_events(made) == []
    assert not worker.alive(made)


def test_two_workers_are_refused(made):
    with FileLock(made / "worker.lock"):
        assert worker.alive(made)
        with pytest.raises(UserError, match="Another process is working"):
            list(run_directory.work(made))
    assert run_directory.read_events(made) == []
    assert not worker.alive(made)


def test_a_failed_run_can_be_tried_again(made, monkeypatch):
    monkeypatch.setattr(run_directory, "run_engine", lambda *_: (e for e in [ev.Failed("The disk is full.")]))
    assert list(run_directory.work(made)) == [ev.Failed("The disk is full.")]
    monkeypatch.undo()
    assert isinstance(list(run_directory.work(made))[-1], ev.Finished)


def test_a_disk_that_fills_up_is_told(made, monkeypatch):
    real = (made / "events.jsonl").open("rb")

    class Full:
        name, fileno = real.name, real.fileno

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.write("")  # what is left is tried again

        def write(self, _):
            raise OSError(28, "No space left on device")

    plain = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", **k: Full() if mode == "a" else plain(self, mode, **k)
    )
    with pytest.raises(UserError, match="The disk is full"):
        list(run_directory.work(made))
    assert not worker.alive(made)


@pytest.mark.parametrize(("number", "words"), [(28, "The disk is full"), (13, "no permission")])
def test_a_lock_that_cannot_be_made_is_told(made, monkeypatch, number, words):
    def refuse(*_, **__):
        raise OSError(number, "not now")

    monkeypatch.setattr(run_directory.FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=words):
        list(run_directory.work(made))


def test_a_torn_last_line_is_dropped(made):
    whole = [
        ev.Loading("loading x"),
        ev.Removed(1, (Units("blocks", 2, (0,)),), 0.5, 0.25, 100, "1 of 5 blocks"),
    ]
    text = "".join(ev.to_line(e, 1.0) + "\n" for e in whole)
    (made / "events.jsonl").write_text(text + '{"event": "Remo')
    assert run_directory.read_events(made) == whole
    drop_torn_line(made / "events.jsonl")
    assert (made / "events.jsonl").read_text() == text
    drop_torn_line(made / "events.jsonl")
    assert (made / "events.jsonl").read_text() == text
    (made / "events.jsonl").write_text("{torn")
    drop_torn_line(made / "events.jsonl")
    assert (made / "events.jsonl").read_text() == ""


def test_tail_reads_each_line_once(made):
    tail = Tail(made)
    assert tail.poll() == []
    lines = [ev.to_line(ev.Loading(f"loading {i} ü"), float(i)) for i in range(3)]
    with (made / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(lines[0] + "\n" + lines[1][:20])
        file.flush()
        assert tail.poll() == [(ev.Loading("loading 0 ü"), 0.0)]
        assert tail.poll() == []
        file.write(lines[1][20:] + "\n" + lines[2] + "\n")
    assert [at for _, at in tail.poll()] == [1.0, 2.0]
    assert tail.poll() == []


def test_create_and_read_back(made, recipe):
    assert tiny.asked_recipe(made) == recipe
    assert sorted(p.name for p in made.iterdir()) == ["events.jsonl", "recipe.json"]


def test_an_empty_folder_will_do(tmp_path, recipe):
    (tmp_path / "run").mkdir()
    run_directory.create(tmp_path / "run", recipe)
    assert tiny.asked_recipe(tmp_path / "run") == recipe


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, recipe):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a run of ours"):
        run_directory.create(tmp_path, recipe)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("precious.txt", "mine")]
    with pytest.raises(UserError, match="is not a run of ours"):
        run_directory.create(tmp_path / "precious.txt", recipe)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_run_is_not_begun_twice(made, recipe):
    with pytest.raises(UserError, match="already holds a run"):
        run_directory.create(made, recipe)


def test_a_folder_that_cannot_be_made(tmp_path, recipe):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        run_directory.create(tmp_path / "file" / "run", recipe)


@pytest.mark.parametrize("name", ["recipe.json", "events.jsonl"])
def test_what_is_no_run(made, name):
    (made / name).unlink()
    with pytest.raises(UserError, match="is not a run"):
        run_directory.recipe_of(made)
    with pytest.raises(UserError, match="is not a run"):
        list(run_directory.work(made))


@pytest.mark.parametrize(
    ("ending", "told", "working", "silent", "state"),
    [
        (None, False, True, True, "starting"),
        (None, False, True, False, "starting"),
        (None, True, True, False, "running"),
        (ev.Stopped(0), True, True, True, "starting"),
        (ev.Stopped(0), True, True, False, "stopped"),
        (None, True, False, False, "interrupted"),
        (None, False, False, False, "interrupted"),
        (ev.Stopped(0), True, False, False, "stopped"),
        (ev.Failed("x"), True, False, False, "failed"),
        (ev.Finished(0, "nothing", 1, 1.0, 1), True, False, False, "finished"),
    ],
)
def test_state(made, ending, told, working, silent, state):
    assert worker.state(made, ending, told, working, silent) == state
