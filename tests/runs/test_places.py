"""Where runs are worked on: calls that are lent a GPU, and the names of places."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pip_core.core import accelerator, lent_gpu
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.planning.estimate import make_plan
from pip_core.runs import files, places, worker, zero_gpu
from pip_core.runs.queue import RunQueue
from pip_core.runs.recorded import read_events

from .. import tiny
from ..run_queues import BLOCK, state
from .test_run_directory import wait_for

VISITOR: ContextVar[str] = ContextVar("visitor", default="nobody")


class Refusal(Exception):
    """As the errors of `spaces`, which are gradio's: a title and a message."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title, self.message = title, message


class Gpu:
    """Stands in for `spaces.GPU`: lends to each call what its turn says, and notes who asked for how long,
    and when their run was launched."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.began: list[float] = []
        self.turns: list[Refusal | None] = []

    def __call__(self, duration):
        def decorated(task):
            def wrapped(*arguments):
                self.asked.append((VISITOR.get(), duration(*arguments)))
                self.began.append(files.read_launched(Path(arguments[0]))["at"])
                turn = self.turns.pop(0) if self.turns else None
                if turn:
                    raise turn
                return task(*arguments)

            return wrapped

        return decorated


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    lending = Gpu()
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=lending))
    monkeypatch.setenv(lent_gpu.VARIABLE, "true")
    return lending


def done(queue: RunQueue, run_id: str) -> list[ev.Event]:
    """The events of a run that nothing works on any more."""
    for child in queue.children:
        child.wait(120)
    assert not worker.working(queue.folder(run_id))
    return read_events(queue.folder(run_id))


def test_a_run_in_calls_removes_what_it_removes_in_one(gpu, tmp_path, recipe, monkeypatch):
    """Each call leaves after a decision; quota runs out between; nothing is decided twice."""
    monkeypatch.setenv("PIP_STUDIO_ZERO_GPU_SECONDS", "4")  # less than a call keeps back for its end
    queue = RunQueue(tmp_path)
    assert isinstance(queue.where, zero_gpu.Calls)
    gpu.turns = [
        None,
        None,
        Refusal("ZeroGPU quota exceeded", "4s requested vs. 1s left. Try again later"),
    ]
    VISITOR.set("me")
    run_id = queue.start(recipe, "me")
    events = done(queue, run_id)
    assert state(queue, run_id) == "paused"
    assert "1s left" in tiny.only(events, ev.Warned)[-1].message
    assert gpu.asked == [("me", 4)] * 3
    assert len(set(gpu.began)) == 1
    assert len(tiny.only(events, ev.Started)) == 2
    VISITOR.set("me again")
    queue.resume(run_id)
    events = done(queue, run_id)
    assert state(queue, run_id) == "finished"
    assert gpu.asked[-1] == ("me again", 4)
    whole = zero_gpu.Leave(10**6)
    monkeypatch.setattr(zero_gpu, "Leave", lambda _: whole)
    other = queue.start(recipe, "me")
    assert ev.removals(done(queue, other)) == ev.removals(events)
    assert len(tiny.only(read_events(queue.folder(other)), ev.Started)) == 1
    decided = [e for e in events if isinstance(e, ev.Removed | ev.Evaluated | ev.Exported)]
    assert len(decided) == len(set(map(repr, decided)))


def test_a_call_that_is_ended_is_given_longer_and_then_no_more(gpu, tmp_path):
    gpu.turns = [Refusal("ZeroGPU worker error", "GPU task aborted")] * 3
    queue = RunQueue(tmp_path)
    run_id = queue.start(Recipe(), "me")
    warned, paused = done(queue, run_id)
    assert [seconds for _, seconds in gpu.asked] == [60, 120, 240]
    assert "240 s" in warned.message
    assert isinstance(paused, ev.Paused)
    # Another visitor's context is not there after a restart: a run is not gone on with by itself.
    (queue.folder(run_id) / files.EVENTS).write_text(ev.to_line(ev.Loading("loading"), 1.0) + "\n")
    facts = '{"pid": 4194305, "began": 0.0, "said": 0, "command": "resume"}'
    files.write(queue.folder(run_id) / files.LAUNCHED, facts)
    again = RunQueue(tmp_path)
    again.server = SimpleNamespace(warm_up=lambda: None)
    again.schedule_in_background(60)
    assert state(again, run_id) == "interrupted"
    assert len(gpu.asked) == 3


def test_a_request_between_two_calls_is_heard(gpu, tmp_path):
    queue = RunQueue(tmp_path)

    def call(folder: str, command: str, seconds: int, token: str) -> bool:
        queue.pause(run_id)
        return False

    asked = []
    queue.where._call = lambda *arguments: asked.append(1) or wait_for(lambda: run_id) or call(*arguments)
    run_id = ""
    run_id = queue.start(Recipe(), "me")
    assert [type(event) for event in done(queue, run_id)] == [ev.Paused]
    assert asked == [1]
    assert not (queue.folder(run_id) / files.PAUSE).exists()


def test_a_call_leaves_before_a_decision_that_would_come_too_late():
    """Of 50 s it keeps 5 back; the longest wait for a decision was 12 s."""
    now = iter([0.0, 0.0, 10.0, 22.0, 32.0, 36.0])
    leave = zero_gpu.Leave(50, lambda: next(now))
    assert not leave(ev.Loading("loading"))
    assert [leave(BLOCK) for _ in range(4)] == [False, False, False, True]


def test_on_zero_gpu_the_page_asks_nothing_of_the_gpu(gpu, monkeypatch):
    """`spaces` makes torch say in the page that there is a GPU, which cannot be used."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert accelerator.device().type == "cpu"
    with lent_gpu.lent():
        assert accelerator.device().type == "cuda"
    plan = make_plan(Recipe())
    assert 0 < plan.seconds < 3600


@pytest.mark.parametrize("name", ["there", "zero"])
def test_places_that_are_none(name, monkeypatch, tmp_path):
    monkeypatch.setenv(places.VARIABLE, name)
    with pytest.raises(UserError):
        RunQueue(tmp_path)


def test_zero_gpu_without_its_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setenv(places.VARIABLE, "zero-gpu")
    with pytest.raises(UserError, match="spaces"):
        RunQueue(tmp_path)
