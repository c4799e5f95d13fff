"""Finding a model as its name is typed: what is asked, what is said of each, and when a search ends."""

from __future__ import annotations

import threading

import huggingface_hub
import pytest

from pip_core.checkpoints import hub_search
from pip_core.checkpoints.hub_search import find_models, local_models
from pip_core.core.errors import UserError
from pip_core.planning import fitting
from pip_core.planning.fitting import fitting as fits
from pip_core.ui import finding
from pip_core.ui.finding import Finder

from ..hub import Hub

ME = {"owner": "me"}


@pytest.fixture
def hub(monkeypatch, llama_folder, tmp_path):
    with Hub({"org/llama-tiny": llama_folder, "org/other": llama_folder}).open() as opened:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", opened.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(finding, "PAUSE_SECONDS", 0)
        yield opened


def test_what_is_found_is_said_before_what_is_known_of_it(hub):
    looked = []
    finder = Finder(lambda model: looked.append(model) or "prunes by blocks")
    first, *_, last = list(finder.search(ME, "llama"))
    (before,), (after,) = first["found"]["choices"], last["found"]["choices"]
    assert before[1] == after[1] == looked[0] == "org/llama-tiny"
    assert "1.2M downloads" in before[0]
    assert "gated" in before[0]
    assert "llama · " in before[0]
    assert "prunes by blocks" not in before[0]
    assert "prunes by blocks" in after[0]
    assert not hub.fetched("org/llama-tiny")
    (none,) = finder.search(ME, "<b>nothing</b>")
    assert none["found"]["visible"] is False
    assert "<b>" not in none["found_note"]["value"]
    asked = len(hub.requests)
    (short,) = finder.search(ME, " l ")
    assert short["found"]["choices"] == []
    assert len(hub.requests) == asked


def test_typing_on_ends_a_search(hub):
    """That of the same visitor; a newer one that is asked meanwhile is another's too."""
    finder = Finder(lambda _: "fits")
    steps, others = finder.search(ME, "or"), finder.search({"owner": "another"}, "or")
    next(steps)
    next(others)
    assert len(list(finder.search(ME, "org"))) == 3
    assert list(steps) == []
    assert len(list(others)) == 2


@pytest.mark.parametrize("status", [400, 429, 503])
def test_where_the_hub_does_not_answer_what_is_here_is_offered(hub, monkeypatch, status):
    hub.listing = status
    *_, last = Finder(lambda _: "fits").search(ME, "dem", ("me/demonstration", "me/else"))
    assert [value for _, value in last["found"]["choices"]] == ["demo", "me/demonstration"]
    assert "on this machine" in last["found_note"]["value"]
    assert sum("/api/models" in str(asked) for asked in hub.requests) == 1  # its client would ask again


def test_a_hub_that_hangs_is_not_waited_for(monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(hub_search, "_ask", lambda _: hangs.wait(20))
    monkeypatch.setattr(hub_search, "HUB_TIMEOUT", 0.01)
    with pytest.raises(UserError, match="does not answer"):
        find_models("llama")
    hangs.set()
    assert [found.repo for found in local_models("smol")] == ["smollm2-135m"]


def test_whether_it_fits_here_or_where_it_would(monkeypatch, checkpoints):
    assert "blocks" in fits("demo")
    assert "fits here" in fits("demo")
    assert "prunes by blocks, attention, MLP" in fits("demo")
    for needed, words in ((20e9, "Nvidia L4 (24 GB)"), (40e9, "L40S"), (2e12, "any one machine")):
        monkeypatch.setattr(fitting, "run_memory", lambda: 1e9)
        monkeypatch.setattr(fitting, "memory_needed", lambda _, needed=needed: {"weights": needed})
        assert words in fits("demo")
    assert fits("/nowhere/at/all").startswith("not here")
