"""The engine: the order of events, the greedy loop, stopping and going on."""

from __future__ import annotations

import errno
import itertools
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from pip_core.core import events as ev
from pip_core.core.device import user_message
from pip_core.core.errors import UserError
from pip_core.core.units import WIDTH, Units
from pip_core.engine import run as run_module
from pip_core.engine.evaluate import evaluate
from pip_core.engine.run import run
from pip_core.scoring import METHODS, Scorer, get_scorer
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.sites import sites_of

from .. import tiny, zoo
from ..bypass import logits_without

PASSING = (ev.Progress, ev.Loading)


@pytest.fixture(scope="module")
def events(recipe) -> list[ev.Event]:
    """An undisturbed run, without an export."""
    return list(run(recipe))


def removed_blocks(events) -> list[int]:
    return [block for e in tiny.only(events, ev.Removed) for block in e.blocks]


def timeless(events) -> list[ev.Event]:
    """What a run found, without how long it took."""
    kept = [e for e in events if isinstance(e, ev.Scored | ev.Removed | ev.Evaluated)]
    return [replace(e, seconds=0.0) if hasattr(e, "seconds") else e for e in kept]


def test_order_of_events(events):
    order = [type(e).__name__ for e in events if not isinstance(e, PASSING)]
    assert order == ["Started", "Evaluated", *["Scored", "Removed", "Evaluated"] * 2, "Finished"]
    assert isinstance(events[0], ev.Loading)
    stages = [e.stage for e in events if isinstance(e, ev.Progress)]
    assert [s for s, _ in itertools.groupby(stages)] == ["measuring", *["scoring", "measuring"] * 2]


def test_started_tells_the_plan(events, recipe):
    (started,) = tiny.only(events, ev.Started)
    model = zoo.build("llama")
    assert started.parameters == sum(p.numel() for p in model.parameters())
    assert started.goal == "2 of 5 blocks"
    assert started.units == ("blocks",)
    assert (started.blocks, started.planned, started.resumed) == (5, 2, 0)
    assert started.planned_share == pytest.approx(2 * 9280 / started.parameters)
    assert (started.model_type, started.dtype, started.device) == ("llama", "float32", "cpu")
    assert (started.method, started.target) == (recipe.method, 0.2)
    shares = [n * 9280 / started.parameters for n in range(1, 5)]
    assert min(shares, key=lambda s: abs(s - 0.2)) == started.planned_share


def test_scores_name_every_dense_block(events):
    gone: set[int] = set()
    for scored, removed in zip(tiny.only(events, ev.Scored), tiny.only(events, ev.Removed), strict=True):
        assert len(scored.scores) == 5
        assert {i for i, s in enumerate(scored.scores) if s is None} == gone
        present = {i: s for i, s in enumerate(scored.scores) if s is not None}
        (block,) = removed.blocks
        assert removed.units == (Units("blocks", block, (0,)),)
        assert block == min(present, key=present.get)
        assert removed.score == present[block]
        assert removed.removed_description == f"{len(gone) + 1} of 5 blocks"
        assert removed.relative == pytest.approx(removed.score / max(present.values()))
        assert removed.iteration == scored.iteration == len(gone) + 1
        gone.add(block)
    assert len(gone) == 2


def test_parameters_are_counted(events):
    total = tiny.only(events, ev.Started)[0].parameters
    assert [e.parameters for e in tiny.only(events, ev.Evaluated)] == [total - n * 9280 for n in range(3)]
    assert [e.parameters for e in tiny.only(events, ev.Removed)] == [total - n * 9280 for n in (1, 2)]
    assert events[-1] == replace(
        events[-1], iterations=2, removed_description="2 of 5 blocks", parameters=total - 2 * 9280
    )
    assert events[-1].seconds > 0
    assert events[-1].peak_memory > 10**7


def test_every_iteration_is_measured(events, recipe):
    measured = tiny.only(events, ev.Evaluated)
    assert [(e.iteration, e.blocks) for e in measured] == [(0, 5), (1, 4), (2, 3)]
    for e in measured:
        assert [t.name for t in e.tasks] == ["choices", "words"]
        assert all(t.items == recipe.items == len(t.hits) for t in e.tasks)
        assert (e.windows, e.window_tokens) == (2, 32)
        assert e.perplexity > 1
        assert e.seconds > 0
    assert len({e.perplexity for e in measured}) == 3


def test_second_iteration_scores_the_smaller_model_on_new_views(events, recipe, opened):
    loaded = opened("llama", "float32")
    shape = tiny.without_blocks(loaded, removed_blocks(events)[:1])
    sites = sites_of(anatomy_of(loaded.config), shape, ("blocks",))
    pairs = tiny.draw(recipe, loaded.tokenizer, 2)
    found = tiny.scores(get_scorer(recipe.method), loaded.model, sites, pairs)
    recorded = [s for s in tiny.only(events, ev.Scored)[1].scores if s is not None]
    torch.testing.assert_close(torch.cat(found), torch.tensor(recorded), rtol=1e-5, atol=0)


class Ranked(Scorer):
    """A scorer whose scores are decided beforehand: blocks go in the order of `ranks`."""

    name = "ranked"
    title = paper = summary = "for the tests"

    def cost(self, sites: int) -> float:
        return 1.0

    def __init__(self, ranks: list[int]) -> None:
        self.ranks = ranks

    def begin(self, model, blocks, sites):
        assert len(blocks) == len(sites) == model.config.num_hidden_layers
        self.sites = sites
        return self

    def add(self, batch) -> None:
        pass

    def scores(self):
        return [torch.tensor([1.0 + self.ranks.index(s.block)]) for s in self.sites]


@pytest.mark.parametrize("order", [[0, 3, 1, 2, 4], [4, 3, 2, 1, 0], [2, 4, 0, 1, 3], [1, 2, 3, 4, 0]])
def test_the_block_that_is_named_is_the_one_that_goes(recipe, monkeypatch, tmp_path, order):
    monkeypatch.setattr("pip_core.engine.context.get_scorer", lambda _: Ranked(order))
    found = list(run(recipe.replace(target=0.3), tmp_path / "model"))
    assert removed_blocks(found) == order[:3]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    dense, rows = zoo.build("llama"), tiny.token_rows(1, 20)
    torch.testing.assert_close(model(rows).logits, logits_without(dense, rows, order[:3]), rtol=0, atol=1e-5)


def test_progress_tells_time(events):
    progress = tiny.only(events, ev.Progress)
    assert all(e.elapsed >= 0 and e.remaining >= 0 for e in progress)
    assert [e.elapsed for e in progress] == sorted(e.elapsed for e in progress)
    assert progress[0].remaining > 0
    assert progress[-1].remaining == pytest.approx(0, abs=1e-6)
    for _, group in itertools.groupby(progress, key=lambda e: (e.stage, e.iteration)):
        steps = list(group)
        assert [e.done for e in steps] == sorted(e.done for e in steps)
        assert steps[-1].done == steps[-1].total


def test_same_recipe_same_run(events, recipe):
    assert timeless(run(recipe)) == timeless(events)


def test_another_seed_another_run(events, recipe):
    other = list(run(recipe.replace(seed=1)))
    assert tiny.only(other, ev.Scored)[0].scores != tiny.only(events, ev.Scored)[0].scores


def ways() -> list:
    """Every family by every method, on the units that both have."""
    found = []
    for family in tiny.SAVED:
        refused = anatomy_of(zoo.CONFIGS[family]()).refused
        for scorer in METHODS:
            kinds = [k for k in scorer.kinds if k not in refused]
            if kinds:
                units = ("blocks",) if "blocks" in kinds else tuple(k for k in kinds if k in WIDTH)
                found.append(pytest.param(family, scorer.name, units, id=f"{family}-{scorer.name}"))
    return found


@pytest.mark.parametrize(("family", "name", "units"), ways())
def test_every_family_by_every_method(checkpoints, tasks, family, name, units):
    changes = {"method": name, "units": units, "items": 2, "windows": 4, "target": 0.1, "step": 0.05}
    if units == ("blocks",):
        # A method that spares most blocks of so small a model has one to give.
        changes |= {"step": 0.0, "target": 0.1 if get_scorer(name).protects(5) else 0.2}
    found = list(run(tiny.recipe_for(checkpoints[family], tasks, **changes)))
    assert isinstance(found[-1], ev.Finished), found[-1]
    (started,) = tiny.only(found, ev.Started)
    assert found[-1].iterations == started.planned >= 1
    gone = [(u.kind, u.block, n) for e in tiny.only(found, ev.Removed) for u in e.units for n in u.units]
    assert len(gone) == len(set(gone)) >= started.planned
    assert {kind for kind, _, _ in gone} <= set(units)
    blocks = started.blocks - (len(gone) if units == ("blocks",) else 0)
    assert tiny.only(found, ev.Evaluated)[-1].blocks == blocks


def cut(events, kind: type, number: int) -> list[ev.Event]:
    """Everything up to and with the `number`-th event of `kind`: what a killed run left."""
    at = [i for i, e in enumerate(events) if isinstance(e, kind)][number]
    return list(events[: at + 1])


@pytest.mark.parametrize(
    ("kind", "number"),
    [(ev.Started, 0), (ev.Evaluated, 0), (ev.Scored, 0), (ev.Removed, 0), (ev.Evaluated, 1), (ev.Removed, 1)],
)
def test_goes_on_from_any_history(events, recipe, kind, number):
    history = cut(events, kind, number)
    rest = list(run(recipe, history=history))
    assert isinstance(rest[-1], ev.Finished)
    assert tiny.only(rest, ev.Started)[0].resumed == len(removed_blocks(history))
    assert removed_blocks(history) + removed_blocks(rest) == removed_blocks(events)
    assert (rest[-1].iterations, rest[-1].removed_description) == (
        events[-1].iterations,
        events[-1].removed_description,
    )
    measured = [e.iteration for e in tiny.only([*history, *rest], ev.Evaluated)]
    assert sorted(measured) == [0, 1, 2]
    again = {e.iteration: e for e in timeless(rest) if isinstance(e, ev.Evaluated)}
    expected = {e.iteration: e for e in timeless(events) if isinstance(e, ev.Evaluated)}
    assert all(expected[i] == e for i, e in again.items())


def test_a_finished_run_only_finishes(events, recipe):
    rest = [e for e in run(recipe, history=events) if not isinstance(e, PASSING)]
    assert [type(e) for e in rest] == [ev.Started, ev.Finished]
    assert (rest[-1].iterations, rest[-1].removed_description) == (
        events[-1].iterations,
        events[-1].removed_description,
    )


@pytest.mark.parametrize("after", [0, 1, 3, 6, 9, 12])
def test_stops_at_the_next_event(events, recipe, after):
    asked = itertools.count()
    stopping: list[bool] = []

    def stop() -> bool:
        stopping.append(next(asked) >= after)
        return stopping[-1]

    seen: list[ev.Event] = []
    late = 0
    for event in run(recipe, stop=stop):
        late += bool(stopping and stopping[-1])
        seen.append(event)
    assert late == 1
    assert seen[-1] == ev.Stopped(len(removed_blocks(seen)))
    assert timeless(seen) == timeless(events)[: len(timeless(seen))]
    rest = list(run(recipe, history=seen))
    assert removed_blocks(seen) + removed_blocks(rest) == removed_blocks(events)


def test_exports_what_was_pruned_before_the_stop(events, recipe, tmp_path, verified):
    history = [*cut(events, ev.Removed, 0), ev.Stopped(1)]
    out = tmp_path / "model"
    rest = list(run(recipe, out, history, prune_on=False))
    kinds = [type(e).__name__ for e in rest if not isinstance(e, PASSING)]
    assert kinds == ["Started", "Evaluated", "Exported", "Finished"]
    assert (rest[-1].iterations, rest[-1].removed_description) == (1, "1 of 5 blocks")
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    dense, rows = zoo.build("llama"), tiny.token_rows(1, 20)
    torch.testing.assert_close(
        model(rows).logits, logits_without(dense, rows, removed_blocks(history)), rtol=0, atol=1e-5
    )
    exporting = tiny.only(rest, ev.Progress)[-1]
    assert exporting.stage == "verifying"
    assert exporting.remaining >= 0


def test_goes_on_with_the_same_model_only(events, checkpoints, recipe):
    other = list(run(recipe.replace(model=str(checkpoints["gpt2"])), history=events))
    assert isinstance(other[-1], ev.Failed)
    assert "This run began with" in other[-1].message
    assert "Start a new run" in other[-1].message
    assert not tiny.only(other, ev.Started)


def test_weights_that_are_no_numbers(tmp_path, tokenizer, recipe):
    model = zoo.build("llama")
    blocks_of(model)[2].mlp.down_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    tokenizer.save_pretrained(tmp_path / "nan")
    found = list(run(recipe.replace(model=str(tmp_path / "nan"))))
    assert isinstance(found[-1], ev.Failed)
    assert "not finite numbers" in found[-1].message
    assert not tiny.only(found, ev.Removed)


def test_blocks_that_add_nothing(tmp_path, tokenizer, recipe):
    model = zoo.build("llama")
    for block in blocks_of(model):
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()
    model.save_pretrained(tmp_path / "zero")
    tokenizer.save_pretrained(tmp_path / "zero")
    found = list(run(recipe.replace(model=str(tmp_path / "zero"))))
    assert isinstance(found[-1], ev.Finished)
    assert removed_blocks(found) == [2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/nowhere/at/all"}, "The folder '/nowhere/at/all' does not exist"),
        ({"method": "magic"}, "Unknown method 'magic'"),
        ({"tasks": ("chess",)}, "Unknown task 'chess'"),
        ({"tasks": ("gone.jsonl",)}, "The task 'gone.jsonl' does not exist"),
        ({"calibration": "gone.txt"}, "The calibration text 'gone.txt' does not exist"),
        ({"heldout": "gone.txt"}, "The held-out text 'gone.txt' does not exist"),
        ({"target": 0.999}, "would leave no block"),
        ({"target": 0.001}, "less than half a block"),
        ({"calibration": "code", "windows": 5000}, "holds at most"),
        ({"window_tokens": 300}, "This model reads at most 256 tokens"),
        ({"window_tokens": 250, "rate": 1.0}, "This model reads at most 256 tokens"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(recipe, changes, message):
    found = list(run(recipe.replace(**changes)))
    assert isinstance(found[-1], ev.Failed)
    assert message in found[-1].message
    assert "\n" not in found[-1].message
    assert all(isinstance(e, PASSING) for e in found[:-1] if not isinstance(e, ev.Started))
    assert not tiny.only(found, ev.Progress)


def test_heldout_too_short(recipe, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Too short.")
    (*_, last) = run(recipe.replace(heldout=str(path)))
    assert isinstance(last, ev.Failed)
    assert "at least two windows of 32" in last.message


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (MemoryError(), "ran out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "ran out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (UserError("Plain words."), "Plain words."),
    ],
)
def test_faults_of_the_machine_are_told(recipe, monkeypatch, fault, message):
    def broken(*_, **__):
        raise fault

    monkeypatch.setattr("pip_core.engine.stages.prune.choose", broken)
    (*_, last) = run(recipe)
    assert isinstance(last, ev.Failed)
    assert message in last.message


def test_a_fault_of_the_program_is_told_and_raised(recipe, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("pip_core.engine.stages.prune.choose", broken)
    stream, seen = run(recipe), []
    with pytest.raises(ZeroDivisionError):
        seen.extend(stream)
    assert isinstance(seen[-1], ev.Failed)
    assert "Unexpected fault (ZeroDivisionError: oops)" in seen[-1].message
    assert user_message(ZeroDivisionError("oops")) is None


def test_evaluate_measures_as_a_run_does(events, recipe):
    found = list(evaluate(recipe))
    assert timeless(found) == [timeless(events)[0]]


def test_evaluate_raises_what_is_wrong(recipe):
    with pytest.raises(UserError, match="Unknown task"):
        list(evaluate(recipe.replace(tasks=("chess",))))


def test_calibrating_on_the_held_back_text_is_refused(recipe):
    with pytest.raises(UserError, match="measured on"):
        run_module.check(recipe.replace(calibration="heldout"))


def test_files_of_a_space_are_not_read(recipe, tmp_path, monkeypatch):
    own = tmp_path / "own.txt"
    own.write_text("private words")
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    for changes in ({"calibration": str(own)}, {"heldout": str(own)}, {"tasks": (str(own) + ".jsonl",)}):
        with pytest.raises(UserError, match="open to others"):
            run_module.check(recipe.replace(**{"tasks": ("facts",), **changes}))


def test_a_disk_too_small_for_the_export_is_said_before_anything_is_scored(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    *before, last = run(recipe, tmp_path / "run" / "model")
    assert isinstance(last, ev.Failed)
    assert "1 MB are free" in last.message
    assert not [e for e in before if isinstance(e, ev.Evaluated | ev.Scored)]
