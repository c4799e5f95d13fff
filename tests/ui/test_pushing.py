"""The page's push: whose token it is made with, what is said meanwhile, who sees it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pip_core.checkpoints.publish import Pushed
from pip_core.core.errors import UserError
from pip_core.core.network import asking_token
from pip_core.core.recipe import Recipe
from pip_core.runs.pushing import PushState
from pip_core.ui import answers, pushing
from pip_core.ui.parts import head, push
from pip_core.ui.shown import Shown

ME = {"owner": "me"}
ADDRESS = "https://hub/me/small/tree/c0ffee"
STATES = [
    PushState("me/Small"),
    PushState("me/Small", "uploading to me/Small", 30, 100),
    PushState("me/Small", pushed=Pushed("me/Small", "c0ffee", ADDRESS, True, 9, 0.0)),
]


@pytest.fixture
def asked(queue, workers, monkeypatch) -> SimpleNamespace:
    """A run with a model, whose push goes through `STATES`; `orders` are what was asked for."""
    run_id, orders = queue.start(Recipe(), "me"), []
    (queue.folder(run_id) / "model").mkdir()
    left = []

    def start(key, order):
        orders.append(order)
        left[:] = STATES

    monkeypatch.setattr(queue.pushes, "start", start)

    def state(key):
        return left.pop(0) if len(left) > 1 else (left or [None])[0]

    monkeypatch.setattr(queue.pushes, "state", state)
    monkeypatch.setattr(pushing, "LOOK_SECONDS", 0)
    return SimpleNamespace(queue=queue, run=run_id, orders=orders)


def test_a_push_says_how_far_it_is_and_keeps_no_token(asked):
    said = list(pushing.push(asked.queue, ME, asked.run, " me/Small ", " hf_typed ", True, False))
    assert {token for _, token in said} == {""}
    assert "hf_typed" not in str(said)
    assert ["30 %" in html or "30%" in html for html, _ in said] == [False, True, False]
    assert ADDRESS in said[-1][0]
    (order,) = asked.orders
    assert (order.repo, order.token, order.public, order.overwrite) == ("me/Small", "hf_typed", True, False)
    assert order.folder == asked.queue.folder(asked.run) / "model"


@pytest.mark.parametrize(
    ("environment", "typed", "signed", "token", "refusal"),
    [
        ({}, "", "", "", ""),
        ({}, "hf_typed", "", "hf_typed", ""),
        ({"PIP_STUDIO_LOCAL_FILES": "no"}, "", "", None, "token of yours"),
        ({"PIP_STUDIO_LOCAL_FILES": "no"}, "hf_typed", "", "hf_typed", ""),
        ({"SPACE_ID": "a/b", "OAUTH_CLIENT_ID": "c"}, "", "", None, "Sign in first"),
        ({"SPACE_ID": "a/b", "OAUTH_CLIENT_ID": "c"}, "", "hf_signed", "hf_signed", ""),
        ({"SPACE_ID": "a/b"}, "", "", None, "nobody sign in"),
    ],
)
def test_with_whose_token(asked, monkeypatch, environment, typed, signed, token, refusal):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def steps(*values):
        yield from pushing.push(asked.queue, ME, asked.run, *values)

    given = ("me", SimpleNamespace(token=signed)) if signed else (None, None)
    said = list(answers.for_signed_in(steps, object, object)(*given, "me/small", typed))
    assert [order.token for order in asked.orders] == ([] if token is None else [token])
    assert refusal in said[-1][0]
    assert "hf_" not in str(said)


def test_what_is_pushed_is_told_to_who_pushes_it_alone(asked, monkeypatch):
    finished = SimpleNamespace(exported=object())
    states = {(asked.run, "me"): PushState("me/secret-name")}
    monkeypatch.setattr(asked.queue.pushes, "state", states.get)
    shown = {
        owner: push.offer(Shown(asked.queue, asked.run, owner, finished, "finished"))
        for owner in ("me", "another")
    }
    assert "me/secret-name" not in str(shown["another"])
    assert shown["me"]["pushing"] == {"visible": True}
    monkeypatch.setenv("SPACE_ID", "a/b")
    offered = push.offer(Shown(asked.queue, asked.run, "me", finished, "finished"))
    assert offered["pushing"] == {"visible": False}


def test_a_button_to_sign_in_stands_where_one_can(monkeypatch):
    def kinds() -> list[str]:
        (bar,) = head.layout(None)
        return [node.kind for node in bar.children]

    assert "LoginButton" not in kinds()
    monkeypatch.setenv("SPACE_ID", "a/b")
    assert "LoginButton" not in kinds()
    monkeypatch.setenv("OAUTH_CLIENT_ID", "c")
    assert "LoginButton" in kinds()


def test_a_token_is_known_for_the_first_step_of_an_answer_alone():
    seen, signed = [], SimpleNamespace(token="hf_mine")

    def handler(value):
        for _ in range(2):
            seen.append(asking_token())
            yield value

    assert list(answers.for_signed_in(handler, object, object)("me", signed, 1)) == [1, 1]
    assert seen == ["hf_mine", ""]

    def failing(_):
        raise UserError(asking_token())

    with pytest.raises(UserError, match="hf_mine"):
        answers.for_signed_in(failing, object, object)("me", signed, 1)
    assert asking_token() == ""
