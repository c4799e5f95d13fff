"""Scoring methods against the formulas as written: plain loops, full copies, no tricks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pip_core import rows
from pip_core.errors import UserError
from pip_core.families import blocks_of
from pip_core.scorers import METHODS, method
from pip_core.scorers.base import backpropagate
from pip_core.scorers.gate import gate_gradients
from pip_core.sites import block_sites
from pip_core.streams import drain
from pip_core.views import Pair, View

from . import tiny, zoo

CLOSE = {"rtol": 2e-5, "atol": 0.0}


@pytest.fixture(scope="module")
def pairs(tokenizer) -> list[Pair]:
    found = tiny.pairs_for(tokenizer, 4)
    assert any(len(p.clean.ids) != len(p.other.ids) for p in found)
    return found


def scores(model: PreTrainedModel, name: str, pairs: list[Pair]) -> torch.Tensor:
    blocks = blocks_of(model)
    found = drain(method(name).score(model, blocks, block_sites(blocks, range(len(blocks))), pairs))
    assert all(s.shape == (1,) and s.dtype == torch.float32 for s in found)
    return torch.cat(found)


def naive_weight_differences(model: PreTrainedModel, pairs: list[Pair]) -> torch.Tensor:
    """Section 1 of METHODS: two backward passes per pair, all gradients copied, then compared."""

    def gradients(view: View) -> list[list[torch.Tensor]]:
        model.zero_grad()
        model(input_ids=view.ids[None], labels=view.ids[None]).loss.backward()
        return [[p.grad.clone() for p in block.parameters()] for block in blocks_of(model)]

    totals = torch.zeros(len(blocks_of(model)))
    for pair in pairs:
        clean, other = gradients(pair.clean), gradients(pair.other)
        for i, (ours, theirs) in enumerate(zip(clean, other, strict=True)):
            flat = torch.cat([(a - b).flatten() for a, b in zip(ours, theirs, strict=True)])
            totals[i] += flat.norm()
    model.zero_grad()
    return totals / len(pairs)


def naive_gate_gradient(model: PreTrainedModel, view: View) -> list[torch.Tensor]:
    """Section 2: a gate of ones on what each block adds, token by token; its gradient."""
    gates = []

    def gate(block: nn.Module, args: tuple, kwargs: dict, output):
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        z = torch.ones(after.shape[1:], requires_grad=True)
        gates.append(z)
        gated = before + z * (after - before)
        return (gated, *output[1:]) if isinstance(output, tuple) else gated

    handles = [b.register_forward_hook(gate, with_kwargs=True) for b in blocks_of(model)]
    logits = model(input_ids=view.ids[None]).logits[0]
    for handle in handles:
        handle.remove()
    return list(torch.autograd.grad(F.cross_entropy(logits[:-1], view.ids[1:]), gates))


def naive_gate_differences(model: PreTrainedModel, pairs: list[Pair]) -> torch.Tensor:
    totals = torch.zeros(len(blocks_of(model)))
    for pair in pairs:
        clean, other = (naive_gate_gradient(model, v) for v in (pair.clean, pair.other))
        for i, (ours, theirs) in enumerate(zip(clean, other, strict=True)):
            for word in range(len(pair.clean.text.split())):
                a = ours[pair.clean.words == word].sum(dim=0)
                b = theirs[pair.other.words == word].sum(dim=0)
                totals[i] += (a - b).norm()
    return totals / len(pairs)


NAIVE = {"pip": naive_weight_differences, "pip-gate": naive_gate_differences}


def test_every_method_has_its_naive_loop():
    assert {m.name for m in METHODS} == set(NAIVE)


@pytest.mark.parametrize("name", NAIVE)
def test_equals_the_naive_loop(model, pairs, name):
    found, expected = scores(model, name, pairs), NAIVE[name](model, pairs)
    assert (expected > 0).all()
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", NAIVE)
def test_equals_the_naive_loop_with_per_layer_attention(pairs, name):
    model = zoo.build("gemma2")
    torch.testing.assert_close(scores(model, name, pairs), NAIVE[name](model, pairs), **CLOSE)


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
        monkeypatch.setattr(rows, "MULTIPLE", multiple)
        found.append(scores(model, name, pairs))
    torch.testing.assert_close(found[1], found[0], **CLOSE)
    torch.testing.assert_close(found[2], found[0], **CLOSE)


@pytest.mark.parametrize("name", NAIVE)
def test_some_sites_score_as_among_all(model, pairs, name):
    blocks = blocks_of(model)
    everything = scores(model, name, pairs)
    sites = [block_sites(blocks, range(len(blocks)))[i] for i in (1, 3)]
    found = torch.cat(drain(method(name).score(model, blocks, sites, pairs)))
    torch.testing.assert_close(found, everything[[1, 3]], **CLOSE)


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
def test_leaves_the_model_as_it_was(model, pairs, name, abandoned):
    first = next(model.parameters())
    first.requires_grad_(False)
    before, weights = fingerprint(model), [p.clone() for p in model.parameters()]
    blocks = blocks_of(model)
    work = method(name).score(model, blocks, block_sites(blocks, range(len(blocks))), pairs)
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
    blocks = blocks_of(model)
    with torch.no_grad():
        steps = []
        for done in method(name).score(model, blocks, block_sites(blocks, range(len(blocks))), pairs):
            steps.append(done)
            assert not torch.is_grad_enabled()
    assert steps == [1, 2, 3, 4]


def test_pip_holds_one_weight_gradient_at_a_time(model, pairs):
    held = []

    def count(_):
        held.append(sum(p.grad is not None for p in model.parameters()))

    handles = [p.register_post_accumulate_grad_hook(count) for b in blocks_of(model) for p in b.parameters()]
    scores(model, "pip", pairs[:1])
    for handle in handles:
        handle.remove()
    assert held == [1] * len(handles)


def test_pip_gate_makes_no_weight_gradient(model, pairs):
    made = []
    for p in model.parameters():
        p.register_hook(made.append)
    scores(model, "pip-gate", pairs[:1])
    assert made == []


def test_gate_gradients_are_summed_per_word(model, pairs):
    view = pairs[0].other
    count = int(view.words[-1]) + 1
    found = gate_gradients(model, list(blocks_of(model)), view.ids, view.words, count)
    for ours, theirs in zip(found, naive_gate_gradient(model, view), strict=True):
        assert ours.shape == (count, theirs.shape[1])
        for word in range(count):
            torch.testing.assert_close(ours[word], theirs[view.words == word].sum(0), rtol=1e-4, atol=1e-7)


def test_backpropagate_gives_the_gradient_of_the_losses_difference(model, pairs):
    a, b = pairs[0].clean.ids, pairs[0].other.ids[:-5]
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
    assert [m.name for m in METHODS] == ["pip-gate", "pip"]
    for scorer in METHODS:
        assert method(scorer.name) is scorer
        assert scorer.passes > 0
        assert scorer.title
        assert "arXiv 2501.15278" in scorer.paper
        assert scorer.summary.endswith(".")


def test_unknown_method():
    with pytest.raises(UserError, match="Unknown method 'magic': choose pip-gate, pip"):
        method("magic")
