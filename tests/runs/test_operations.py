"""Having a hand in a run: removals taken back, other targets."""

from __future__ import annotations

import json

import pytest

from pip_core.cli.recipe_files import read_recipe
from pip_core.core import events as ev
from pip_core.core.decisions import is_open
from pip_core.core.errors import UserError
from pip_core.engine.replay import ReplayState
from pip_core.engine.run import run
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs import files, operations, run_directory, worker
from pip_core.runs.recorded import Tail

from .. import tiny
from ..removals import THREE, TWO, removed_blocks, removed_units, work_until


def test_undone_then_resumed_goes_on_differently(finished, recipe):
    before = run_directory.read_events(finished)
    operations.undo(finished)
    after = run_directory.read_events(finished)
    last = ev.removals(before)[-1]
    assert after[len(before) :] == [ev.RemovalUndone(2, last.units), ev.Stopped(1)]
    assert after[: len(before)] == before  # nothing is ever taken out
    again = list(run_directory.work(finished))
    assert isinstance(again[-1], ev.Finished)
    found = run_directory.read_events(finished)
    assert removed_blocks(found)[:1] == removed_blocks(before)[:1]
    assert removed_blocks(found)[1] != removed_blocks(before)[1]
    assert tiny.only(again, ev.Started)[0].resumed == 1
    assert [e.iteration for e in tiny.only(again, ev.Evaluated)] == [2]
    # The views are those of that iteration, and so are the scores of what was not taken back.
    old, new = ([e for e in tiny.only(x, ev.Scored) if e.iteration == 2][-1] for x in (before, again))
    undone = last.blocks[0]
    assert new.scores[undone] is None
    assert [s for i, s in enumerate(new.scores) if i != undone] == [
        s for i, s in enumerate(old.scores) if i != undone
    ]


def test_what_was_taken_back_stays_after_another_undo_too(finished):
    first, second = removed_blocks(run_directory.read_events(finished))
    operations.undo(finished)
    operations.undo(finished)
    assert removed_blocks(run_directory.read_events(finished)) == []
    assert isinstance(list(run_directory.work(finished))[-1], ev.Finished)
    assert set(removed_blocks(run_directory.read_events(finished))).isdisjoint({first, second})
    assert len(removed_blocks(run_directory.read_events(finished))) == 2


def test_the_recipe_beside_a_steered_model_makes_it_again(finished, tmp_path):
    operations.undo(finished)
    list(run_directory.work(finished))
    again = read_recipe(finished / "model" / "pip_recipe.json")
    run_directory.create(tmp_path / "again", again)
    assert isinstance(list(run_directory.work(tmp_path / "again"))[-1], ev.Finished)
    ours, theirs = ((f / "model" / "model.safetensors").read_bytes() for f in (finished, tmp_path / "again"))
    assert ours == theirs
    assert "prune --recipe pip_recipe.json" in (finished / "model" / "README.md").read_text()


def test_a_steered_width_run_says_that_its_recipe_does_not_tell_it(tmp_path, recipe):
    run_directory.create(tmp_path / "run", recipe.replace(units=("channels",), target=0.1))
    list(run_directory.work(tmp_path / "run"))
    card = tmp_path / "run" / "model" / "README.md"
    assert "prune --recipe pip_recipe.json" in card.read_text()
    operations.undo(tmp_path / "run")
    assert isinstance(list(run_directory.work(tmp_path / "run"))[-1], ev.Finished)
    assert "prune --recipe pip_recipe.json" not in card.read_text()
    assert "changed on its way" in card.read_text()


def test_a_block_that_was_asked_to_go_can_be_taken_back(tmp_path, recipe):
    run_directory.create(tmp_path / "run", recipe.replace(drop=(0, 3)))
    list(run_directory.work(tmp_path / "run"))
    operations.undo(tmp_path / "run")
    list(run_directory.work(tmp_path / "run"))
    found = run_directory.read_events(tmp_path / "run")
    assert removed_blocks(found)[0] == 0
    assert 3 not in removed_blocks(found)
    assert len(removed_blocks(found)) == 2
    assert not ev.removals(found)[-1].forced


def test_nothing_to_take_back(tmp_path, recipe):
    run_directory.create(tmp_path / "run", recipe)
    with pytest.raises(UserError, match="Nothing has been removed yet"):
        operations.undo(tmp_path / "run")
    assert not (tmp_path / "run" / files.UNDO).exists()


def test_undo_stops_a_worker_which_then_does_it(tmp_path, recipe):
    folder = tmp_path / "run"
    run_directory.create(folder, recipe.replace(target=THREE))
    second = work_until(
        folder, lambda e: isinstance(e, ev.Removed) and e.iteration == 2, lambda: operations.undo(folder)
    )
    assert [type(e) for e in second[-3:]] == [ev.Stopped, ev.RemovalUndone, ev.Stopped]
    assert second[-1] == ev.Stopped(1)
    assert run_directory.read_events(folder) == second
    assert not (folder / files.UNDO).exists()


def test_asked_twice_it_is_done_once(tmp_path, recipe):
    folder = tmp_path / "run"
    run_directory.create(folder, recipe.replace(target=THREE))

    def twice() -> None:
        operations.undo(folder)
        operations.undo(folder)
        assert worker.state(folder, None, True, True) == "stopping"

    found = work_until(folder, lambda e: isinstance(e, ev.Removed) and e.iteration == 2, twice)
    assert len(tiny.only(found, ev.RemovalUndone)) == 1
    assert len(ev.removals(found)) == 1


def test_what_came_after_what_was_seen_is_taken_back_but_may_go_again(finished):
    """The user saw one removal and asked; until the worker looked, another was decided."""
    first, second = ev.removals(run_directory.read_events(finished))
    (finished / files.UNDO).write_text("1")
    run_directory.apply_pending_undo(finished)
    history = ReplayState.of(run_directory.read_events(finished))
    assert history.removals == ()
    assert history.pinned_units == {("blocks", first.blocks[0], 0)}
    assert [e.iteration for e in history.measured] == [0]
    assert second.blocks[0] not in first.blocks


def test_a_request_left_behind_by_a_killed_worker_is_seen_to_by_the_next(finished):
    (finished / files.UNDO).write_text("2")
    found = list(run_directory.work(finished))
    assert [type(e) for e in found[:2]] == [ev.RemovalUndone, ev.Stopped]
    assert isinstance(found[-1], ev.Finished)
    assert not (finished / files.UNDO).exists()


def test_undo_asked_when_the_worker_has_looked_for_the_last_time(finished, monkeypatch):
    taken, last = run_directory.apply_undo, []

    def late(folder):
        yield from taken(folder)
        last.append(folder)
        if len(last) == 2:  # the look after the run; its lock is held still
            operations.undo(folder)

    monkeypatch.setattr(run_directory, "apply_undo", late)
    list(run_directory.work(finished))
    assert len(last) == 3
    assert isinstance(run_directory.read_events(finished)[-2], ev.RemovalUndone)
    assert not (finished / files.UNDO).exists()


def test_undo_of_a_paused_run_leaves_it_paused(tmp_path, recipe):
    folder = tmp_path / "run"
    run_directory.create(folder, recipe)
    found = work_until(
        folder,
        lambda e: isinstance(e, ev.Removed),
        lambda: files.write(folder / files.PAUSE, ""),
    )
    assert found[-1] == ev.Paused(1)
    assert not (folder / files.PAUSE).exists()
    operations.undo(folder)
    assert run_directory.read_events(folder)[-1] == ev.Paused(0)


def test_a_story_is_without_what_was_taken_back(finished):
    operations.undo(finished)
    story = RunSummary()
    story.apply(Tail(finished).poll())
    assert [r.iteration for r in story.removals] == [1]
    assert sorted(story.evaluated) == [0, 1]
    assert {i for i, _ in story.scored} == {1}
    assert story.exported is None
    assert [u.iteration for u in story.undone] == [2]
    assert isinstance(story.ending, ev.Stopped)
    sentences = [text for _, text in story.sentences]
    assert any("Undone: block" in s for s in sentences)


def test_time_in_which_nobody_worked_does_not_count():
    story = RunSummary()
    story.apply(
        [
            (ev.Loading("loading x"), 100.0),
            (ev.Progress("scoring", 1, 1, 2, 1.0, 1.0), 104.0),  # killed here
            (ev.Loading("loading x"), 1000.0),
            (ev.Loading("loading x"), 1001.0),
            (ev.Stopped(0), 1003.0),
            (ev.TargetExtended(0.2, 0.3), 5000.0),
            (ev.Loading("loading x"), 6000.0),
            (ev.Stopped(0), 6002.0),
        ]
    )
    assert story.worked == 9.0
    # Nor does a clock that is set back take time away.
    story.apply([(ev.Loading("x"), 200.0), (ev.Loading("x"), 20.0), (ev.Loading("x"), 21.0)])
    assert story.worked == 10.0


def test_extended_as_if_it_had_been_meant_from_the_start(finished, recipe):
    export_before = (finished / "model" / "model.safetensors").read_bytes()
    before = run_directory.read_events(finished)
    operations.extend(finished, THREE)
    assert tiny.asked_recipe(finished) == recipe.replace(target=THREE)
    assert run_directory.read_events(finished) == [*before, ev.TargetExtended(recipe.target, THREE)]
    assert (finished / "model" / "model.safetensors").read_bytes() == export_before
    again = list(run_directory.work(finished))
    assert [e.iteration for e in tiny.only(again, ev.Evaluated)] == [3]
    afresh = list(run(recipe.replace(target=THREE)))
    assert removed_units(run_directory.read_events(finished)) == removed_units(afresh)
    assert [r.score for r in ev.removals(run_directory.read_events(finished))] == [
        r.score for r in ev.removals(afresh)
    ]
    config = json.loads((finished / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    # One block at a time, the recipe alone tells it.
    beside = json.loads((finished / "model" / "pip_recipe.json").read_text())["recipe"]
    assert (beside["target"], beside["drop"]) == (THREE, [])


@pytest.mark.parametrize("target", [0.1, TWO, 0.21])
def test_a_target_that_is_reached_is_refused(finished, recipe, target):
    before = run_directory.read_events(finished)
    with pytest.raises(UserError, match=r"would remove nothing more: 19.0 %"):
        operations.extend(finished, target)
    assert tiny.asked_recipe(finished) == recipe
    assert run_directory.read_events(finished) == before


@pytest.mark.parametrize("aim", [{"target_speedup": "decode:1.3"}, {"target_bytes": "330 kB"}], ids=str)
def test_a_share_takes_the_place_of_bytes_and_of_a_speed_up(tmp_path, recipe, aim):
    """Whether or not the run has measured yet what its aim takes."""
    folder = tmp_path / "run"
    run_directory.create(folder, recipe.replace(**aim))
    operations.extend(folder, TWO)
    expected = recipe.replace(target=TWO)
    assert tiny.asked_recipe(folder) == expected
    # Where a crash came between the event and the recipe, the event tells it.
    history = run_directory.read_events(folder)
    assert run_directory._with_last_target(recipe.replace(**aim), history) == expected
    run_directory.create(tmp_path / "other", recipe.replace(**aim))
    assert operations.forked(tmp_path / "other", {"target": TWO})[0] == expected
    assert not is_open(expected)


def test_an_impossible_target_is_refused(finished, recipe):
    with pytest.raises(UserError, match="Choose at most 38 %"):
        operations.extend(finished, 0.6)
    assert tiny.asked_recipe(finished) == recipe


def test_a_target_is_not_changed_under_a_worker(tmp_path, recipe):
    run_directory.create(tmp_path / "run", recipe)
    refused = []

    def extend() -> None:
        with pytest.raises(UserError, match="still running") as found:
            operations.extend(tmp_path / "run", THREE)
        refused.append(found)

    work_until(tmp_path / "run", lambda e: isinstance(e, ev.Removed) and e.iteration == 1, extend)
    assert refused
    assert tiny.asked_recipe(tmp_path / "run") == recipe


def test_an_early_stop_can_be_given_a_nearer_target(tmp_path, recipe):
    folder = tmp_path / "run"
    run_directory.create(folder, recipe.replace(target=THREE))
    work_until(folder, lambda e: isinstance(e, ev.Removed), lambda: run_directory.request_stop(folder))
    before = run_directory.read_events(folder)
    operations.extend(folder, THREE)  # its own: there is nothing to change, the run is only to be resumed
    assert run_directory.read_events(folder) == before
    operations.extend(folder, TWO)
    list(run_directory.work(folder))
    assert len(ev.removals(run_directory.read_events(folder))) == 2
