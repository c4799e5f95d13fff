"""Runs that version 0.1 wrote (tests/fixtures/runs_0_1): they open, resume and fork."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pip_core.core import events as ev
from pip_core.reporting.messages import sentence
from pip_core.runs import operations, run_directory
from pip_core.runs.index import RunIndex

from .. import tiny
from ..removals import removed_blocks

RUNS = tiny.ROOT / "tests" / "fixtures" / "runs_0_1"
# What version 0.1 removed from the demo model, in order.
REMOVED = [10, 6, 3]


@pytest.fixture
def old(tmp_path):
    def copied(name: str) -> Path:
        return Path(shutil.copytree(RUNS / name, tmp_path / name))

    return copied


@pytest.mark.parametrize("name", ["finished", "stopped", "tokens_and_refit"])
def test_it_opens_and_every_event_has_its_sentence(old, name):
    folder = old(name)
    recipe = run_directory.recipe_of(folder)
    summary, state = RunIndex().summary(folder)
    assert state == ("stopped" if name == "stopped" else "finished")
    assert summary.dense is not None
    assert recipe.target == 0.2
    for event in run_directory.read_events(folder):
        assert sentence(event)


def test_what_followed_the_last_removal_is_read(old):
    summary, _ = RunIndex().summary(old("tokens_and_refit"))
    assert set(summary.results) == {"vocabulary", "refit"}
    assert summary.results["vocabulary"].tokens == 11_696
    assert "11,696 of 49,152 tokens" in summary.removed_description
    assert summary.final is not None


def test_a_stopped_run_goes_on_as_version_0_1_would_have(old):
    folder = old("stopped")
    assert removed_blocks(run_directory.read_events(folder)) == REMOVED[:2]
    assert isinstance(list(run_directory.work(folder))[-1], ev.Finished)
    assert removed_blocks(run_directory.read_events(folder)) == REMOVED
    before, after = (
        tiny.only(run_directory.read_events(f), ev.Evaluated)[-1] for f in (RUNS / "finished", folder)
    )
    assert (after.iteration, after.parameters) == (before.iteration, before.parameters)
    assert after.perplexity == pytest.approx(before.perplexity, rel=1e-3)


def test_a_finished_run_is_forked(old, tmp_path):
    operations.fork(old("finished"), tmp_path / "fork", {"seed": 1}, 1)
    assert isinstance(list(run_directory.work(tmp_path / "fork"))[-1], ev.Finished)
    assert removed_blocks(run_directory.read_events(tmp_path / "fork"))[0] == REMOVED[0]


def test_a_removal_is_undone(old):
    folder = old("finished")
    operations.undo(folder)
    assert removed_blocks(run_directory.read_events(folder)) == REMOVED[:2]
