"""Attention as products: it comes to what torch's fused attention does."""

from __future__ import annotations

import pytest
import torch

from pip_core.recovery import attention


@pytest.mark.parametrize("length", [2, 63, 64, 65, 200, 600])
def test_is_attention_in_parts_of_any_length(length):
    generator = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(2, heads, length, 16, generator=generator).bfloat16().requires_grad_()
        for heads in (6, 2, 2)
    )
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), is_causal=True, enable_gqa=True
    )
    found = attention.Causal.apply(query, key, value, 16**-0.5)
    at_end = torch.randn(wanted.shape, generator=generator)
    for one, other in zip(
        (found, *torch.autograd.grad(found, (query, key, value), at_end.bfloat16())),
        (wanted, *torch.autograd.grad(wanted, (query, key, value), at_end.double())),
        strict=True,
    ):
        assert float((one.double() - other).detach().norm() / other.detach().double().norm()) < 0.02
