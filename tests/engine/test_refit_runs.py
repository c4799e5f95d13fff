"""The refit as a stage of a run: what it reads, what it says, and that a run goes on past it alike."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from pip_core.checkpoints.load import Loaded
from pip_core.checkpoints.nonuniform import load_nonuniform
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.recipe import GLOBAL, Recipe
from pip_core.data.calibration import ROW_TOKENS
from pip_core.engine import run as run_module
from pip_core.engine.context import Context
from pip_core.engine.replay import ReplayState
from pip_core.engine.run import run
from pip_core.engine.stages.refit import LEAST, USUAL, Refit, Refitted
from pip_core.engine.state import RunState
from pip_core.planning.estimate import make_plan, memory_for
from pip_core.reconstruction.refit import refit
from pip_core.reporting.messages import sentence
from pip_core.reporting.run_summary import RunSummary
from pip_core.runs.operations import kept_events
from pip_core.structure.anatomy import Anatomy, anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape

from .. import tiny, zoo
from ..engine.test_run import cut, timeless

PASSING = (ev.Progress, ev.Loading)
WIDEST = 64


@pytest.fixture(scope="module")
def refitting(recipe) -> Recipe:
    # By a method that does not look ahead to it, so that all of it is there to be repaired at the end.
    return recipe.replace(refit=True, method="block-influence")


@pytest.fixture(scope="module")
def planned() -> list[float]:
    """What the clock of the `whole` run was told of the refit, whenever it was told what is left."""
    return []


@pytest.fixture(scope="module")
def whole(refitting, tmp_path_factory, planned):
    """An undisturbed run with a refit, its export really verified."""
    out = tmp_path_factory.mktemp("refit") / "model"

    with tiny.noting_plans("refitting", planned):
        return list(run(refitting, out)), out


def rows_for(recipe: Recipe, loaded: Loaded, anatomy: Anatomy) -> list[torch.Tensor]:
    """The rows that the refit of a run by this recipe reads."""
    stage, state = Refit(recipe), RunState(Context(recipe, [], anatomy=anatomy), None)
    state.loaded, state.calibration = loaded, tiny.calibration_for(recipe, loaded.tokenizer)
    stage.prepare(state)
    return stage.rows


def only_last(events, kind: type):
    return tiny.only(events, kind)[-1]


def test_order_of_events(whole):
    events, _ = whole
    order = [type(e).__name__ for e in events if not isinstance(e, PASSING)]
    head = ["Started", "Evaluated", *["Scored", "Removed", "Evaluated"] * 2]
    assert order == [*head, "Refitted", "Evaluated", "Exported", "Finished"], events[-1]
    stages = [s for s, _ in itertools.groupby(e.stage for e in events if isinstance(e, ev.Progress))]
    assert stages[-5:] == ["measuring", "refitting", "exporting", "measuring", "verifying"]
    steps = [e for e in events if isinstance(e, ev.Progress) and e.stage == "refitting"]
    assert [(e.done, e.total) for e in steps] == [(n, 3) for n in range(4)]
    assert all(e.remaining >= 0 for e in steps)


def test_the_clock_counts_on_the_refit_from_the_beginning(whole, planned):
    counted = list(itertools.takewhile(bool, planned))
    assert len(counted) > 2, planned  # before the dense model is measured, units are removed, it is refitted
    assert counted == pytest.approx([counted[-1]] * len(counted))


def test_measured_with_and_without(whole):
    events, _ = whole
    measured = tiny.only(events, ev.Evaluated)
    assert [(e.iteration, e.final) for e in measured] == [(0, False), (1, False), (2, False), (2, True)]
    without, with_it = measured[2:]
    assert without.parameters == with_it.parameters
    assert without.perplexity != with_it.perplexity
    (found,) = tiny.only(events, Refitted)
    assert (found.iteration, found.projections, found.halves, found.not_solved) == (2, 6, 6, "")
    assert found.tokens >= LEAST * WIDEST
    assert found.after < found.before
    said = sentence(found)
    assert 0 < found.changed < 6
    assert said.startswith(f"{found.changed} of the 6 output projections that are left were solved anew on ")
    assert f"on {found.tokens:,} tokens; the distance" in said
    assert f"there. {6 - found.changed} layers were left as they were" in said
    assert sentence(with_it).startswith("Finished model: perplexity ")


def test_the_run_without_is_the_same_until_then(whole, recipe):
    events, _ = whole
    plain = list(run(recipe.replace(method="block-influence")))
    assert timeless(events)[:-1] == timeless(plain)
    assert not tiny.only(plain, Refitted)


def test_the_export_is_the_refitted_model(whole, refitting, opened):
    """Made again by hand: the same removals, the same rows."""
    events, out = whole
    loaded = opened("llama", "float32")
    anatomy = anatomy_of(zoo.CONFIGS["llama"]())
    rows = rows_for(refitting, loaded, anatomy)
    shape = Shape.dense(anatomy).without(u for e in tiny.only(events, ev.Removed) for u in e.units)
    reshape(loaded.model, anatomy, Shape.dense(anatomy), shape)
    probe = tiny.token_rows(2, 30)
    exported = AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        assert float((loaded.model(probe).logits - exported(probe).logits).abs().max()) > 0.1
        drain(refit(zoo.build("llama"), loaded.model, anatomy, shape, rows))
        torch.testing.assert_close(loaded.model(probe).logits, exported(probe).logits, rtol=0, atol=1e-4)
    assert only_last(events, ev.Exported).largest_difference < 1e-3


def test_the_card_tells_both(whole):
    events, out = whole
    without, with_it = tiny.only(events, ev.Evaluated)[2:]
    card = (out / "README.md").read_text()
    (found,) = tiny.only(events, Refitted)
    assert f"- Repair: {found.changed} of the 6 output projections" in card
    assert f"| {with_it.perplexity:,.2f} ± {with_it.perplexity_se:,.2f} | |" in card
    assert "before the final stages" in card
    assert f"perplexity {without.perplexity:,.2f} ± {without.perplexity_se:,.2f} and mean accuracy" in card
    assert json.loads((out / "pip_recipe.json").read_text())["recipe"]["refit"] is True


def test_a_story_ends_with_the_refit(whole):
    events, _ = whole
    story = RunSummary()
    story.apply((e, float(n)) for n, e in enumerate(events))
    measured = tiny.only(events, ev.Evaluated)
    assert story.measured == measured
    assert story.latest == story.final == measured[-1]
    assert story.evaluated == {e.iteration: e for e in measured[:3]}
    # Going on from there, it is no longer what is left.
    removed = tiny.only(events, ev.Removed)[-1]
    story.apply([(replace(removed, iteration=3), 99.0), (replace(measured[2], iteration=3), 99.5)])
    assert story.final is None
    assert [(e.iteration, e.final) for e in story.measured] == [(n, False) for n in range(4)]
    story.apply([(ev.RemovalUndone(2, removed.units), 100.0)])
    assert story.finals == {}
    assert story.latest == measured[1]


@pytest.mark.parametrize(
    ("kind", "number"), [(ev.Started, 0), (ev.Removed, 0), (ev.Evaluated, 2), (Refitted, 0)]
)
def test_resumed_alike(whole, refitting, kind, number):
    events, _ = whole
    history = cut(events, kind, number)
    rest = list(run(refitting, history=history))
    assert isinstance(rest[-1], ev.Finished), rest[-1]
    kept = [e for e in [*history, *rest] if isinstance(e, ev.Scored | ev.Removed | ev.Evaluated)]
    expected = {(e.iteration, getattr(e, "final", None), type(e)): e for e in timeless(events)}
    found = {(e.iteration, getattr(e, "final", None), type(e)): e for e in timeless(kept)}
    assert found == expected
    ours, theirs = only_last([*history, *rest], Refitted), only_last(events, Refitted)
    assert replace(ours, seconds=0.0) == replace(theirs, seconds=0.0)


def test_a_finished_run_is_not_measured_again(whole, refitting, tmp_path):
    events, _ = whole
    rest = [type(e) for e in run(refitting, history=events) if not isinstance(e, PASSING)]
    assert rest == [ev.Started, ev.Finished]
    rest = [type(e) for e in run(refitting, tmp_path / "m", events) if not isinstance(e, PASSING)]
    assert rest == [ev.Started, Refitted, ev.Exported, ev.Finished]


def test_stops_in_the_middle(whole, refitting):
    events, _ = whole
    history = cut(events, ev.Evaluated, 2)
    seen: list[ev.Event] = []

    def stop() -> bool:
        return isinstance(seen[-1], ev.Progress) and (seen[-1].stage, seen[-1].done) == ("refitting", 1)

    for event in run(refitting, history=history, stop=stop):
        seen.append(event)
    assert seen[-1] == ev.Stopped(2)
    assert not tiny.only(seen, Refitted)
    rest = list(run(refitting, history=[*history, *seen]))
    assert timeless(rest)[-1] == timeless(events)[-1]


def test_going_on_begins_with_the_weights_as_they_were(whole, refitting):
    """A refit is of the end: what is decided after it is decided as if it had not been."""
    events, _ = whole
    deeper = refitting.replace(target=0.3)
    on = list(run(deeper, history=events))
    straight = list(run(deeper))
    assert tiny.only([*events, *on], ev.Removed) == tiny.only(straight, ev.Removed)
    assert timeless(on)[-1] == timeless(straight)[-1]
    assert timeless(on)[-1].final
    past = ReplayState.of([*events, *on])
    assert [e.iteration for e in past.measured] == [0, 1, 2, 3]
    assert [e.iteration for e in past.final] == [2, 3]


def test_a_fork_refits_for_itself(whole, recipe, refitting):
    events, _ = whole
    taken = kept_events(refitting, refitting.replace(seed=5), events, 2, "x")
    assert not [e for e in taken if isinstance(e, Refitted) or getattr(e, "final", False)]
    assert len(tiny.only(taken, ev.Evaluated)) == 3


def test_what_was_decided_can_be_exported_refitted(whole, refitting, tmp_path):
    events, _ = whole
    history = [*cut(events, ev.Removed, 0), ev.Stopped(1)]
    rest = list(run(refitting, tmp_path / "model", history, prune_on=False))
    assert only_last(rest, Refitted).iteration == 1
    assert only_last(rest, ev.Evaluated).final
    assert "before the final stages" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bloom"])
def test_families(checkpoints, tasks, tmp_path, family):
    """Conv1D weights; weights left alone; blocks that add the stream themselves."""
    found = list(run(tiny.recipe_for(checkpoints[family], tasks, refit=True), tmp_path / "model"))
    assert isinstance(found[-1], ev.Finished), found[-1]
    (refitted,) = tiny.only(found, Refitted)
    if family == "gemma2":
        assert refitted.projections == 0
        assert "a norm follows" in sentence(refitted)
        assert "a norm follows" in (tmp_path / "model" / "README.md").read_text()
    else:
        assert refitted.projections == refitted.halves
        assert refitted.after < refitted.before


@pytest.mark.parametrize("units", [("channels",), ("attention", "mlp")])
def test_uneven_exports_are_refitted_too(recipe, tmp_path, units):
    asked = recipe.replace(units=units, allocation=GLOBAL, plain=False, refit=True, measure="end", step=0.1)
    found = list(run(asked, tmp_path / "model"))
    assert isinstance(found[-1], ev.Finished), found[-1]
    (refitted,) = tiny.only(found, Refitted)
    assert refitted.after < refitted.before
    assert only_last(found, ev.Exported).uneven
    model = load_nonuniform(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == found[-1].parameters


def test_rows(refitting, opened):
    loaded = opened("llama", "float32")
    anatomy = anatomy_of(loaded.config)
    rows = torch.cat(rows_for(refitting, loaded, anatomy))
    assert rows.shape == (USUAL * WIDEST // ROW_TOKENS, ROW_TOKENS)
    assert len({tuple(r.tolist()) for r in rows}) == len(rows)
    again = torch.cat(rows_for(refitting, loaded, anatomy))
    assert torch.equal(rows, again)
    assert not torch.equal(rows, torch.cat(rows_for(refitting.replace(seed=1), loaded, anatomy)))
    asked = torch.cat(rows_for(refitting.replace(refit_tokens=2000), loaded, anatomy))
    assert asked.numel() == 2048


def text_of(tmp_path, words: int) -> str:
    path = tmp_path / f"{words}.txt"
    path.write_text("\n\n\n".join(f"Day {n}: the dog ran to the tree, and home." for n in range(words)))
    return str(path)


def test_what_the_text_holds_is_read(refitting, opened, tmp_path):
    """Fewer than the usual number, and enough: no token is read twice to make up for it."""
    loaded = opened("llama", "float32")
    text = text_of(tmp_path, 40)
    rows = torch.cat(rows_for(refitting.replace(calibration=text), loaded, anatomy_of(loaded.config)))
    held = len(loaded.tokenizer((tmp_path / "40.txt").read_text())["input_ids"])
    assert LEAST * WIDEST <= rows.numel() <= held < USUAL * WIDEST
    assert held - rows.numel() < ROW_TOKENS + 2 * 40


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (9, {"window_tokens": 8, "windows": 2}, r"The refit needs 256 tokens for this model .* holds 0 "),
        (60, {"refit_tokens": 3000}, r"The refit needs 3,000 tokens as asked for, and .* holds [\d,]+ "),
        (60, {"refit_tokens": 200}, r"needs at least 256 tokens .* and is given 200. Choose more"),
    ],
)
def test_too_few_tokens_are_told_before_anything_is_measured(refitting, tmp_path, words, changes, message):
    asked = refitting.replace(calibration=text_of(tmp_path, words), **changes)
    found = list(run(asked))
    assert isinstance(found[-1], ev.Failed)
    assert re.search(message, found[-1].message), found[-1].message
    assert not tiny.only(found, ev.Progress)


def test_a_model_without_halves_is_refused(refitting, opened):
    loaded = opened("llama", "float32")
    anatomy = anatomy_of(loaded.config)
    bare = replace(
        anatomy, blocks=tuple(replace(b, attention=(), mlp=(), added=("", "")) for b in anatomy.blocks)
    )
    with pytest.raises(UserError, match="cannot be repaired"):
        rows_for(refitting, loaded, bare)


def test_the_plan_counts_a_second_model(recipe, refitting):
    before, after = memory_for(recipe), memory_for(refitting)
    assert "refit" not in before
    assert after["refit"] - after["weights"] > after["weights"]
    assert make_plan(refitting).seconds > make_plan(recipe).seconds
    assert run_module.check(refitting)
