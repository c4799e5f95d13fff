"""The config stays true, and nothing is touched that need not be. What is left equals what was bypassed:
`test_contract`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from pip_core.core.errors import UserError
from pip_core.core.units import BLOCKS, CHANNELS, HEADS, MLP, Units
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.families import FAMILIES, PLAIN, Family, blocks_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape, select_layers, verify_config_matches

from .. import zoo


def without_blocks(model: PreTrainedModel, *numbers: int) -> PreTrainedModel:
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    reshape(model, anatomy, dense, dense.without(Units(BLOCKS, n, (0,)) for n in numbers))
    return model


@pytest.mark.parametrize(
    ("name", "gone", "expected"),
    [
        ("qwen2", (0, 2), {"layer_types": [zoo.PATTERN[i] for i in (1, 3, 4)]}),
        ("gemma2", (0, 2), {"layer_types": [zoo.PATTERN[i] for i in (1, 3, 4)]}),
        ("gemma3_text", (1,), {"layer_types": [zoo.PATTERN[i] for i in (0, 2, 3, 4)]}),
        ("smollm3", (0,), {"no_rope_layers": [0, 1, 1, 0]}),
        ("smollm3", (1, 4), {"no_rope_layers": [1, 1, 1]}),
        (
            "gpt_neo",
            (0, 3),
            {"attention_layers": ["local", "global"], "attention_types": [[["local"], 1], [["global"], 1]]},
        ),
        ("gpt_neo", (1, 3), {"attention_layers": ["global", "global"]}),
        # Of five layers only the second is a mixture: every second is, but for the fourth.
        ("qwen3_moe", (0,), {"decoder_sparse_step": 1, "mlp_only_layers": [1, 2, 3]}),
        ("qwen3_moe", (1,), {"decoder_sparse_step": 1, "mlp_only_layers": [0, 1, 2, 3]}),
        ("qwen3_moe", (2, 3), {"decoder_sparse_step": 1, "mlp_only_layers": [0, 2]}),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_per_layer_fields_are_selected_not_cut_short(name, gone, expected, tmp_path):
    model = without_blocks(zoo.build(name), *gone)
    model.config.save_pretrained(tmp_path)
    for config in (model.config, AutoConfig.from_pretrained(tmp_path)):
        assert {field: getattr(config, field) for field in expected} == expected
        assert config.num_hidden_layers == len(blocks_of(model))


def test_wrong_selection_would_be_seen():
    """The tests above mean something only if the entries matter to what the model says."""
    model = zoo.build("qwen2")
    rows = torch.randint(2, zoo.VOCABULARY, (1, 30), generator=torch.Generator().manual_seed(0))
    other = copy.deepcopy(model.config)
    other.layer_types = other.layer_types[::-1]
    changed = type(model)(other).eval()
    changed.load_state_dict(model.state_dict())
    assert (changed(rows).logits - model(rows).logits).abs().max() > 1e-2


def test_lists_of_another_kind_stay():
    config = LlamaConfig(num_hidden_layers=3, eos_token_id=[5, 6, 7], architectures=["A", "B", "C"])
    config.per_layer = (10, 20, 30)
    config.other = [1, 2]
    config.by_number = [0, 2]
    select_layers(config, [0, 2], Family(layer_numbers=("by_number",)))
    assert config.num_hidden_layers == 2
    assert config.eos_token_id == [5, 6, 7]
    assert config.architectures == ["A", "B", "C"]
    assert config.per_layer == (10, 30)
    assert config.other == [1, 2]
    assert config.by_number == [0, 1]


def test_a_family_with_its_own_name_for_the_count():
    config = GPT2Config(n_layer=4)
    select_layers(config, [0, 1, 3], PLAIN)
    assert config.n_layer == config.num_hidden_layers == 3


def test_layers_listed_by_number_as_many_as_there_are_layers():
    """Such a list has the length of a per-layer one by chance."""
    config = zoo.CONFIGS["qwen3_moe"]()
    config.mlp_only_layers = [0, 1, 2, 3, 4]
    select_layers(config, [1, 4], FAMILIES["qwen3_moe"])
    assert (config.mlp_only_layers, config.num_hidden_layers) == ([0, 1], 2)


def test_nothing_to_remove():
    model = zoo.build("llama")
    before, weights = model.config.to_dict(), {n: p.data_ptr() for n, p in model.named_parameters()}
    without_blocks(model)
    assert model.config.to_dict() == before
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == weights


def test_what_is_gone_cannot_come_back():
    model = zoo.build("llama")
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    smaller = dense.without([Units(BLOCKS, 1, (0,)), Units(BLOCKS, 3, (0,))])
    reshape(model, anatomy, dense, smaller)
    with pytest.raises(ValueError, match=r"blocks \[1, 3\] do not remain"):
        reshape(model, anatomy, smaller, dense)
    assert len(blocks_of(model)) == zoo.BLOCKS - 2


def test_other_weights_are_not_touched():
    model = zoo.build("llama")
    before = {n: p.data_ptr() for n, p in model.named_parameters() if ".layers." not in n}
    kept = [p.data_ptr() for i in (0, 2, 3, 4) for p in blocks_of(model)[i].parameters()]
    without_blocks(model, 1)
    assert {n: p.data_ptr() for n, p in model.named_parameters() if ".layers." not in n} == before
    assert [p.data_ptr() for b in blocks_of(model) for p in b.parameters()] == kept


@pytest.mark.parametrize("kind", [HEADS, CHANNELS])
def test_a_cut_touches_its_own_weights_only(kind):
    """The other half and every other block keep their very tensors; what is cut keeps its settings."""
    model = zoo.build("llama-biases").to(torch.bfloat16)
    for p in model.parameters():
        p.requires_grad_(False)
    anatomy = anatomy_of(model.config)
    dense, before = Shape.dense(anatomy), {n: p.data_ptr() for n, p in model.named_parameters()}
    reshape(model, anatomy, dense, dense.without([Units(kind, 2, (1, 2))]))
    moved = {n for n, p in model.named_parameters() if p.data_ptr() != before[n]}
    cut = {
        HEADS: "q_proj.weight q_proj.bias k_proj.weight k_proj.bias v_proj.weight v_proj.bias o_proj.weight",
        CHANNELS: "gate_proj.weight gate_proj.bias up_proj.weight up_proj.bias down_proj.weight",
    }[kind].split()
    half = {HEADS: "self_attn", CHANNELS: "mlp"}[kind]
    assert moved == {f"model.layers.2.{half}.{name}" for name in cut}
    block = blocks_of(model)[2]
    assert {p.dtype for p in block.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in block.parameters())
    assert not any(m.training for m in block.modules())
    assert all(p.device.type == "cpu" and p.is_contiguous() for p in block.parameters())
    sizes = [(m.in_features, m.out_features) for m in block.modules() if isinstance(m, nn.Linear)]
    assert sizes == [m.weight.shape[::-1] for m in block.modules() if isinstance(m, nn.Linear)]


def test_a_cut_block_computes_attention_as_the_model_was_told_to():
    model = AutoModelForCausalLM.from_config(zoo.CONFIGS["llama"](), attn_implementation="eager").eval()
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    reshape(model, anatomy, dense, dense.without([Units(HEADS, 1, (0,))]))
    asked = [block.self_attn.config._attn_implementation for block in blocks_of(model)]
    assert asked == ["eager"] * zoo.BLOCKS


def test_the_config_states_even_sizes_and_no_others():
    model = zoo.build("llama")
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    uneven = dense.without([Units(HEADS, 1, (0, 1)), Units(CHANNELS, 2, (5,))])
    reshape(model, anatomy, dense, uneven)
    said = model.config
    assert (said.num_attention_heads, said.num_key_value_heads, said.intermediate_size) == (8, 4, 64)
    even = uneven.without(
        [
            *(Units(HEADS, n, (1, 3)) for n in (0, 2, 3, 4)),
            *(Units(CHANNELS, n, (63,)) for n in (0, 1, 3, 4)),
        ]
    )
    reshape(model, anatomy, uneven, even)
    assert (said.num_attention_heads, said.num_key_value_heads, said.intermediate_size) == (4, 2, 63)
    assert (said.head_dim, said.hidden_size) == (4, 32)
    verify_config_matches(model)


@pytest.mark.parametrize(("gone", "possible"), [((0,), False), ((1,), False), ((0, 3), False), ((3,), True)])
def test_a_rule_that_does_not_survive_removal(gone, possible):
    """GPT-2 may scale attention by a block's place, which a block that moves up would change."""
    config = zoo.CONFIGS["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    model = without_blocks(AutoModelForCausalLM.from_config(config), *gone)
    if possible:
        verify_config_matches(model)
        return
    with pytest.raises(UserError, match=r"config of this model \(gpt2\) cannot describe what is left"):
        verify_config_matches(model)


def test_a_config_that_says_something_else_is_noticed():
    for change in ({"intermediate_size": 48}, {"num_key_value_heads": 2}, {"attention_bias": True}):
        model = zoo.build("llama")
        for name, value in change.items():
            setattr(model.config, name, value)
        with pytest.raises(UserError, match="cannot describe what is left"):
            verify_config_matches(model)
    model = zoo.build("qwen2")
    model.config.layer_types = zoo.PATTERN[::-1]
    with pytest.raises(UserError, match="nothing was written"):
        verify_config_matches(model)


@pytest.mark.parametrize("name", ["llama", "bloom", "opt"])
def test_a_half_that_is_gone_has_no_weights(name):
    model = zoo.build(name)
    anatomy = anatomy_of(model.config)
    dense = Shape.dense(anatomy)
    before = sum(p.numel() for p in model.parameters())
    reshape(model, anatomy, dense, dense.without([Units(MLP, 1, (0,))]))
    assert before - sum(p.numel() for p in model.parameters()) == anatomy.blocks[1].half_parameters[1]
    with pytest.raises(UserError, match="cannot describe what is left"):
        verify_config_matches(model)
