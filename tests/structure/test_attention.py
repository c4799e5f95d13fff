"""Attention as products: where it is taken, and that it comes to what torch's fused attention does."""

from __future__ import annotations

import pytest
import torch

from pip_core.core.progress import drain
from pip_core.evaluation.evaluator import perplexity
from pip_core.reconstruction.residual_stream import ResidualStream
from pip_core.scoring.base import loss_of
from pip_core.scoring.token_gradients import logit_gradients
from pip_core.structure import attention
from pip_core.structure.attention import fast_attention

from .. import tiny, zoo


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", ["measuring", "scoring", "weighing", "refitting"])
def test_is_taken_in_bfloat16_wherever_rows_are_read(what, dtype, monkeypatch):
    model, rows, taken = zoo.build("llama").to(dtype), tiny.token_rows(2, 40), []
    usual = attention.Causal.apply
    monkeypatch.setattr(attention.Causal, "apply", lambda *given: taken.append(1) or usual(*given))

    def read() -> torch.Tensor:
        if what == "measuring":
            return torch.tensor(drain(perplexity(model, rows)).value).log()
        if what == "weighing":
            return torch.tensor(loss_of(model, rows[0]))
        if what == "scoring":
            return logit_gradients(model, rows[0], torch.arange(40), 40)
        stream = ResidualStream(model, [rows])
        with torch.no_grad():
            stream.advance(0, len(stream.blocks))
        return stream.stream[0].float()

    found = read()
    assert bool(taken) == (dtype == torch.bfloat16)
    for module in ("evaluation.evaluator", "scoring.base", "reconstruction.residual_stream"):
        monkeypatch.setattr(f"pip_core.{module}.fast_attention", lambda model: fast_attention())
    fused = read()
    assert float((found - fused).norm() / fused.norm()) < (0.02 if taken else 1e-9)
