"""What every family must do: a removed unit leaves the model as a bypassed one does, and what is left
can be written, read, and talked to. All on the tiny models of `zoo`."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pip_core.checkpoints.nonuniform import load_nonuniform, save_nonuniform
from pip_core.core.units import ATTENTION, BLOCKS, CHANNELS, DEPTH, EXPERTS, HEADS, KINDS, MLP, WIDTH, Units
from pip_core.structure.anatomy import Anatomy, anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.surgery import reshape, verify_config_matches

from .. import zoo
from ..bypass import bypassed, stack_of

Gone = list[tuple[str, int, tuple[int, ...]]]

NOT_STATED = "its config cannot state fewer {} of the same size"
NO_HEADS = {HEADS: NOT_STATED.format(HEADS)}
OF_EXPERTS = {CHANNELS: "its channels belong to the experts of a mixture, which are stored as one"}
# Everything that a model of the zoo cannot lose, and why.
REFUSED: dict[str, dict[str, str]] = {
    "qwen3_moe": OF_EXPERTS,
    "mixtral": OF_EXPERTS,
    "deepseek_v3": {**OF_EXPERTS, HEADS: "the order inside its fused weight 'self_attn.q_b_proj.weight'"},
    "phi-norms": NO_HEADS,
    "gpt2": NO_HEADS,
    "gpt2-inner": NO_HEADS,
    "gpt_neo": NO_HEADS,
    "gpt_neox": NO_HEADS,
    "gpt_neox-serial": NO_HEADS,
    "opt": NO_HEADS,
    "opt-norm-after": NO_HEADS,
    "bloom": {**NO_HEADS, CHANNELS: NOT_STATED.format(CHANNELS)},
    "falcon": NO_HEADS,
    "falcon-new": NO_HEADS,
    "falcon-alibi": NO_HEADS,
    "stablelm": NO_HEADS,
    "olmo2": {HEADS: "a norm spans all heads"},
    "helium": {HEADS: "its heads do not end in one projection"},
    "glm4": {CHANNELS: "the order inside its fused weight 'mlp.gate_up_proj.weight' is not known"},
}
MIXTURES = ("qwen3_moe", "mixtral", "deepseek_v3")
for _name in zoo.CONFIGS:
    if _name not in MIXTURES:
        REFUSED.setdefault(_name, {})
        REFUSED[_name] = {**REFUSED[_name], EXPERTS: "it is no mixture of experts"}
SUPPORTED = [(name, kind) for name in zoo.CONFIGS for kind in KINDS if kind not in REFUSED.get(name, ())]
SUPPORTED_WIDTH = [(name, kind) for name, kind in SUPPORTED if kind in WIDTH]


@cache
def dense(name: str) -> tuple[PreTrainedModel, Anatomy]:
    """A model of the zoo and its anatomy. Do not change it; see `without`."""
    model = zoo.build(name)
    return model, anatomy_of(model.config)


@cache
def rows() -> torch.Tensor:
    return torch.randint(2, zoo.VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=rows(), use_cache=False).logits


@cache
def dense_logits(name: str) -> torch.Tensor:
    return logits(dense(name)[0])


def units_of(gone: Gone) -> list[Units]:
    return [Units(*unit) for unit in gone]


def without(name: str, *rounds: Gone) -> tuple[PreTrainedModel, Shape]:
    """A copy of a model of the zoo that lost units, round by round."""
    model, anatomy = dense(name)
    model, shape = copy.deepcopy(model), Shape.dense(anatomy)
    for gone in rounds:
        smaller = shape.without(units_of(gone))
        reshape(model, anatomy, shape, smaller)
        shape = smaller
    return model, shape


def assert_equals_bypassed(name: str, *rounds: Gone) -> tuple[PreTrainedModel, Shape]:
    """Logits, and the number of parameters, of the model without units."""
    whole, anatomy = dense(name)
    with bypassed(whole, [unit for gone in rounds for unit in gone]):
        expected = logits(whole)
    model, shape = without(name, *rounds)
    found, scale = logits(model), float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
    # A cut that changed nothing would prove nothing.
    assert (found - dense_logits(name)).abs().max() > 1e-4 * scale
    assert sum(p.numel() for p in model.parameters()) == shape.parameters(anatomy)
    return model, shape


def some(size: int) -> tuple[int, ...]:
    """First, last, and some units between, but never all."""
    return (0, *range(2, size - 1, 3), size - 1)[: size - 1]


def uneven_losses(name: str, kind: str) -> Gone:
    """The last n units of block n, so that every block keeps another number of them."""
    sizes = [b.widths[kind].size for b in dense(name)[1].blocks]
    return [(kind, n, tuple(range(max(1, size - n), size))) for n, size in enumerate(sizes) if n]


def of_each_portion(name: str, block: int, *which: int) -> tuple[int, ...]:
    """Experts of a block, so many of each group that a token chooses among."""
    width = dense(name)[1].blocks[block].widths[EXPERTS]
    length = width.size // width.portions
    return tuple(sorted(start + n % length for start in range(0, width.size, length) for n in which))


def losses_of_experts(name: str) -> dict[str, Gone]:
    sparse = [n for n, block in enumerate(dense(name)[1].blocks) if EXPERTS in block.widths]
    ways = {
        "even": [(EXPERTS, n, of_each_portion(name, n, n)) for n in sparse],
        "most": [(EXPERTS, n, of_each_portion(name, n, n, n + 1)) for n in sparse],
        "uneven": [(EXPERTS, n, of_each_portion(name, n, 0)) for n in sparse[1:]],
    }
    return {how: gone for how, gone in ways.items() if gone}


def losses(name: str, kind: str) -> dict[str, Gone]:
    """Ways for a model to lose units of one kind."""
    blocks = dense(name)[1].blocks
    last = len(blocks) - 1
    if kind in DEPTH:
        places = {
            "first": [0],
            "last": [last],
            # Those between, and several in a row, go in `test_depth_round_by_round`.
            "alternating": range(0, last + 1, 2),
        }
        return {how: [(kind, n, (0,)) for n in numbers] for how, numbers in places.items()}
    if kind == EXPERTS:
        return losses_of_experts(name)
    size = blocks[0].widths[kind].size
    return {
        "even": [(kind, n, some(size)) for n in range(last + 1)],
        # In every block others; of four groups of heads a single one is left.
        "most": [(kind, n, tuple(u for u in range(size) if (u + n) % 4)) for n in range(last + 1)],
        "uneven": uneven_losses(name, kind),
    }


@pytest.mark.parametrize(("name", "kind"), SUPPORTED)
def test_removed_equals_bypassed(name, kind):
    for gone in losses(name, kind).values():
        assert_equals_bypassed(name, gone)


@pytest.mark.parametrize(("name", "kind"), SUPPORTED_WIDTH)
def test_units_keep_their_dense_numbers(name, kind):
    """A second cut must find the units where the first has left them, and be the same as one cut."""
    places = [n for n, block in enumerate(dense(name)[1].blocks) if kind in block.widths]
    if kind == EXPERTS:
        first, second = ([(kind, n, of_each_portion(name, n, unit)) for n in places] for unit in (0, 1))
    else:
        size = dense(name)[1].blocks[0].widths[kind].size
        first = [(kind, n, (0, size // 2)) for n in places]
        second = [(kind, n, (1,) if size == 4 else (1, 5, size - 1)) for n in places[::2]]
    model, shape = assert_equals_bypassed(name, first, second)
    at_once, same = without(name, [*first, *second])
    assert same == shape
    ours, theirs = model.state_dict(), at_once.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_depth_round_by_round(name):
    model, shape = assert_equals_bypassed(name, [(BLOCKS, 1, (0,))], [(MLP, 2, (0,))], [(BLOCKS, 0, (0,))])
    assert shape.blocks == tuple(range(2, len(dense(name)[1].blocks)))
    for index, block in enumerate(stack_of(model)):
        numbers = (getattr(m, name, None) for m in block.modules() for name in ("layer_idx", "layer_id"))
        found = {number for number in numbers if isinstance(number, int)}
        assert found == {index}
    assert model.config.num_hidden_layers == len(stack_of(model))


def everything(name: str) -> tuple[Gone, Gone, Gone]:
    """A half, then units of the other half of the same block, then a block and another half."""
    kinds = [k for k in WIDTH if k not in REFUSED.get(name, ())]
    blocks = dense(name)[1].blocks
    units = [
        (kind, n, tuple(range(1, blocks[n].widths[kind].size, 2)))
        for kind in kinds
        for n in range(len(blocks))
        if n != {HEADS: 2, CHANNELS: 1, EXPERTS: 1}[kind] and kind in blocks[n].widths
    ]
    return [(ATTENTION, 2, (0,)), (MLP, 1, (0,))], units, [(BLOCKS, 0, (0,)), (MLP, 3, (0,))]


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_every_kind_in_one_model(name):
    assert_equals_bypassed(name, *everything(name))


def generated(model: PreTrainedModel, use_cache: bool) -> torch.Tensor:
    ids = rows()[:, :10]
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=6,
        max_new_tokens=6,
        pad_token_id=1,
        use_cache=use_cache,
    )


def assert_generates(model: PreTrainedModel, again: PreTrainedModel) -> None:
    """Greedy tokens are the same in memory and reloaded, with the key-value cache and without."""
    expected = generated(model, use_cache=False)
    assert expected.shape == (2, 16)
    for found in (generated(model, True), generated(again, True), generated(again, False)):
        assert torch.equal(found, expected)


def plainly(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    verify_config_matches(model)
    model.save_pretrained(folder)
    again, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not [keys for keys in info.values() if keys]
    assert again.config.to_dict() == AutoConfig.from_pretrained(folder).to_dict()
    return again.eval()


def by_our_loader(name: str, model: PreTrainedModel, shape: Shape, folder: Path) -> PreTrainedModel:
    assert shape.uneven()
    save_nonuniform(model, dense(name)[0].config, shape, folder)
    for load in (AutoModelForCausalLM, AutoConfig):
        with pytest.raises((OSError, ValueError)):
            load.from_pretrained(folder)
    return load_nonuniform(folder)


def assert_same_config(ours: PreTrainedModel, theirs: PreTrainedModel) -> None:
    """Whatever the config says, but for the file it came from."""
    passing = ("_name_or_path", "architectures")
    found, expected = (
        {k: v for k, v in m.config.to_dict().items() if k not in passing} for m in (theirs, ours)
    )
    assert found == expected


@pytest.mark.parametrize(("name", "kind"), SUPPORTED)
def test_written_and_read_again(name, kind, tmp_path):
    ways = losses(name, kind)
    for how, gone in ways.items():
        if how not in ("alternating", "even", "uneven"):
            continue
        model, shape = without(name, gone)
        plain = kind == BLOCKS or how == "even"
        assert (shape.uneven() is None) == plain
        folder = tmp_path / how
        again = plainly(model, folder) if plain else by_our_loader(name, model, shape, folder)
        assert torch.equal(logits(again), logits(model))
        assert sum(p.numel() for p in again.parameters()) == shape.parameters(dense(name)[1])
        assert not again.training
        if plain:
            assert_same_config(model, again)


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_even_model_generates_alike_after_reload(name, tmp_path):
    """Blocks and units of every width kind gone at once."""
    gone = [unit for kind in WIDTH if (name, kind) in SUPPORTED for unit in losses(name, kind)["even"]]
    model, shape = without(name, gone, [(BLOCKS, 1, (0,)), (BLOCKS, 2, (0,))])
    assert shape.uneven() is None
    again = plainly(model, tmp_path / "model")
    assert torch.equal(logits(again), logits(model))
    assert_same_config(model, again)
    assert_generates(model, again)


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_uneven_model_generates_alike_after_reload(name, tmp_path):
    model, shape = without(name, *everything(name))
    again = by_our_loader(name, model, shape, tmp_path / "model")
    assert torch.equal(logits(again), logits(model))
    assert again.config.num_hidden_layers == len(shape.layers)
    assert_generates(model, again)


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_the_first_attention_may_go(name, tmp_path):
    """The cache is asked how long it is at its first slot."""
    model, shape = without(name, [(ATTENTION, 0, (0,)), (ATTENTION, 1, (0,))])
    assert_generates(model, by_our_loader(name, model, shape, tmp_path / "model"))


@pytest.mark.parametrize("name", zoo.CONFIGS)
def test_what_is_refused_and_why(name):
    refused, expected = dense(name)[1].refused, REFUSED.get(name, {})
    assert refused.keys() == expected.keys()
    assert all(refused[kind].startswith(reason) for kind, reason in expected.items())
