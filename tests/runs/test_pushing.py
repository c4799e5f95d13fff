"""Pushes of the page: a process each, which is told the token and tells how far it is."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from pip_core.checkpoints.export import CARD, RECIPE
from pip_core.checkpoints.publish import Pushed
from pip_core.core.errors import UserError
from pip_core.core.events import Loading
from pip_core.runs import pushing
from pip_core.runs.pushing import ENDED, Order, Pushes, push_and_tell

from ..hub_writing import WritableHub
from ..processes import BEFORE_THE_HUB, warm_server

DONE = Pushed("me/small", "c0ffee", "https://hub/me/small", True, 9, 0.0)


@pytest.fixture
def order(tmp_path) -> Order:
    for name in (RECIPE, CARD):
        (tmp_path / name).write_text("{}")
    return Order(tmp_path, "me/small", token="hf_reads")


def ended(pushes: Pushes, key: str) -> pushing.PushState:
    while key in pushes._processes:
        time.sleep(0.01)
    return pushes.state(key)


def test_a_process_pushes_with_the_token_that_it_is_told(order, tmp_path, monkeypatch):
    with WritableHub(tmp_path / "hub").open() as hub:
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_writes"}.items():
            monkeypatch.setenv(name, value)
        pushes = Pushes(lambda: warm_server(BEFORE_THE_HUB))
        pushes.start("run", order)
        with pytest.raises(UserError, match="already"):
            pushes.start("run", order)
        assert pushes.state("run").busy
        state = ended(pushes, "run")
    assert "only read" in state.error
    assert hub.tokens == {"hf_reads"}
    assert "hf_reads" not in repr([order, state])
    pushes.forget("run")
    assert pushes.state("run") is None


def test_what_the_process_tells_is_what_the_page_is_told(order, monkeypatch):
    """Steps and the end; also where there is no end, and where others are pushing already."""

    def steps(*_, **__):
        yield Loading("uploading", 3, 9)
        return DONE

    told: list[dict] = []
    monkeypatch.setattr("pip_core.checkpoints.publish.push", steps)
    push_and_tell(order, told.append)
    lines = [json.dumps(what) for what in told]
    process = SimpleNamespace(wait=lambda: 0, send_signal=lambda _: None)
    pushes = Pushes()
    for key, said in (("whole", lines), ("half", lines[:1])):
        pushes._processes[key], pushes._states[key] = process, pushing.PushState("me/small")
        monkeypatch.setenv("PIP_STUDIO_PUSHES", "1")
        with pytest.raises(UserError, match="1 model is being pushed"):
            pushes.start("another", order)
        path = order.folder / key
        path.write_text("\n".join(said))
        pushes._follow(key, path.open())
    assert pushes.state("whole").pushed == DONE
    assert (pushes.state("half").done, pushes.state("half").total) == (3, 9)
    assert pushes.state("half").error == ENDED


def test_a_fault_of_a_push_is_one_sentence(order, monkeypatch, capsys):
    def broken(*_, **__):
        raise ZeroDivisionError
        yield

    told: list[dict] = []
    monkeypatch.setattr("pip_core.checkpoints.publish.push", broken)
    push_and_tell(order, told.append)
    assert "fault of this program" in told[-1]["error"]
    assert "Traceback" in capsys.readouterr().err
