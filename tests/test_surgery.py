"""Removing a block equals bypassing it, for every family, and the config stays true."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from pip_core.families import blocks_of
from pip_core.surgery import remove_blocks, select_layers

from . import tiny

REMOVED = {
    "first": [0],
    "second": [1],
    "middle": [2],
    "last": [-1],
    "two": [1, 2],
    "ends": [0, -1],
    "all but one": [0, 1, -1],
}


def positions_in(model, which: str) -> list[int]:
    count = len(blocks_of(model))
    if which == "all but one":
        return [i for i in range(count) if i != 1]
    return [p % count for p in REMOVED[which]]


def logits(model, rows) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=rows, use_cache=False).logits


@pytest.mark.parametrize("which", REMOVED)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_removed_equals_bypassed(family, which):
    model, rows = tiny.build(family), tiny.token_rows(2, 30)
    positions = positions_in(model, which)
    dense = logits(model, rows)
    handles = tiny.bypass(model, positions)
    expected = logits(model, rows)
    for handle in handles:
        handle.remove()
    remove_blocks(model, positions)
    found = logits(model, rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - dense).abs().max() > 0.1


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_one_after_another_equals_at_once(family):
    at_once, stepwise, rows = tiny.build(family), tiny.build(family), tiny.token_rows(1, 30)
    remove_blocks(at_once, [1, 3])
    remove_blocks(stepwise, [3])
    remove_blocks(stepwise, [1])
    assert torch.equal(logits(at_once, rows), logits(stepwise, rows))
    assert at_once.config.to_dict() == stepwise.config.to_dict()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_layer_indices_are_renumbered(family):
    model = tiny.build(family)
    remove_blocks(model, [0, 2])
    blocks = blocks_of(model)
    for index, block in enumerate(blocks):
        found = {m.layer_idx for m in block.modules() if isinstance(getattr(m, "layer_idx", None), int)}
        assert found == {index}
    assert model.config.num_hidden_layers == len(blocks)


@pytest.mark.parametrize("which", ["first", "middle", "two", "all but one"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_generates_the_same_with_and_without_cache(family, which):
    model, rows = tiny.build(family), tiny.token_rows(1, 12)
    remove_blocks(model, positions_in(model, which))
    settings = {"attention_mask": torch.ones_like(rows), "do_sample": False, "pad_token_id": 1}
    settings |= {"min_new_tokens": 16, "max_new_tokens": 16}
    cached, plain = (model.generate(rows, use_cache=c, **settings) for c in (True, False))
    assert cached.shape == (1, 28)
    assert torch.equal(cached, plain)


def test_per_layer_lists_are_selected_not_cut_short():
    model = tiny.build("qwen2")
    remove_blocks(model, [0, 2])
    assert model.config.layer_types == [tiny.PATTERN[i] for i in (1, 3, 4)]
    assert model.config.layer_types != tiny.PATTERN[:3]
    model = tiny.build("smollm3")
    remove_blocks(model, [0])
    assert model.config.no_rope_layers == [0, 1, 1, 0]


def test_wrong_selection_would_be_seen():
    """The test above means something only if the entries matter to what the model says."""
    model, rows = tiny.build("qwen2"), tiny.token_rows(1, 30)
    before = logits(model, rows)
    other = copy.deepcopy(model.config)
    other.layer_types = other.layer_types[::-1]
    changed = type(model)(other).eval()
    changed.load_state_dict(model.state_dict())
    assert (logits(changed, rows) - before).abs().max() > 1e-2


def test_lists_of_another_kind_stay():
    config = LlamaConfig(num_hidden_layers=3, eos_token_id=[5, 6, 7], architectures=["A", "B", "C"])
    config.per_layer = (10, 20, 30)
    config.other = [1, 2]
    select_layers(config, [0, 2])
    assert config.num_hidden_layers == 2
    assert config.eos_token_id == [5, 6, 7]
    assert config.architectures == ["A", "B", "C"]
    assert config.per_layer == (10, 30)
    assert config.other == [1, 2]


def test_a_family_with_its_own_name_for_the_count():
    config = GPT2Config(n_layer=4)
    select_layers(config, [0, 1, 3])
    assert config.n_layer == config.num_hidden_layers == 3


def test_nothing_to_remove():
    model, rows = tiny.build("llama"), tiny.token_rows(1, 10)
    before, config = logits(model, rows), model.config.to_dict()
    remove_blocks(model, [])
    assert torch.equal(logits(model, rows), before)
    assert model.config.to_dict() == config


@pytest.mark.parametrize(
    ("positions", "message"), [([5], "outside"), ([-1], "outside"), (range(5), "remain")]
)
def test_impossible_positions_leave_the_model_alone(positions, message):
    model = tiny.build("llama")
    with pytest.raises(ValueError, match=message):
        remove_blocks(model, list(positions))
    assert len(blocks_of(model)) == tiny.BLOCKS


def test_other_weights_are_not_touched():
    model = tiny.build("llama")
    before = {n: p.data_ptr() for n, p in model.named_parameters() if ".layers." not in n}
    kept = [p.data_ptr() for i in (0, 2, 3, 4) for p in blocks_of(model)[i].parameters()]
    remove_blocks(model, [1])
    assert {n: p.data_ptr() for n, p in model.named_parameters() if ".layers." not in n} == before
    assert [p.data_ptr() for b in blocks_of(model) for p in b.parameters()] == kept
