"""Small files as a bad day or an adversary leaves them: beyond what `tests/runs/test_damaged_runs.py` has."""

from __future__ import annotations

import os
import time

import pytest

from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.runs import files
from pip_core.ui import refresh

from ..run_queues import BLOCK, FINISHED, STARTED, ended, state

SMALL = (files.RECIPE, files.ABOUT, files.QUEUED, files.UNDO, files.LAUNCHED)
NASTY = {
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "many digits": b"9" * 6000,
    "no number": b'{"at": NaN, "command": "resume", "created": Infinity, "name": "x", "owner": ""}',
    "huge number": b'{"at": 1e999, "command": "resume", "created": -1e999, "pid": 1e999, "began": 1}',
    "long": b'{"name": "' + b"x" * 3_000_000 + b'"}',
    "half a character": rb'{"name": "\ud800", "owner": "\udfff", "created": 1, "at": 1, "command": "resume"}',
}
ME = {"owner": "me"}


def check_that_others_go_on(queue, workers, *bad: str) -> None:
    """Lists, queue, cleaning and the pages of everybody work."""
    good = queue.start(Recipe(), "me", "good")
    assert (good, "resume") in workers.launched
    assert good in [i.id for i in queue.listed("me")]
    assert {*bad, good} <= {i.id for i in queue.everybodys()}
    assert queue.clean(1e9, 1e15) == []
    for one in bad:
        refresh.refresh(queue, ME, one, [], ())
    refresh.refresh(queue, {"owner": "you"}, good, [], [*bad, good])
    assert queue.schedule_workers() == []
    workers.end(queue.folder(good), FINISHED)
    assert state(queue, good) == "finished"


@pytest.mark.parametrize("name", SMALL)
def test_a_nasty_small_file_hurts_its_run_alone(queue, workers, name):
    bad = [ended(queue, workers, STARTED, BLOCK, ev.Stopped(1)) for _ in NASTY]
    for run_id, data in zip(bad, NASTY.values(), strict=True):
        (queue.folder(run_id) / name).write_bytes(data)
    check_that_others_go_on(queue, workers, *bad)


@pytest.mark.parametrize("name", [files.RECIPE, files.EVENTS, files.ABOUT, files.QUEUED, files.UNDO])
def test_what_is_no_file_hurts_its_run_alone(queue, workers, name):
    """A folder, and a pipe that nobody writes to."""
    bad = [ended(queue, workers, STARTED, BLOCK, ev.Stopped(1)) for _ in range(2)]
    for run_id, make in zip(bad, (os.mkdir, os.mkfifo), strict=True):
        place = queue.folder(run_id) / name
        place.unlink(missing_ok=True)
        make(place)
    check_that_others_go_on(queue, workers, *bad)


@pytest.mark.parametrize(
    "line", [b'{"event": "Removed", "at": 1e999}\n', b"[" * 200_000 + b"\n", b"\xff\xfe\n"]
)
def test_a_nasty_line_of_events_hurts_its_run_alone(queue, workers, line):
    bad = ended(queue, workers, STARTED, BLOCK)
    with (queue.folder(bad) / files.EVENTS).open("ab") as file:
        file.write(line)
    check_that_others_go_on(queue, workers, bad)
    assert state(queue, bad) == "damaged"


def test_what_was_fetched_from_the_hub_is_deleted_least_used_first(queue, workers, tmp_path, monkeypatch):
    """But not what a run needs, nor what was just fetched."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(cache), raising=False)
    for number, name in enumerate(("old", "needed", "older", "new")):
        snapshot = cache / f"models--a--{name}" / "snapshots" / ("0" * 39 + str(number))
        snapshot.mkdir(parents=True)
        file = snapshot / "model.safetensors"
        file.write_bytes(bytes(1000))
        at = {"old": 2000, "needed": 1000, "older": 1000, "new": time.time()}[name]
        os.utime(file, (at, at))
    queue.start(Recipe(model="a/needed"), "me")
    monkeypatch.setenv("PIP_STUDIO_HUB_CACHE_GB", "0.0000033")
    queue.clean()
    assert sorted(p.name[11:] for p in cache.iterdir()) == ["needed", "new", "old"]
    monkeypatch.setenv("PIP_STUDIO_HUB_CACHE_GB", "0.000001")
    queue.clean()
    assert sorted(p.name[11:] for p in cache.iterdir()) == ["needed", "new"]
