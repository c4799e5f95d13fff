"""The gradient that is written down is that of the loss, with and without removed tokens."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pip_core.core.decoding import read_on
from pip_core.recovery import distillation
from pip_core.recovery.attention import fast_attention

from .. import tiny, zoo

KEPT = torch.arange(3, zoo.VOCABULARY, 2)


def pair():
    """A model, another of the same shape, and tokens."""
    dense, pruned = zoo.build("llama"), zoo.build("llama")
    with torch.no_grad():
        for weight in pruned.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return dense, pruned, tiny.token_rows(2, 70)


def naive(dense, pruned, ids, same, kept):
    p = dense(same).logits.detach()
    p = (p if kept is None else p[..., kept]).softmax(-1)
    return F.kl_div(pruned(ids).logits.log_softmax(-1), p, reduction="sum")


@pytest.mark.parametrize("fewer", [False, True])
def test_loss_and_gradient_are_those_of_the_formula(fewer):
    dense, pruned, ids = pair()
    kept, same = None, ids
    if fewer:
        pruned.resize_token_embeddings(len(KEPT), mean_resizing=False)
        ids, kept = ids % len(KEPT), KEPT
        same = KEPT[ids]
    positions = 2 * ids.numel()
    expected = naive(dense, pruned, ids, same, kept)
    (expected / positions).backward()
    gradients = {name: p.grad for name, p in pruned.named_parameters()}
    pruned.zero_grad(set_to_none=True)
    found = distillation.learn(pruned, dense, ids, same, kept, positions)
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    assert distillation.divergence(pruned, dense, ids, same, kept) == pytest.approx(found, rel=1e-6)
    for name, weight in pruned.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-7)
    assert all(weight.grad is None for weight in dense.parameters())


def test_fast_attention_and_a_smaller_head_give_the_same_loss_and_gradient():
    dense, pruned, _ = pair()
    ids, kept = tiny.token_rows(2, 70) % len(KEPT), KEPT
    pruned.resize_token_embeddings(len(KEPT), mean_resizing=False)
    dense, pruned = dense.to(torch.bfloat16), pruned.to(torch.bfloat16)
    found = {}
    for fast in (False, True):
        with ExitStack() as stack:
            left = kept
            if fast:
                usual = ALL_ATTENTION_FUNCTIONS["sdpa"]
                stack.enter_context(fast_attention(dense, pruned))
                left = stack.enter_context(distillation.predicting_only(dense, kept))
                assert left is None
                assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not usual
            loss = distillation.learn(pruned, dense, ids, KEPT[ids], left, ids.numel())
            gradient = torch.cat(
                [p.grad.float().flatten() for p in pruned.parameters() if p.grad is not None]
            )
            with torch.no_grad():  # one token more, read from a cache
                _, cache = read_on(pruned, ids[:, :-1], None)
                last = read_on(pruned, ids[:, -1:], cache)[0].float()
        pruned.zero_grad(set_to_none=True)
        found[fast] = loss, gradient, last
    assert dense.get_output_embeddings().out_features == zoo.VOCABULARY
    assert found[True][0] == pytest.approx(found[False][0], rel=0.01)
    for fast, fused in zip(found[True][1:], found[False][1:], strict=True):  # but for bfloat16's digits
        assert 0 < float((fast - fused).norm() / fused.norm()) < 0.15
