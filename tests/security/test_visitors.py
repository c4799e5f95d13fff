"""What strangers may do: they see no run but their own, and nothing they send breaks the page."""

from __future__ import annotations

import pytest

from app import StudioPage
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.ui import refresh, sent

from .odd_values import call_all

CALLS = 250


@pytest.mark.parametrize("owner", [None, "", 0, False, [], {}, 7, b"me"])
def test_who_has_no_name_owns_nothing(queue, workers, owner):
    run_id = queue.start(Recipe())
    mine = queue.start(Recipe(), "me", "secret name")
    assert queue.listed(owner) == []
    assert not queue.owns(run_id, owner)
    assert not queue.owns(mine, owner)
    assert not queue.may_change(mine, owner)
    try:
        changes = refresh.refresh(queue, sent.memory({"owner": owner}), "", [], ())
    except UserError:  # what is no text is refused before that
        return
    assert changes.get("runs", {"choices": [("new run", "")]})["choices"] == [("new run", "")]
    assert "secret name" not in str(changes)


def test_a_guess_finds_no_run(queue, workers):
    mine = queue.start(Recipe(), "me")
    for guess in ("..", ".", f"{mine[:-1]}g", f"../{queue.root.name}/{mine}", f"{mine}/", mine[:-1]):
        assert queue.summary(guess)[1] == "none", guess
    assert queue.summary(mine)[1] != "none"


def test_odd_values_are_refused_and_nothing_breaks(queue, workers, looks):
    page = StudioPage(queue)
    page.handlers.looks = looks
    mine = queue.start(Recipe(), "me", "secret name")
    found = call_all(page.build(), CALLS)
    assert found.faults == []
    assert found.calls == CALLS
    assert found.refused > CALLS // 4
    assert [info.id for info in queue.listed("me")] == [mine]
