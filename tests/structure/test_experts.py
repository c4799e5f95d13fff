"""Experts leave a mixture with what belongs to them, and what is left chooses among the others as before. The
mixtures of `zoo` are in `test_family_contract`; here are other types, and what cannot be done."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pip_core.core.units import EXPERTS, Units
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape, verify_config_matches

from .. import tiny, zoo

SIX = {"num_experts": 6, "num_experts_per_tok": 2}
TYPES = {
    "olmoe": SIX,
    # An expert for all tokens, and factors that do not add up to one.
    "qwen2_moe": {**SIX, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    # Biases of experts and of the router.
    "gpt_oss": {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 8},
}
REFUSED = {
    "llama": ({}, "no mixture"),
    "jetmoe": ({"num_local_experts": 6}, "not stored"),
    "llama4_text": ({"num_local_experts": 6, "head_dim": 8, "layer_types": None}, "sent to them"),
    "mixtral": ({"num_local_experts": 2, "num_experts_per_tok": 2}, "needs 2"),
}


def made(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**zoo.SHAPE, **TYPES[kind]}))
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return model.eval()


@pytest.mark.parametrize("kind", TYPES)
def test_the_others_are_chosen_as_if_the_router_left_some_out(kind, monkeypatch, tmp_path):
    model, ids = made(kind), tiny.token_rows(2, 12)
    anatomy = anatomy_of(model.config)
    gone = [Units(EXPERTS, n, (n % 6, (n + 2) % 6)) for n in range(len(anatomy.blocks))]
    small, dense = copy.deepcopy(model), Shape.dense(anatomy)
    left = dense.without([Units(unit.kind, unit.block, tuple(sorted(unit.units))) for unit in gone])
    reshape(small, anatomy, dense, left)
    assert sum(p.numel() for p in small.parameters()) == left.parameters(anatomy)
    verify_config_matches(small)
    small.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    routers = {
        id(weight): units.units
        for block, units in zip(blocks_of(model), gone, strict=True)
        for name, weight in block.named_parameters()
        if name in ("mlp.gate.weight", "mlp.router.weight")
    }
    assert len(routers) == len(gone)
    usual = functional.linear

    def without(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None):
        found = usual(inputs, weight, bias)
        if id(weight) in routers:
            found[..., list(routers[id(weight)])] = -torch.inf
        return found

    with torch.inference_mode():
        found = small(input_ids=ids).logits
        assert torch.equal(again(input_ids=ids).logits, found)
        whole = model(input_ids=ids).logits
        monkeypatch.setattr(functional, "linear", without)
        expected = model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected - whole).abs().max() > 1e-3


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_lose_experts_says_why(kind):
    settings, why = REFUSED[kind]
    assert why in anatomy_of(AutoConfig.for_model(kind, **{**zoo.SHAPE, **settings})).refused[EXPERTS]
