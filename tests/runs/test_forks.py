"""Going on from a run with other settings, and the command line's side of steering."""

from __future__ import annotations

import json

import pytest

from pip_core.cli import main as command
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.recipe import OURS
from pip_core.engine.run import check
from pip_core.runs import operations, run_directory

from .. import tiny, zoo
from ..removals import THREE, TWO, WIDTH, removed_blocks, removed_units


def test_a_fork_takes_over_what_was_decided_and_measured(finished, tmp_path, recipe):
    before = run_directory.read_events(finished)
    operations.fork(finished, tmp_path / "fork", {"method": "pip", "target": THREE}, 1, "mine")
    taken = run_directory.read_events(tmp_path / "fork")
    assert taken[0] == ev.Forked("mine", 1, ("method", "target"))
    started = tiny.only(taken, ev.Started)
    assert [(s.method, s.target, s.planned, s.resumed) for s in started] == [("pip", THREE, 3, 1)]
    assert removed_blocks(taken) == removed_blocks(before)[:1]
    again = list(run_directory.work(tmp_path / "fork"))
    assert isinstance(again[-1], ev.Finished)
    assert [e.iteration for e in tiny.only(again, ev.Evaluated)] == [2, 3]
    assert [e.iteration for e in tiny.only(again, ev.Scored)] == [2, 3]
    assert run_directory.read_events(finished) == before


def test_a_fork_with_nothing_changed_ends_as_the_other(finished, tmp_path):
    operations.fork(finished, tmp_path / "fork", {}, 1)
    list(run_directory.work(tmp_path / "fork"))
    assert removed_units(run_directory.read_events(tmp_path / "fork")) == removed_units(
        run_directory.read_events(finished)
    )
    ours, theirs = ((f / "model" / "model.safetensors").read_bytes() for f in (finished, tmp_path / "fork"))
    assert ours == theirs


def test_what_a_run_chose_itself_is_no_change_where_the_same_is_asked_for(finished, tmp_path, recipe):
    assert recipe.weights == ""
    made, kept = operations.forked(finished, recipe.to_dict(), 1)
    assert made == run_directory.recipe_of(finished)
    assert made.weights
    assert kept[0].changed == ()
    operations.begin(tmp_path / "fork", made, kept)
    assert operations.forked(tmp_path / "fork", recipe.to_dict(), 1)[1][0].changed == ()
    assert operations.forked(finished, {"dtype": "bfloat16"}, 1)[1][0].changed == ("dtype",)


def test_a_fork_of_all_is_exported_as_it_is(finished, tmp_path):
    operations.fork(finished, tmp_path / "fork", {})
    found = list(run_directory.work(tmp_path / "fork"))
    assert not tiny.only(found, ev.Removed)
    assert not tiny.only(found, ev.Evaluated)
    assert tiny.only(found, ev.Exported)[0].iterations == 2


def test_other_questions_are_measured_anew_where_it_matters(finished, tmp_path):
    operations.fork(finished, tmp_path / "fork", {"items": 3}, 1)
    assert not tiny.only(run_directory.read_events(tmp_path / "fork"), ev.Evaluated)
    assert tiny.only(run_directory.read_events(tmp_path / "fork"), ev.Scored)
    found = list(run_directory.work(tmp_path / "fork"))
    assert [e.iteration for e in tiny.only(found, ev.Evaluated)] == [0, 1, 2]
    assert {t.items for e in tiny.only(found, ev.Evaluated) for t in e.tasks} == {3}


def test_a_fork_to_another_model_of_the_same_shape(finished, tmp_path, tokenizer, checkpoints):
    sibling = tmp_path / "sibling"
    zoo.build("llama", seed=1).save_pretrained(sibling)
    tokenizer.save_pretrained(sibling)
    operations.fork(finished, tmp_path / "fork", {"model": str(sibling)}, 1)
    taken = run_directory.read_events(tmp_path / "fork")
    assert [type(e) for e in taken] == [ev.Forked, ev.Removed]
    assert isinstance(list(run_directory.work(tmp_path / "fork"))[-1], ev.Finished)
    with pytest.raises(UserError, match="their blocks are not alike"):
        operations.fork(finished, tmp_path / "other", {"model": str(checkpoints["gpt2"])}, 1)
    assert not (tmp_path / "other").exists()
    operations.fork(finished, tmp_path / "other", {"model": str(checkpoints["gpt2"])}, 0)


@pytest.mark.parametrize(
    ("changes", "upto", "message"),
    [
        ({"units": ("channels",)}, 1, "blocks were removed already, and a run removes one kind of units"),
        ({}, 3, "choose 0 to 2, not 3"),
        ({}, -1, "choose 0 to 2"),
        ({"colour": 1}, 1, "No recipe has the setting colour"),
        ({"target": 0.1}, 2, "more than a target of 10.0 %"),
        ({"target": 2}, 1, "cannot be pruned"),
        ({"drop": (0, 1)}, 1, "9.5 % of the parameters were removed already, and the 2 blocks to drop"),
        ({"method": "no-such"}, 1, "no-such"),
    ],
)
def test_forks_that_cannot_be(finished, tmp_path, changes, upto, message):
    with pytest.raises(UserError) as refused:
        operations.fork(finished, tmp_path / "fork", changes, upto)
    assert message in str(refused.value)
    assert not (tmp_path / "fork").exists()


def test_a_block_that_is_gone_cannot_be_kept(finished, tmp_path):
    first = removed_blocks(run_directory.read_events(finished))[0]
    with pytest.raises(UserError, match=f"Block {first} is to be kept, but something was removed"):
        operations.fork(finished, tmp_path / "fork", {"keep": (first,)}, 1)
    operations.fork(finished, tmp_path / "fork", {"keep": (first,)}, 0)
    list(run_directory.work(tmp_path / "fork"))
    assert first not in removed_blocks(run_directory.read_events(tmp_path / "fork"))


def test_forks_keep_what_was_taken_back_unless_told_otherwise(finished, tmp_path):
    undone = removed_blocks(run_directory.read_events(finished))[1]
    operations.undo(finished)
    operations.fork(finished, tmp_path / "a", {"target": TWO}, 1)
    list(run_directory.work(tmp_path / "a"))
    assert undone not in removed_blocks(run_directory.read_events(tmp_path / "a"))
    other = next(
        b for b in range(5) if b != undone and b not in removed_blocks(run_directory.read_events(finished))
    )
    operations.fork(finished, tmp_path / "b", {"keep": (other,)}, 1)
    list(run_directory.work(tmp_path / "b"))
    assert removed_blocks(run_directory.read_events(tmp_path / "b"))[1] == undone


def test_equal_widths_cannot_go_on_from_unequal_ones(tmp_path, recipe):
    wide = recipe.replace(**WIDTH, allocation="global", plain=False)
    run_directory.create(tmp_path / "run", wide)
    list(run_directory.work(tmp_path / "run"))
    with pytest.raises(UserError, match="blocks alike"):
        operations.fork(tmp_path / "run", tmp_path / "fork", {"allocation": "equal", "plain": True}, 1)


def test_another_method_goes_on_with_what_the_run_removes(tmp_path, recipe):
    """Blocks are what `pip` usually removes, without a refit."""
    narrow = recipe.replace(method=OURS, units=("channels",), refit=True)
    assert narrow.automatic().keys() >= {"units", "refit"}
    run_directory.create(tmp_path / "run", narrow)
    list(run_directory.work(tmp_path / "run"))
    operations.fork(tmp_path / "run", tmp_path / "fork", {"method": "pip"}, 1)
    assert tiny.asked_recipe(tmp_path / "fork") == narrow.replace(method="pip")
    assert isinstance(list(run_directory.work(tmp_path / "fork"))[-1], ev.Finished)


def test_history_of_another_model_is_refused_before_it_is_loaded(finished, checkpoints):
    with pytest.raises(UserError, match="This run began with"):
        check(
            run_directory.recipe_of(finished).replace(model=str(checkpoints["gpt2"])),
            run_directory.read_events(finished),
        )


def test_undo_extend_and_fork_from_the_command_line(finished, tmp_path, capsys):
    first, second = removed_blocks(run_directory.read_events(finished))
    assert command.main(["undo", str(finished)]) == 0
    assert f"Undone: block {second} " in capsys.readouterr().out
    assert command.main(["extend", str(finished), "--target", str(THREE)]) == 0
    capsys.readouterr()
    assert removed_blocks(run_directory.read_events(finished))[0] == first
    assert len(removed_blocks(run_directory.read_events(finished))) == 3
    forked = [
        "fork",
        str(finished),
        "--out",
        str(tmp_path / "fork"),
        "--upto",
        "1",
        "--keep",
        "",
        "--seed",
        "5",
    ]
    assert command.main(forked) == 0
    assert run_directory.recipe_of(tmp_path / "fork").seed == 5
    assert removed_blocks(run_directory.read_events(tmp_path / "fork"))[0] == first
    capsys.readouterr()
    assert command.main(["runs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(i["id"], i["state"], i["iterations"]) for i in found} == {
        ("run", "finished", 3),
        ("fork", "finished", 3),
    }
    assert command.main(["runs", str(tmp_path)]) == 0
    assert "run  finished     llama, 29 % by pip-gate: 28.5 % removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["undo", "nowhere"],
        ["extend", "nowhere", "--target", "0.3"],
        ["fork", "nowhere", "--out", "new"],
        ["runs", "nowhere"],
    ],
)
def test_commands_on_what_is_not_there(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_lists_of_blocks_on_the_command_line():
    given = command.given_settings(["prune", "--out", "x", "--keep", "0, 3", "--drop", "2"])
    assert given == {"keep": (0, 3), "drop": (2,)}
