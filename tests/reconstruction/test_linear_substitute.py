"""What the block before takes over from a block: against the formula by hand, in scores, and in a run."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.core.units import BLOCKS, Units
from pip_core.data.perturbation import View
from pip_core.data.rows import first_batches
from pip_core.engine.run import run
from pip_core.engine.stages.refit import LEAST, LOOK, Refitted
from pip_core.planning.estimate import make_plan
from pip_core.reconstruction.linear_substitute import RIDGE, apply_substitute, substitutes
from pip_core.reconstruction.ridge import RIDGES, Regression
from pip_core.runs import operations
from pip_core.scoring import METHODS, get_scorer
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of, residual_scale
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of

from .. import tiny, zoo
from ..bypass import bypassed, places_of, stack_of
from ..engine.test_run import cut, timeless

ROWS = tiny.token_rows(10, 48)
PARTS = list(ROWS.split(4))
# Where no MLP ends in a projection of its own: a norm follows, or experts share it.
NONE = {"gemma2", "gemma3_text", "olmo2", "glm4", "opt-norm-after", "mixtral", "deepseek_v3"}


def found_in(model: PreTrainedModel, name: str, wanted=None) -> dict:
    anatomy = anatomy_of(zoo.CONFIGS[name]())
    return drain(substitutes(model, anatomy, Shape.dense(anatomy), PARTS, wanted))


def seen(model: PreTrainedModel, position: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What reaches the last projection of the block before, and what the block adds; computed by hand."""
    stack, places, kept = stack_of(model), places_of(model), {}

    def on_block(block: nn.Module, args: tuple, kwargs: dict, output) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        kept["y"] = (output[0] if isinstance(output, tuple) else output) - before

    handles = [
        stack[position - 1]
        .get_submodule(places.channels)
        .register_forward_pre_hook(lambda module, args: kept.update(x=args[0])),
        stack[position].register_forward_hook(on_block, with_kwargs=True),
    ]
    with torch.no_grad():
        model(rows)
    for handle in handles:
        handle.remove()
    x, y = kept["x"], kept["y"]
    return x.reshape(-1, x.shape[-1]).double(), y.reshape(-1, y.shape[-1]).double()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "granite", "opt"])
def test_is_the_formula(name):
    model = zoo.build(name)
    found = found_in(model, name)
    assert sorted(found) == list(range(1, len(stack_of(model))))
    for position in (1, 3):
        x, y = seen(model, position, ROWS)
        gram = x.T @ x
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        expected = torch.linalg.inv(gram) @ x.T @ y
        torch.testing.assert_close(found[position].weight.double(), expected, rtol=1e-3, atol=1e-4)
        assert found[position].path == places_of(model).channels


@pytest.mark.parametrize("name", sorted(zoo.CONFIGS))
def test_every_family_has_them_or_none(name):
    model = zoo.build(name)
    before = {n: p.clone() for n, p in model.named_parameters()}
    found = found_in(model, name)
    assert (found == {}) == (name in NONE)
    assert 0 not in found
    assert found_in(model, name, [2]).keys() == found.keys() & {2}
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n])


@pytest.mark.parametrize("name", ["llama", "gpt2", "granite", "phi"])
def test_the_block_before_adds_it(name):
    """Handed over, and the block bypassed: the stream after it is what it was, but for what is left over."""
    model = zoo.build(name)
    (given,) = found_in(model, name, [2]).values()
    x, y = seen(model, 2, ROWS)
    apply_substitute(blocks_of(model), 2, given, residual_scale(model.config))
    before_next = []
    handle = stack_of(model)[3].register_forward_pre_hook(
        lambda m, a, k: before_next.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad(), bypassed(model, [("blocks", 2, (0,))]):
        model(ROWS)
    handle.remove()
    dense, into = zoo.build(name), []
    handle = stack_of(dense)[2].register_forward_pre_hook(
        lambda m, a, k: into.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        dense(ROWS)
    handle.remove()
    added = before_next[0] - into[0]
    torch.testing.assert_close(added.reshape(y.shape).double(), x @ given.weight.double(), rtol=0, atol=1e-4)
    assert float((y - x @ given.weight.double()).norm()) < float(y.norm())


def scores_by_hand(model: PreTrainedModel, pairs, given: dict) -> torch.Tensor:
    """`mean over pairs of sum over words of || (e*g)_word - (e~*g~)_word ||`, e = f less its substitute:
    gates of ones on e, token by token, and their gradient."""
    stack, places = stack_of(model), places_of(model)

    def products(view: View) -> list[torch.Tensor]:
        gates, inputs, handles = {}, {}, []

        def gated(position: int):
            def hook(block: nn.Module, args: tuple, kwargs: dict, output):
                before = args[0] if args else kwargs["hidden_states"]
                after = output[0] if isinstance(output, tuple) else output
                spared = inputs[position - 1] @ given[position].weight if position in given else 0.0
                gates[position] = torch.ones_like(after, requires_grad=True)
                now = before + spared + gates[position] * (after - before - spared)
                return (now, *output[1:]) if isinstance(output, tuple) else now

            return hook

        for position, block in enumerate(stack):
            handles.append(
                block.get_submodule(places.channels).register_forward_pre_hook(
                    lambda m, a, position=position: inputs.update(
                        {position: a[0].reshape(1, -1, a[0].shape[-1])}
                    )
                )
            )
            handles.append(block.register_forward_hook(gated(position), with_kwargs=True))
        logits = model(input_ids=view.ids[None], use_cache=False).logits[0]
        for handle in handles:
            handle.remove()
        loss = F.cross_entropy(logits[:-1], view.ids[1:])
        return [g[0] for g in torch.autograd.grad(loss, [gates[i] for i in range(len(stack))])]

    total = torch.zeros(len(stack))
    for pair in pairs:
        clean, other = products(pair.clean), products(pair.perturbed)
        for position in range(len(stack)):
            for word in range(len(pair.clean.text.split())):
                a = clean[position][pair.clean.words == word].sum(dim=0)
                b = other[position][pair.perturbed.words == word].sum(dim=0)
                total[position] += (a - b).norm()
    return total / len(pairs)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_what_is_given_back_is_not_scored(tokenizer, name):
    model, pairs = zoo.build(name), tiny.pairs_for(tokenizer, 3)
    anatomy = anatomy_of(zoo.CONFIGS[name]())
    sites = sites_of(anatomy, Shape.dense(anatomy), (BLOCKS,))
    given = found_in(model, name)
    scorer = get_scorer("pip-gate").given_substitutes(given)
    found = torch.cat(tiny.scores(scorer, model, sites, pairs))
    torch.testing.assert_close(found, scores_by_hand(model, pairs, given), rtol=2e-5, atol=0)
    plain = torch.cat(tiny.scores(get_scorer("pip-gate"), model, sites, pairs))
    assert found[0] == plain[0]
    assert not torch.isclose(found[1:], plain[1:], rtol=1e-3).any()


def test_activations_that_are_not_finite_are_refused():
    model, anatomy = zoo.build("llama"), anatomy_of(zoo.CONFIGS["llama"]())
    blocks_of(model)[1].mlp.up_proj.weight.data[3, 3] = float("nan")
    with pytest.raises(UserError, match="not finite numbers"):
        drain(substitutes(model, anatomy, Shape.dense(anatomy), list(tiny.token_rows(4, 30).split(2))))


def test_which_methods_account_for_a_refit():
    assert [m.name for m in METHODS if m.accounts_for_refit] == ["pip-gate"]
    with pytest.raises(NotImplementedError, match=r"pip .*refit"):
        get_scorer("pip").given_substitutes({})


def test_the_ridge_is_what_holds_on_the_other_half():
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    def best_of(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
        regression = Regression(x.shape[1], y.shape[1], x.device)
        for some, wanted in zip(x.split(40), y.split(40), strict=True):
            regression.add(some, wanted)
        return regression.best()

    x, truth = drawn(400, 20), drawn(20, 3)
    clear = best_of(x @ truth, x)
    assert clear.shape == (3, 20)
    gram = (x.T @ x).double()
    gram += RIDGES[0] * gram.diagonal().mean() * torch.eye(20)
    torch.testing.assert_close(
        clear.T, torch.linalg.solve(gram, (x.T @ (x @ truth)).double()), rtol=1e-3, atol=1e-3
    )
    # Nothing to learn: every solution is worse than none.
    assert best_of(drawn(400, 3), x) is None
    nothing = Regression(20, 3, x.device)
    nothing.add(torch.zeros(8, 20), drawn(8, 3))
    assert nothing.singular
    assert nothing.best() is None


@pytest.fixture(scope="module")
def ahead(recipe) -> Recipe:
    return recipe.replace(refit=True, refit_tokens=1024)


@pytest.fixture(scope="module")
def whole(ahead, tmp_path_factory):
    out = tmp_path_factory.mktemp("ahead") / "model"
    return list(run(ahead, out)), out


def test_a_run_hands_over_and_measures_it(whole, recipe, opened):
    """Made again by hand: after the first removal, what was measured is the model that took over."""
    events, _ = whole
    assert isinstance(events[-1], ev.Finished), events[-1]
    first = tiny.only(events, ev.Removed)[0]
    assert first.blocks != (0,)
    plain = recipe.replace(drop=first.blocks, target=0.1)
    without = tiny.only(list(run(plain)), ev.Evaluated)[1]
    with_it = tiny.only(events, ev.Evaluated)[1]
    assert without.parameters == with_it.parameters
    assert without.perplexity != with_it.perplexity


@pytest.mark.parametrize(
    ("kind", "number"),
    [(ev.Removed, 0), (ev.Scored, 1), (Refitted, 0)],
)
def test_resumed_alike(whole, ahead, kind, number):
    """Gone on with, everything is handed over again as it was."""
    events, _ = whole
    history = cut(events, kind, number)
    rest = list(run(ahead, history=history))
    assert isinstance(rest[-1], ev.Finished), rest[-1]
    kept = [e for e in [*history, *rest] if isinstance(e, ev.Scored | ev.Removed | ev.Evaluated)]
    expected = {(e.iteration, getattr(e, "final", None), type(e)): e for e in timeless(events)}
    assert {(e.iteration, getattr(e, "final", None), type(e)): e for e in timeless(kept)} == expected


def test_its_export_is_an_ordinary_checkpoint(whole):
    events, out = whole
    model = AutoModelForCausalLM.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == events[-1].parameters
    again = json.loads((out / "pip_recipe.json").read_text())["recipe"]
    assert again["refit"] is True


def test_blocks_that_go_at_once_are_handed_over_one_by_one(ahead):
    events = list(run(ahead.replace(step=0.5, measure="end")))
    assert isinstance(events[-1], ev.Finished), events[-1]
    (removed,) = tiny.only(events, ev.Removed)
    assert len(removed.units) == 2
    named = ahead.replace(drop=tuple(u.block for u in removed.units), measure="end")
    one_by_one = list(run(named))
    assert tiny.only(events, ev.Evaluated)[-1].perplexity == pytest.approx(
        tiny.only(one_by_one, ev.Evaluated)[-1].perplexity, rel=1e-4
    )


def test_a_fork_with_another_text_measures_anew(whole, ahead):
    events, _ = whole
    same = operations.kept_events(ahead, ahead.replace(target=0.3), events, 2, "x")
    assert [e.iteration for e in tiny.only(same, ev.Evaluated)] == [0, 1, 2]
    for changes in ({"seed": 5}, {"refit": False}, {"method": "taylor"}):
        other = operations.kept_events(ahead, ahead.replace(**changes), events, 2, "x")
        assert [e.iteration for e in tiny.only(other, ev.Evaluated)] == [0], changes


def test_looking_ahead_takes_part_of_the_rows_and_is_planned(ahead):
    rows = list(tiny.token_rows(40, 64).split(8))
    least = LEAST * 64
    assert torch.equal(
        torch.cat(first_batches(rows, LOOK // LEAST * least)), torch.cat(rows[: LOOK * 64 // (8 * 64)])
    )
    assert first_batches(rows[:1], 10**6) == rows[:1]
    blind = ahead.replace(method="taylor")
    assert make_plan(ahead).seconds > make_plan(blind).seconds


def test_a_history_of_another_model_is_refused(ahead):
    strange = [ev.Removed(1, (Units(BLOCKS, 99, (0,)),), 0.0, 0.0, 1, "x", False)]
    found = list(run(ahead, history=strange))
    assert isinstance(found[-1], ev.Failed)
    assert "not belong" in found[-1].message
