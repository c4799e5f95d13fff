"""The zoo is what it says: every family of the table, and every trap it names has teeth."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import FAMILIES, blocks_of, residual_scale
from pip_core.structure.hooks import first_of, hidden_states

from .. import zoo
from ..bypass import stack_of

TYPES = [
    *("bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox"),
    *("granite", "llama", "mistral", "mixtral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3"),
    *("qwen3_moe", "smollm3", "stablelm", "starcoder2"),
]
UNLISTED = {"helium", "olmo", "glm4", "deepseek_v3"}


def logits(model: PreTrainedModel) -> torch.Tensor:
    rows = torch.randint(2, zoo.VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(input_ids=rows, use_cache=False).logits


def test_the_table_is_these_23():
    assert list(FAMILIES) == TYPES
    assert len(TYPES) == 23


def test_every_family_is_in_the_zoo():
    types = {name: make().model_type for name, make in zoo.CONFIGS.items()}
    assert set(types.values()) == set(TYPES) | UNLISTED
    assert all(kind in zoo.CONFIGS for kind in TYPES)


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_blocks_are_found(name):
    model = zoo.build(name)
    anatomy = anatomy_of(model.config)
    assert blocks_of(model) is stack_of(model)
    assert len(anatomy.blocks) == len(stack_of(model)) >= 4
    assert anatomy.listed == (model.config.model_type in TYPES)
    assert anatomy.parameters == sum(p.numel() for p in model.parameters())
    assert [b.parameters for b in anatomy.blocks] == [
        sum(p.numel() for p in block.parameters()) for block in stack_of(model)
    ]


# OPT's older form norms the sum; what a family that is not listed adds is only guessed.
@pytest.mark.parametrize("name", [n for n in zoo.CONFIGS if n not in UNLISTED | {"opt-norm-after"}])
def test_a_block_is_its_input_and_what_its_halves_add(name):
    model = zoo.build(name)
    anatomy, scale, found = anatomy_of(model.config), residual_scale(model.config), {}
    block, made = blocks_of(model)[1], anatomy.blocks[1]
    modules = [block, *(block.get_submodule(path) for path in made.added)]
    for number, module in enumerate(modules):
        module.register_forward_hook(
            lambda _, args, kwargs, output, number=number: found.update(
                {number: (hidden_states(args, kwargs) if not number else None, first_of(output).clone())}
            ),
            with_kwargs=True,
        )
    logits(model)
    (before, after), (_, attention), (_, mlp) = found[0], found[1], found[2]
    attention, mlp = attention.reshape(after.shape), mlp.reshape(after.shape)
    # Where a half's output holds the stream already, the second one's is the block's.
    expected = mlp if anatomy.family.adds_residual else before + scale * (attention + mlp)
    torch.testing.assert_close(expected, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_ties_are_what_the_config_says(name):
    model = zoo.build(name)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings


def test_both_kinds_of_ties_are_there():
    ties = {name: make().tie_word_embeddings for name, make in zoo.CONFIGS.items()}
    assert {ties["llama"], ties["qwen2"], ties["gpt2"]} == {True}
    assert {ties["llama-biases"], ties["gpt2-inner"], ties["gpt_neox"]} == {False}


# A config field that is changed, with the weights as they are, must change what the model says.
TRAITS = [
    ("mistral", {"sliding_window": 64}),
    ("starcoder2", {"sliding_window": 64}),
    ("qwen2", {"sliding_window": 64}),
    ("qwen2", {"layer_types": zoo.PATTERN[::-1]}),
    ("gemma2", {"sliding_window": 64}),
    ("gemma2", {"layer_types": zoo.PATTERN[::-1]}),
    ("gemma3_text", {"sliding_window": 64}),
    ("gemma3_text", {"layer_types": zoo.PATTERN[::-1]}),
    ("gpt_neo", {"window_size": 64}),
    ("gpt_neo", {"attention_types": [[["local", "global"], 2]], "attention_layers": ["local", "global"] * 2}),
    ("smollm3", {"no_rope_layers": [0, 1, 1, 0, 1]}),
    ("gpt_neox-serial", {"use_parallel_residual": True}),
    ("falcon-alibi", {"parallel_attn": True}),
    ("falcon-alibi", {"alibi": False}),
    ("granite", {"residual_multiplier": 1.0}),
    ("granite", {"embedding_multiplier": 1.0}),
    ("cohere", {"logit_scale": 1.0}),
    ("opt-norm-after", {"do_layer_norm_before": True}),
]


@pytest.mark.parametrize(("name", "changes"), TRAITS, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_traits_matter(name, changes):
    model = zoo.build(name)
    config = copy.deepcopy(model.config)
    for field, value in changes.items():
        assert getattr(config, field) != value
        setattr(config, field, value)
    other = AutoModelForCausalLM.from_config(config).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    assert (logits(other) - logits(model)).abs().max() > 1e-2


def shapes(name: str, *paths: str, block: int = 0) -> list[torch.Size]:
    found = dict(stack_of(zoo.build(name))[block].named_parameters())
    return [found[path].shape for path in paths]


def test_biases_are_there():
    block = stack_of(zoo.build("llama-biases"))[2]
    linear = {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear)}
    assert len(linear) == 7
    assert all(m.bias is not None and m.bias.abs().min() > 0 for m in linear.values())


def test_dense_and_sparse_layers_are_mixed():
    experts = [any(p.dim() == 3 for p in block.parameters()) for block in stack_of(zoo.build("qwen3_moe"))]
    assert experts == [False, True, False, False, False]
    assert all(any(p.dim() == 3 for p in block.parameters()) for block in stack_of(zoo.build("mixtral")))


def test_norms_of_queries_and_keys():
    assert shapes("qwen3", "self_attn.q_norm.weight") == [(8,)]
    assert shapes("cohere", "self_attn.q_norm.weight", "self_attn.k_norm.weight") == [(8, 4), (4, 4)]
    assert shapes("olmo2", "self_attn.q_norm.weight", "self_attn.k_norm.weight") == [(32,), (16,)]
    assert shapes("phi-norms", "self_attn.q_layernorm.weight") == [(4,)]
    assert len(stack_of(zoo.build("stablelm"))[0].self_attn.q_layernorm.norms) == 8


def test_fused_and_projected():
    assert shapes("phi3", "self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight") == [(64, 32), (128, 32)]
    assert shapes("gpt2-inner", "mlp.c_fc.weight") == [(32, 48)]
    assert shapes("falcon-new", "self_attention.query_key_value.weight") == [(48, 32)]
    assert zoo.build("opt-norm-after").model.decoder.project_in.weight.shape == (32, 16)
