"""A stage that nobody in the package knows goes through all of it: run, command line, plan, page, card, undo,
kill and resume. That it does is what the design is for."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pip_core.core import events as ev
from pip_core.core.recipe import Recipe
from pip_core.engine.repeatable import COMMAND_OF_STAGE
from pip_core.engine.run import run
from pip_core.engine.stages import VARIABLE, repeatable, stage_types
from pip_core.planning.estimate import make_plan, memory_for
from pip_core.reporting.messages import sentence
from pip_core.runs import operations, run_directory
from pip_core.runs.queue import RunQueue
from pip_core.ui import refresh

from .. import tiny
from ..processes import cli, start
from .toy_stage import WAIT_FOR, Scaled, Toy

NAMED = f"{Toy.__module__}:{Toy.__qualname__}"
NORM = "model.norm.weight"


@pytest.fixture(autouse=True)
def _added(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, NAMED)


@pytest.fixture
def scaling(_added, recipe) -> Recipe:
    """The tiny model's recipe, with the stage's own setting."""
    return Recipe(**{**recipe.to_dict(), "toy_factor": 1.5})


def norm_of(folder: Path):
    return load_file(folder / "model" / "model.safetensors")[NORM]


def test_it_stands_where_it_says_and_leaves_no_trace_without_the_variable(monkeypatch):
    names = [kind.name for kind in stage_types()]
    assert names.index("toy") == names.index("refit") + 1
    assert "toy_factor" in Recipe.describe()
    monkeypatch.delenv(VARIABLE)
    assert "toy" not in [kind.name for kind in stage_types()]
    assert "toy_factor" not in Recipe.describe()


def test_a_command_of_a_stage_names_one_that_can_be_done_later():
    assert set(COMMAND_OF_STAGE) <= {kind.name for kind in repeatable()}


def test_a_run_does_it_measures_after_it_and_says_so(scaling, recipe):
    found, plain = list(run(scaling)), list(run(Recipe(**recipe.to_dict())))
    (scaled,) = tiny.only(found, Scaled)
    assert (scaled.iteration, scaled.factor) == (2, 1.5)
    assert tiny.only(found, ev.Removed) == tiny.only(plain, ev.Removed)
    before, after = [e for e in tiny.only(found, ev.Evaluated) if e.iteration == 2]
    assert (before.final, after.final) == (False, True)
    assert before.perplexity != after.perplexity
    assert any(e.stage == "toying" for e in tiny.only(found, ev.Progress))
    assert "scaled by 1.5" in sentence(scaled)


def test_the_plan_counts_it(scaling, recipe):
    assert memory_for(scaling)["toying"] == 1.0
    assert "Toy scaling" in make_plan(scaling).stages
    assert "Toy scaling" not in make_plan(Recipe(**recipe.to_dict())).stages


def test_the_command_line_page_card_and_undo_know_it(scaling, tmp_path):
    root = tmp_path / "runs"
    folder = root / "toy"
    (tmp_path / "recipe.json").write_text(scaling.replace(toy_factor=1.0).to_json())
    done = cli("prune", "--recipe", tmp_path / "recipe.json", "--toy-factor", "1.5", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "The last norm was scaled by 1.5." in done.stdout
    assert "--toy-factor" in cli("prune", "--help").stdout
    assert run_directory.recipe_of(folder).toy_factor == 1.5
    assert json.loads((folder / "model" / "pip_recipe.json").read_text())["recipe"]["toy_factor"] == 1.5
    assert "- Toy: The last norm was scaled by 1.5." in (folder / "model" / "README.md").read_text()

    shown = json.dumps(refresh.refresh(RunQueue(root), {}, "", [], []))
    assert "scaled" not in shown
    summary, _ = RunQueue(root).summary("toy") if RunQueue(root).folder("toy") else (None, None)
    if summary is None:  # folders of the command line are listed, not addressed
        from pip_core.runs.index import RunIndex

        summary, _ = RunIndex().summary(folder)
    from pip_core.ui import curves, status

    assert summary.results["toy"] == Scaled(2, 1.5)
    assert "scaled by 1.5" in status.log(summary)
    assert "last norm scaled" in curves.measurement_table(summary)

    operations.undo(folder)
    events = ev.effective_events(run_directory.read_events(folder))
    assert not tiny.only(events, Scaled)
    again = list(run_directory.work(folder))
    assert isinstance(again[-1], ev.Finished), again[-1]
    assert len(tiny.only(again, Scaled)) == 1


def test_killed_on_the_way_and_resumed_alike(scaling, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        run_directory.create(folder, scaling)
    assert isinstance(list(run_directory.work(undisturbed))[-1], ev.Finished)
    worker = start("resume", killed, **{WAIT_FOR: str(tmp_path / "never")})
    while not any(e.stage == "toying" for e in tiny.only(run_directory.read_events(killed), ev.Progress)):
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait(60)
    assert not (killed / "model").exists()
    assert isinstance(list(run_directory.work(killed))[-1], ev.Finished)
    assert (norm_of(killed) == norm_of(undisturbed)).all()
    assert not (norm_of(killed) == 1).all()
