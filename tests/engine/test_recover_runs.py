"""Recovery as a stage of a run: what it says, and that stop, kill and resume lead to the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from pip_core.checkpoints.export import RECIPE
from pip_core.cli import main as command
from pip_core.core import events as ev
from pip_core.core.curve import CurvePoint
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.engine import state as engine_state
from pip_core.engine.run import check, run
from pip_core.engine.stages import recover as module
from pip_core.engine.stages.recover_result import Paced, Recovered, begins_anew
from pip_core.planning.estimate import make_plan, memory_for
from pip_core.recovery import pace, trainer
from pip_core.recovery.pace import Pace
from pip_core.reporting.messages import sentence
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs import operations, run_directory
from pip_core.runs.files import SCRATCH
from pip_core.ui import stage_curves

from .. import tiny
from ..processes import warm_server

TOKENS = 4096


@pytest.fixture(autouse=True)
def _no_questions(monkeypatch):
    """Asked in one test below; the tiny models know no answers."""
    monkeypatch.setattr(module, "TASKS", ())


@pytest.fixture(scope="module")
def recovering(recipe) -> Recipe:
    """With fewer tokens, and measured at the end alone."""
    return recipe.replace(
        recover="short",
        recover_tokens=TOKENS,
        recover_rate=1e-3,
        recover_text="calibration",
        vocabulary=0.3,
        refit=True,
        refit_tokens=2048,
        measure="end",
        items=2,
    )


def work(folder: Path, recipe: Recipe, **options) -> list[ev.Event]:
    run_directory.create(folder, recipe)
    return list(run_directory.work(folder, **options))


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def refitting(events: list[ev.Event]) -> bool:
    return any(e.stage == "refitting" for e in tiny.only(events, ev.Progress))


def same(one: Path, other: Path) -> bool:
    left, right = exported(one), exported(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def undisturbed(recovering, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TASKS", ())
        return work(folder, recovering), folder


def test_a_run_learns_and_says_so(undisturbed, recovering):
    events, folder = undisturbed
    (found,) = tiny.only(events, Recovered)
    assert isinstance(events[-1], ev.Finished), events[-1]
    assert found.tokens == TOKENS
    assert 0 < found.kept <= TOKENS
    assert found.after < found.before
    steps = [e for e in tiny.only(events, ev.Progress) if e.stage == "recovering"]
    assert steps[-1].done == steps[-1].total == TOKENS
    points = tiny.only(events, CurvePoint)
    assert [p.x for p in points] == sorted({p.x for p in points})
    assert {"divergence, held-out text", "divergence, text learnt from"} == {
        name for name, _ in points[-1].values
    }
    assert "tokens/s" in points[-1].note
    assert "Recovery: What was left learnt" in (folder / "model" / "README.md").read_text()
    assert not (folder / SCRATCH).exists()
    assert tiny.only(events, ev.Evaluated)[-1].final
    summary = RunSummary()
    summary.apply((event, float(n)) for n, event in enumerate(events))
    drawn = stage_curves.stage_curves(summary)
    assert [(line["name"], line["yaxis"]) for line in drawn["data"]] == [
        ("held-out text", "y"),
        ("text learnt from", "y"),
    ]
    assert [one["text"] for one in drawn["layout"]["annotations"]] == ["divergence, nats"]
    # Another quantity has a row of its own, whose title says all of it.
    points = [replace(p, values=(*p.values, ("right answers, -log p", 0.1))) for p in points]
    drawn = stage_curves.stage_curves(replace(summary, curves={points[0].title: points}))
    assert ("y2", False) in [(line["yaxis"], line["showlegend"]) for line in drawn["data"]]
    assert drawn["layout"]["annotations"][-1]["text"].startswith("right answers, -log p")
    assert "tokens learnt from" in stage_curves.curve_table(summary)


def test_what_is_removed_does_not_depend_on_it(undisturbed, recovering):
    plain = list(run(recovering.replace(recover="off")))
    assert tiny.only(plain, ev.Removed) == tiny.only(undisturbed[0], ev.Removed)
    assert not tiny.only(plain, Recovered)


def test_stopped_on_the_way_and_resumed_alike(undisturbed, recovering, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    stops, timed = 0, []

    def measure(pruned, dense, ids, same, kept, writes):
        assert not timed, "what was decided is not measured anew"
        timed.append((yield from pace.measure(pruned, dense, ids, same, kept, writes)))
        return Pace(60 / TOKENS, 0.0, 0.0)

    monkeypatch.setattr(module, "measure", measure)
    # The minute is as many tokens: what the clock said meanwhile is left out.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    run_directory.create(folder, recovering.replace(recover_tokens=0, recover_minutes=1))
    for event in run_directory.work(folder):
        if isinstance(event, ev.Progress) and event.stage == "recovering" and event.done >= 2048:
            run_directory.request_stop(folder)
    assert isinstance(event, ev.Stopped)
    assert timed[0].learning > 0
    for event in run_directory.work(folder):
        if isinstance(event, ev.Progress) and event.stage == "recovering":
            assert event.done >= 2048
            stops += 1
    assert stops
    assert isinstance(event, ev.Finished)
    assert same(folder, undisturbed[1])
    (decided,) = tiny.only(run_directory.read_events(folder), Paced)
    assert decided.tokens == TOKENS
    # Elsewhere a minute would be other tokens: the recipe that leads to this model names these.
    assert json.loads((folder / "model" / RECIPE).read_text())["recipe"]["recover_tokens"] == TOKENS
    summary = RunSummary()
    summary.apply((e, float(n)) for n, e in enumerate(run_directory.read_events(folder)))
    (points,) = summary.curves.values()
    assert [p.x for p in points] == [p.x for p in tiny.only(undisturbed[0], CurvePoint)]


def test_killed_on_the_way_and_resumed_alike(undisturbed, recovering, tmp_path):
    folder = tmp_path / "run"
    # The questions that the process would ask are measured, so that it asks none.
    run_directory.create(folder, recovering)
    script = (
        "from pip_core.engine.stages import recover; recover.TASKS = (); import sys, pathlib; "
        "from pip_core.runs import run_directory; list(run_directory.work(pathlib.Path(sys.argv[1])))"
    )
    nowhere = subprocess.DEVNULL
    worker = warm_server().start(
        "tests.command", ["-c", script, str(folder)], os.environ, nowhere, nowhere, nowhere
    )
    while len(tiny.only(run_directory.read_events(folder), CurvePoint)) < 3:
        assert worker.poll() is None
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert (folder / SCRATCH / "recover-state.pt").exists()
    events = list(run_directory.work(folder))
    assert isinstance(events[-1], ev.Finished)
    assert len(tiny.only(events, CurvePoint)) < len(tiny.only(undisturbed[0], CurvePoint))
    assert same(folder, undisturbed[1])
    # What recovery goes on from was refitted.
    assert refitting(undisturbed[0])
    assert not refitting(events)
    assert "Repair: " in (folder / "model" / "README.md").read_text()


def no_memory(*given, **named):
    raise torch.OutOfMemoryError("out of memory")


def test_exported_as_it_is_after_a_stop(undisturbed, recovering, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run_directory.create(folder, recovering)
    for event in run_directory.work(folder):
        if isinstance(event, ev.Progress) and event.stage == "recovering" and event.done >= 2048:
            run_directory.request_stop(folder)
    for name in ("changed", "little"):
        shutil.copytree(folder, tmp_path / name)
    with monkeypatch.context() as patch:
        # Somebody changed the dense model after it was loaded: nothing is learnt from that, and nothing lost.
        patch.setattr(engine_state, "weights_sha256", lambda place: "other")
        failed = list(run_directory.work(tmp_path / "changed"))[-1]
        assert isinstance(failed, ev.Failed)
        assert (failed.stage, "have changed" in failed.message) == ("recover", True)
        assert (tmp_path / "changed" / SCRATCH / "recover-state.pt").exists()
        # Exported without that stage, it is the best state until then all the same.
        left = list(run_directory.work(tmp_path / "changed", prune_on=False))
        (found,) = tiny.only(left, Recovered)
        assert (isinstance(left[-1], ev.Finished), found.kept > 0) == (True, True)
        assert not refitting(left)
        (warning,) = tiny.only(left, ev.Warned)
        assert "had come to before it failed: The weights of" in warning.message
        assert warning.message in (tmp_path / "changed" / "model" / "README.md").read_text()
    with monkeypatch.context() as patch:
        # No memory for it any more: what was learnt until then is kept.
        patch.setattr(engine_state, "load_folder", no_memory)
        (found,) = tiny.only(list(run_directory.work(tmp_path / "little")), Recovered)
        assert found.kept > 0
        assert "Memory ran out" in sentence(found)
    events = list(run_directory.work(folder, prune_on=False))
    (found,) = tiny.only(events, Recovered)
    assert isinstance(events[-1], ev.Finished)
    assert 0 < found.tokens < TOKENS
    assert "ended there" in sentence(found)
    assert not same(folder, undisturbed[1])
    assert same(folder, tmp_path / "changed")
    # The recipe alone would learn on.
    assert "does not reproduce" in (folder / "model" / "README.md").read_text()


def gone(*given):
    raise UserError("It is gone.")


def test_exported_before_anything_was_learnt(recovering, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run_directory.create(folder, recovering.replace(recover_text="written"))
    for event in run_directory.work(folder):
        if isinstance(event, ev.Progress) and event.stage == "writing":
            run_directory.request_stop(folder)
    assert isinstance(event, ev.Stopped)
    for name in ("written", "fails"):
        shutil.copytree(folder, tmp_path / name)
    with monkeypatch.context() as patch:
        patch.setattr(module.Material, "write", gone)
        assert list(run_directory.work(tmp_path / "fails"))[-1] == ev.Failed("It is gone.", "recover")
    for name in ("written", "fails"):
        events = list(run_directory.work(tmp_path / name, prune_on=False))
        assert isinstance(events[-1], ev.Finished)
        assert not {e.stage for e in tiny.only(events, ev.Progress)} & {"writing", "recovering"}
    assert same(tmp_path / "written", tmp_path / "fails")
    (found,) = tiny.only(run_directory.read_events(tmp_path / "written"), Recovered)
    assert "Nothing was learnt" in sentence(found)
    assert "ended there" in sentence(found)
    assert not tiny.only(events, Recovered)
    assert "without 'Recover'" in tiny.only(events, ev.Warned)[0].message


def test_any_run_can_be_recovered_later(undisturbed, recovering, tmp_path):
    folder = tmp_path / "run"
    work(folder, recovering.replace(recover="off"))
    before = exported(folder)
    # Even where it was tried, and failed.
    run_directory.record(folder, [ev.Failed("The disk was full.", "recover")])
    assert command.main(["recover", str(folder)]) == 0
    events = run_directory.read_events(folder)
    assert run_directory.recipe_of(folder).recover == "short"
    assert same(folder, undisturbed[1])
    assert any(not torch.equal(value, exported(folder)[name]) for name, value in before.items())
    finals = [e for e in ev.effective_events(events) if isinstance(e, ev.Evaluated) and e.final]
    assert len(finals) == 1
    assert finals[0].perplexity == tiny.only(undisturbed[0], ev.Evaluated)[-1].perplexity
    with pytest.raises(UserError, match="has these settings already"):
        operations.repeat(folder, "recover", {})
    learnt = exported(folder)
    # A longer one goes on from there, on text that was not read yet, also where it was killed meanwhile.
    operations.repeat(folder, "recover", {"recover_tokens": 2 * TOKENS})
    killed = run_directory.work(folder, prune_on=False)
    next(e for e in killed if isinstance(e, CurvePoint))
    killed.close()
    events = list(run_directory.work(folder))
    assert not refitting(events)
    assert "Repair: " in (folder / "model" / "README.md").read_text()
    (found,) = tiny.only(events, Recovered)
    assert (found.earlier, found.tokens) == (TOKENS, TOKENS)
    assert f"{TOKENS:,} and then {TOKENS:,}" in sentence(found)
    assert found.before == pytest.approx(tiny.only(undisturbed[0], Recovered)[0].after, rel=0.02)
    assert found.after < found.before
    assert tiny.only(events, CurvePoint)[-1].x == 2 * TOKENS
    assert any(not torch.equal(value, exported(folder)[name]) for name, value in learnt.items())
    assert "does not reproduce" in (folder / "model" / "README.md").read_text()
    assert not begins_anew(run_directory.read_events(folder), 2 * TOKENS)
    operations.repeat(folder, "recover", {"recover_rate": 2e-3})
    assert "recover_rate" in begins_anew(run_directory.read_events(folder), 2 * TOKENS)
    with pytest.raises(UserError, match="depends on target"):
        operations.repeat(folder, "recover", {"target": 0.5})
    operations.undo(folder)
    assert not tiny.only(ev.effective_events(run_directory.read_events(folder)), Recovered | CurvePoint)


def test_the_option_is_the_stages_own(capsys):
    assert command.main(["recover", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--recover-tokens" in shown
    assert "--calibration" not in shown


def test_a_recovery_that_fails_leaves_the_model_as_it_was(recovering, tmp_path, monkeypatch):
    faults = {
        "dense": (engine_state, "load_folder", no_memory, "memory ran out"),
        "memory": (trainer, "learn", no_memory, "memory ran out"),
        "divergence": (trainer, "learn", lambda *given: float("nan"), "not finite"),
    }
    # Without tokens removed nothing else changes the model either, and it is measured all the same.
    kept = recovering.replace(vocabulary=0.0, refit=False)
    work(tmp_path / "plain", kept.replace(recover="off"))
    for name, (where, function, failing, words) in faults.items():
        with monkeypatch.context() as patch:
            patch.setattr(where, function, failing)
            events = work(tmp_path / name, kept)
        assert not tiny.only(events, ev.Evaluated)[-1].final
        assert isinstance(events[-1], ev.Finished), events[-1]
        (found,) = tiny.only(events, Recovered)
        assert not found.kept
        assert "as it was" in sentence(found)
        assert words in found.ended.lower()
        assert same(tmp_path / "plain", tmp_path / name)


def test_questions_are_watched_and_the_dense_model_writes(recovering, monkeypatch):
    monkeypatch.setattr(module, "TASKS", ("facts",))
    asked = recovering.replace(recover_text="written", recover_tokens=3072, recover="until-level")
    events = list(run(asked))
    (found,) = tiny.only(events, Recovered)
    assert found.questions == 24
    assert "wrote" in found.text
    written = [e for e in tiny.only(events, ev.Progress) if e.stage == "writing"]
    assert written[-1].done >= 3072
    assert "right answers, -log p" in dict(tiny.only(events, CurvePoint)[-1].values)


def test_the_plan_knows_it(recovering, recipe):
    plain = recovering.replace(recover="off")
    assert "recovery" in memory_for(recovering)
    assert make_plan(recovering).seconds > make_plan(plain).seconds
    longer = recovering.replace(recover_tokens=0, recover="until-level")
    assert make_plan(longer).seconds > make_plan(recovering).seconds
    assert check(recovering)


def test_what_is_wrong_is_said_first(recovering, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="choose at least"):
        check(recovering.replace(recover_tokens=100))
    with pytest.raises(UserError, match="state one"):
        check(recovering.replace(recover_minutes=2))
    with pytest.raises(UserError, match="must not be measured on"):
        check(recovering.replace(recover_text="heldout", heldout="heldout"))
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: full)
    events = list(run(recovering, scratch=tmp_path / "scratch"))
    assert isinstance(events[-1], ev.Failed)
    assert "of the disk are free" in events[-1].message
    assert not tiny.only(events, ev.Progress)
    # What is there of an earlier attempt is written over.
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "recover-state.pt").open("wb").truncate(2**30)
    with closing(run(recovering, scratch=tmp_path / "scratch")) as going_on:
        assert any(isinstance(event, ev.Started) for event in going_on)


def test_recipes_without_it_are_read(recovering):
    written = json.loads(recovering.to_json())
    for name in [n for n in written if n.startswith("recover")]:
        del written[name]
    assert Recipe.from_json(json.dumps(written)).recover == "off"
