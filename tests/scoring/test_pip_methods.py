"""Scoring methods against the formulas as written (`naive`), and what they leave behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from pip_core.core import batching
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.core.units import ATTENTION, BLOCKS, CHANNELS, EXPERTS, HEADS, KINDS, MLP, Units
from pip_core.data.perturbation import Pair, View
from pip_core.scoring import METHODS, get_scorer
from pip_core.scoring.base import backpropagate
from pip_core.scoring.pip_gate import gate_gradients
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import Site, sites_of
from pip_core.structure.surgery import reshape

from .. import tiny, zoo
from ..naive import NAIVE, gate_gradient

CLOSE = {"rtol": 2e-5, "atol": 0.0}


@pytest.fixture(scope="module")
def pairs(tokenizer) -> list[Pair]:
    found = tiny.pairs_for(tokenizer, 4)
    assert any(len(p.clean.ids) != len(p.perturbed.ids) for p in found)
    return found


def sites_in(model: PreTrainedModel, *kinds: str) -> list[Site]:
    anatomy = anatomy_of(model.config)
    return sites_of(anatomy, Shape.dense(anatomy), kinds or (BLOCKS,))


def found_at(model: PreTrainedModel, name: str, pairs: list[Pair], sites: list[Site]) -> list[torch.Tensor]:
    found = tiny.scores(get_scorer(name), model, sites, pairs)
    assert [s.shape for s in found] == [(site.size,) for site in sites]
    assert all(s.dtype == torch.float32 for s in found)
    return found


def scores(model: PreTrainedModel, name: str, pairs: list[Pair], *kinds: str) -> torch.Tensor:
    return torch.cat(found_at(model, name, pairs, sites_in(model, *kinds)))


def naive_scores(model: PreTrainedModel, name: str, pairs: list[Pair], sites: list[Site]) -> torch.Tensor:
    return torch.cat(NAIVE[name](model, pairs, [(s.kind, s.position, s.size) for s in sites]))


def test_every_method_has_its_naive_loop():
    assert {m.name for m in METHODS if m.perturbs} == set(NAIVE)


@pytest.mark.parametrize("name", NAIVE)
def test_equals_the_naive_loop(model, pairs, name):
    found = scores(model, name, pairs)
    expected = naive_scores(model, name, pairs, sites_in(model))
    assert (expected > 0).all()
    torch.testing.assert_close(found, expected, **CLOSE)


# What the formulas meet: a norm after each half, halves that add the residual stream, an MLP of two
# modules, an MLP that is added to in place, fused weights, weights of heads that are no matrices, experts.
ALL = (BLOCKS, ATTENTION, MLP, HEADS, CHANNELS)
FAMILIES = {
    "llama-biases": ALL,
    "gpt2": (BLOCKS, ATTENTION, MLP, CHANNELS),
    "gemma2": ALL,
    "olmo2": (BLOCKS, ATTENTION, MLP, CHANNELS),
    "bloom": (BLOCKS, ATTENTION, MLP),
    "opt": (BLOCKS, ATTENTION, MLP, CHANNELS),
    "falcon": (BLOCKS, ATTENTION, MLP, CHANNELS),
    "phi3": ALL,
    "cohere": ALL,
    "qwen3_moe": (BLOCKS, ATTENTION, MLP, HEADS),
    "mixtral": (EXPERTS,),
    "deepseek_v3": (EXPERTS,),
}


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize(("family", "kind"), [(f, k) for f, kinds in FAMILIES.items() for k in kinds])
def test_every_kind_equals_the_naive_loop(pairs, family, kind, name):
    model, few = zoo.build(family), pairs[:2]
    sites = sites_in(model, kind)
    assert len(sites) == len(blocks_of(model))
    found, expected = scores(model, name, few, kind), naive_scores(model, name, few, sites)
    # A channel behind a ReLU may be silent on all of the text.
    assert (expected > 0).float().mean() > (0.5 if family == "opt" else 0.99)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize("kinds", [(ATTENTION, MLP), (HEADS, CHANNELS)], ids="-".join)
def test_kinds_together_score_as_alone(pairs, name, kinds):
    model = zoo.build("llama")
    together = found_at(model, name, pairs, sites_in(model, *kinds))
    for n, kind in enumerate(kinds):
        alone = scores(model, name, pairs, kind)
        torch.testing.assert_close(torch.cat(together[n::2]), alone, **CLOSE)


def test_one_pass_finds_what_a_pass_for_each_kind_does(pairs):
    model, kinds = zoo.build("llama"), (BLOCKS, HEADS, CHANNELS)
    work = get_scorer("pip-gate").begin_every_kind(model, list(blocks_of(model)), sites_in(model, *kinds))
    tokens = [get_scorer("pip-gate").begin_tokens(model) for _ in range(2)]
    for number, pair in enumerate(pairs):
        pair = replace(pair, domain=number % 2)
        work.add([pair])
        tokens[pair.domain].add([pair])
    units, by_domain = work.scores()
    for n, kind in enumerate(kinds):
        assert torch.equal(torch.cat(units[n::3]), scores(model, "pip-gate", pairs, kind))
    for domain, alone in enumerate(tokens):
        torch.testing.assert_close(by_domain[domain], alone.scores() * alone.pairs, **CLOSE)


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize("kinds", [(BLOCKS,), (ATTENTION, MLP), (HEADS, CHANNELS)], ids="-".join)
def test_what_is_left_after_a_cut_is_scored_as_it_stands(pairs, name, kinds):
    """A block is gone, a half of two others, and units of the rest: numbers and slices have moved."""
    model = zoo.build("llama")
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    gone = [(BLOCKS, 0, (0,)), (ATTENTION, 1, (0,)), (MLP, 2, (0,)), (HEADS, 3, (1,)), (CHANNELS, 4, (0, 9))]
    shape = dense.without(Units(*unit) for unit in gone)
    reshape(model, anatomy, dense, shape)
    sites = sites_of(anatomy, shape, kinds)
    found, expected = found_at(model, name, pairs[:2], sites), naive_scores(model, name, pairs[:2], sites)
    torch.testing.assert_close(torch.cat(found), expected, **CLOSE)


@pytest.mark.parametrize("name", NAIVE)
def test_mean_over_pairs(model, pairs, name):
    each = torch.stack([scores(model, name, [pair]) for pair in pairs])
    torch.testing.assert_close(scores(model, name, pairs), each.mean(dim=0), **CLOSE)


@pytest.mark.parametrize("name", NAIVE)
def test_same_views_score_zero(model, pairs, name):
    same = [Pair(pairs[0].clean, pairs[0].clean, ())]
    assert float(scores(model, name, same).max()) < 1e-4 * float(scores(model, name, pairs).min())


@pytest.mark.parametrize("name", NAIVE)
def test_padding_changes_nothing(model, pairs, name, monkeypatch):
    found = []
    for multiple in (1, 16, 64):
        monkeypatch.setattr(batching, "MULTIPLE", multiple)
        found.append(scores(model, name, pairs))
    torch.testing.assert_close(found[1], found[0], **CLOSE)
    torch.testing.assert_close(found[2], found[0], **CLOSE)


@pytest.mark.parametrize("name", NAIVE)
def test_some_sites_score_as_among_all(model, pairs, name):
    everything = scores(model, name, pairs)
    sites = [sites_in(model)[i] for i in (1, 3)]
    found = torch.cat(tiny.scores(get_scorer(name), model, sites, pairs))
    torch.testing.assert_close(found, everything[[1, 3]], **CLOSE)


WAYS = [(BLOCKS,), (ATTENTION, MLP), (CHANNELS,)]


def fingerprint(model: PreTrainedModel) -> tuple:
    return (
        [(n, p.requires_grad, p.grad, p.data_ptr()) for n, p in model.named_parameters()],
        [
            (n, m.training, "forward" in vars(m), len(m._forward_hooks), len(m._forward_pre_hooks))
            for n, m in model.named_modules()
        ],
        [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()],
        [len(p._backward_hooks or ()) for p in model.parameters()],
    )


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize("abandoned", [False, True])
@pytest.mark.parametrize("kinds", WAYS, ids="-".join)
def test_leaves_the_model_as_it_was(model, pairs, name, abandoned, kinds):
    first = next(model.parameters())
    first.requires_grad_(False)
    before, weights = fingerprint(model), [p.clone() for p in model.parameters()]
    work = tiny.scoring(get_scorer(name), model, sites_in(model, *kinds), pairs)
    if abandoned:
        assert next(work) == 1
        work.close()
    else:
        drain(work)
    assert fingerprint(model) == before
    assert not first.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))


@pytest.mark.parametrize("name", NAIVE)
def test_a_failure_leaves_the_model_as_it_was(model, pairs, name):
    before = fingerprint(model)
    broken = Pair(pairs[0].clean, View("x", torch.tensor([10**6, 1]), torch.tensor([0, 0])), ())
    with pytest.raises(IndexError):
        scores(model, name, [broken])
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", NAIVE)
def test_reports_each_pair_and_holds_no_gradient_mode(model, pairs, name):
    with torch.no_grad():
        steps = []
        for done in tiny.scoring(get_scorer(name), model, sites_in(model), pairs):
            steps.append(done)
            assert not torch.is_grad_enabled()
    assert steps == [1, 2, 3, 4]


def test_pip_holds_one_weight_gradient_at_a_time(model, pairs):
    held = []

    def count(_):
        held.append(sum(p.grad is not None for p in model.parameters()))

    handles = [p.register_post_accumulate_grad_hook(count) for b in blocks_of(model) for p in b.parameters()]
    scores(model, "pip", pairs[:1], BLOCKS)
    for handle in handles:
        handle.remove()
    assert held == [1] * len(handles)


def test_pip_gate_makes_no_weight_gradient(model, pairs):
    made = []
    for p in model.parameters():
        p.register_hook(made.append)
    for kinds in WAYS:
        scores(model, "pip-gate", pairs[:1], *kinds)
    assert made == []


@pytest.mark.parametrize("kinds", [(BLOCKS,), (ATTENTION, MLP), (CHANNELS,)], ids="-".join)
def test_gate_gradients_are_summed_per_word(model, pairs, kinds):
    view, sites = pairs[0].perturbed, sites_in(model, *kinds)
    count = int(view.words[-1]) + 1
    other = pairs[1].clean
    count = max(count, int(other.words[-1]) + 1)
    found: dict[int, torch.Tensor] = {}
    gate_gradients(model, list(blocks_of(model)), sites, [other, view], count, found.__setitem__)
    expected = gate_gradient(model, view, [(s.kind, s.position, s.size) for s in sites])
    for number, (site, theirs) in enumerate(zip(sites, expected, strict=True)):
        ours = found[number][1]
        assert ours.shape == (count, site.size, theirs.shape[2])
        for word in range(count):
            torch.testing.assert_close(ours[word], theirs[view.words == word].sum(0), rtol=1e-4, atol=1e-7)


def test_backpropagate_gives_the_gradient_of_the_losses_difference(model, pairs):
    a, b = pairs[0].clean.ids, pairs[0].perturbed.ids[:-5]
    weights = list(model.parameters())
    backpropagate(model, (a, b), (1.0, -1.0))
    found = [p.grad.clone() for p in weights]
    losses = [model(input_ids=i[None], labels=i[None]).loss for i in (a, b)]
    expected = torch.autograd.grad(losses[0] - losses[1], weights)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_bfloat16_scores_stay_near(pairs):
    model = zoo.build("llama")
    exact = {name: scores(model, name, pairs) for name in NAIVE}
    model.to(torch.bfloat16)
    for name, expected in exact.items():
        torch.testing.assert_close(scores(model, name, pairs), expected, rtol=0.1, atol=0.0)


def test_methods_tell_what_they_are():
    assert [m.name for m in METHODS][:2] == ["pip-gate", "pip"]
    assert len({m.name for m in METHODS}) == len(METHODS)
    for scorer in METHODS:
        assert get_scorer(scorer.name) is scorer
        assert scorer.cost(12) >= 0
        assert scorer.title
        assert scorer.paper
        assert scorer.summary.endswith(".")
        assert set(scorer.kinds) <= set(KINDS)
        # What it was published with is a recipe that it can work by.
        assert set(Recipe(method=scorer.name, **scorer.usual).units) <= set(scorer.kinds)
    for scorer in METHODS[:2]:
        assert scorer.kinds == KINDS
        assert "arXiv 2501.15278" in scorer.paper


def test_unknown_method():
    with pytest.raises(UserError, match="Unknown method 'magic': choose pip-gate, pip"):
        get_scorer("magic")
