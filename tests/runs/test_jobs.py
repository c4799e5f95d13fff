"""Runs that a job on the Hub works on: the Hub's own client against a Hub of our own."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest

from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.runs import files, jobs, run_directory
from pip_core.runs.recorded import read_events

from .. import tiny
from ..hub import send, send_json
from ..hub_writing import WritableHub

INFO = {
    "id": "j1",
    "createdAt": "2026-11-27T00:00:00.000Z",
    "owner": {"id": "1", "name": "me", "type": "user"},
}


class JobHub(WritableHub):
    """A Hub that works on runs.

    Attributes:
        asked: what each job was asked for.
        said: what the last job has said.
        until: a part of a line of it, with which the connection of whoever follows is cut; empty for none.
        forgets: whether it knows no job any more, and does none.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[dict] = []
        self.said: list[str] = []
        self.until = ""
        self.stage = "RUNNING"
        self.forgets = False

    def write(self, request, verb: str, path: str, body: bytes) -> bool:
        if not path.startswith("/api/jobs/"):
            return super().write(request, verb, path, body)
        if self.forgets and verb == "GET":
            send(request, 404, b"{}", {})
            return True
        if path == "/api/jobs/me" and self.forgets:
            self.asked.append(json.loads(body))
            self.said, self.stage = [], "ERROR"
        elif path == "/api/jobs/me":
            self.asked.append(json.loads(body))
            self.said, self.stage = [], "RUNNING"
            arguments = self.asked[-1]["command"][3:]
            jobs.work_in_job(*arguments, self.said.append)
            self.stage = "COMPLETED"
        elif path.endswith("/cancel"):
            self.stage = "CANCELED"
        elif path.endswith("/logs"):
            last = [i for i, line in enumerate(self.said) if self.until and self.until in line]
            lines = ["Job started", *self.said[: last[0] + 1 if last else None]]
            text = "".join(f"data: {json.dumps({'data': line, 'timestamp': 't'})}\n\n" for line in lines)
            send(request, 200, text.encode(), {"Content-Type": "text/event-stream"})
            return True
        send_json(request, {**INFO, "status": {"stage": self.stage, "message": None}})
        return True


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with JobHub(tmp_path / "hub").open() as opened:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(jobs, "HfApi", partial(huggingface_hub.HfApi, opened.url))
        monkeypatch.setenv("HF_TOKEN", "hf_writes")
        yield opened


@pytest.fixture
def run(tmp_path, recipe, monkeypatch) -> Path:
    monkeypatch.setattr(jobs, "_refuse_files", lambda _: None)  # the tiny model is one on this machine
    folder = tmp_path / "run"
    run_directory.create(folder, recipe)
    return folder


def on_hub(folder: Path, **options) -> list[ev.Event]:
    return list(run_directory.work(folder, engine=jobs.on_hub("a10g-small"), **options))


def test_a_job_prunes_and_its_model_is_here(hub, run, tmp_path, recipe):
    """Also where whoever follows is cut off, goes on, stops the job, and goes on again."""
    hub.until = '"Removed"'
    assert "job ended before" in tiny.only(on_hub(run), ev.Failed)[-1].message
    hub.until = ""
    hub.forgets = True  # as it does with jobs in time: another one is begun
    for begun in (2, 3):
        assert jobs.SPACE in tiny.only(on_hub(run), ev.Failed)[-1].message
        assert len(hub.asked) == begun
    hub.forgets = False
    for event in run_directory.work(run, engine=jobs.on_hub("a10g-small")):
        if isinstance(event, ev.Started):
            run_directory.request_stop(run)
    assert event == ev.Stopped(1)
    assert "POST /api/jobs/me/j1/cancel" in hub.requests
    events = on_hub(run)
    assert isinstance(events[-1], ev.Finished)
    assert len(hub.asked) == 5
    assert {a["flavor"] for a in hub.asked} == {"a10g-small"}
    assert all(a["secrets"] == {"HF_TOKEN": "hf_writes"} for a in hub.asked)
    (repo,) = hub.written
    assert hub.private(repo)
    here = tmp_path / "here"
    run_directory.create(here, recipe)
    whole = list(run_directory.work(here))
    assert ev.removals(read_events(run)) == ev.removals(whole)
    names = {path.name for path in (here / files.MODEL).iterdir()}
    assert {path.name for path in (run / files.MODEL).iterdir()} == names
    weights = "model.safetensors"
    assert (run / files.MODEL / weights).read_bytes() == (here / files.MODEL / weights).read_bytes()
    assert not any(b"hf_writes" in p.read_bytes() for p in run.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"whoami": 401}, "token"),
        ({"/api/jobs/me": 402}, "credit"),
        ({"/api/jobs/me": 403}, "may"),
        ({"/api/jobs/me": 404}, jobs.SPACE),
    ],
)
def test_a_job_that_cannot_begin_is_one_sentence(hub, run, fault, said, monkeypatch):
    hub.faults = fault
    monkeypatch.setattr(JobHub, "write", WritableHub.write)
    (failed,) = on_hub(run)
    assert isinstance(failed, ev.Failed)
    assert said in failed.message


def test_nobody_who_pays_and_files_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    run_directory.create(tmp_path / "run", Recipe())
    (failed,) = on_hub(tmp_path / "run")
    assert "log in" in failed.message
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_writes")
    (tmp_path / "text.txt").write_text("words")
    run_directory.create(tmp_path / "other", Recipe(calibration=str(tmp_path / "text.txt")))
    (failed,) = on_hub(tmp_path / "other")
    assert "text.txt" in failed.message
