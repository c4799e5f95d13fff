"""The gradient that is written down is that of the loss, with and without removed tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pip_core.recovery import distillation

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
