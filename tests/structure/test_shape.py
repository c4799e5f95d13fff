"""Units, shapes, sites and the anatomy they come from: plain data, counted by hand."""

from __future__ import annotations

import json

import pytest
import torch

from pip_core.core.errors import UserError
from pip_core.core.units import (
    ATTENTION,
    BLOCKS,
    CHANNELS,
    DEPTH,
    EXPERTS,
    HEADS,
    KINDS,
    MLP,
    TITLES,
    WIDTH,
    Units,
    format_count,
    group,
)
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.experts import NO_MIXTURE
from pip_core.structure.shape import Layer, Shape
from pip_core.structure.sites import Site, sites_of
from pip_core.structure.width import Cut

from .. import zoo

# One block of the zoo's Llama: 32 wide, 8 query heads of 4 in 4 groups, 64 channels, two norms.
GROUP, CHANNEL = 32 * (8 + 4 + 4 + 8), 32 * 3
ATTENTION_SIZE, MLP_SIZE, NORMS = 4 * GROUP, 64 * CHANNEL, 64
BLOCK = ATTENTION_SIZE + MLP_SIZE + NORMS


@pytest.fixture(scope="module")
def llama():
    return anatomy_of(zoo.CONFIGS["llama"]())


@pytest.fixture(scope="module")
def dense(llama) -> Shape:
    return Shape.dense(llama)


def test_kinds():
    assert (*DEPTH, *WIDTH) == KINDS == tuple(TITLES)


def test_loose_units_are_grouped():
    loose = [(CHANNELS, 2, 7), (HEADS, 1, 3), (CHANNELS, 2, 0), (BLOCKS, 4, 0), (CHANNELS, 0, 5)]
    assert group(loose) == (
        Units(BLOCKS, 4, (0,)),
        Units(HEADS, 1, (3,)),
        Units(CHANNELS, 0, (5,)),
        Units(CHANNELS, 2, (0, 7)),
    )
    assert group([]) == ()


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (1530, CHANNELS, "1,530 channels"),
        (1, CHANNELS, "1 channel"),
        (1, HEADS, "1 group of heads"),
        (0, HEADS, "0 groups of heads"),
        (1, BLOCKS, "1 block"),
        (1, MLP, "1 MLP half"),
        (2, ATTENTION, "2 attention halves"),
    ],
)
def test_counted(number, kind, words):
    assert format_count(number, kind) == words


def test_anatomy_of_a_llama(llama):
    assert (llama.model_type, llama.listed, llama.channel_field) == ("llama", True, "intermediate_size")
    assert (llama.head_size, llama.queries, dict(llama.refused)) == (4, 2, {EXPERTS: NO_MIXTURE})
    assert llama.embedding_parameters == zoo.VOCABULARY * 32 + 32  # the head is tied; the last norm
    assert llama.parameters == llama.embedding_parameters + 5 * BLOCK
    block = llama.blocks[0]
    assert block.parameters == BLOCK
    assert (block.attention, block.mlp, block.added) == (("self_attn",), ("mlp",), ("self_attn", "mlp"))
    assert block.half_parameters == (ATTENTION_SIZE, MLP_SIZE)
    heads, channels = block.widths[HEADS], block.widths[CHANNELS]
    assert (heads.size, heads.output, heads.features, heads.cost) == (4, "self_attn.o_proj", 8, GROUP)
    assert (channels.size, channels.output, channels.features) == (64, "mlp.down_proj", 1)
    assert channels.cost == CHANNEL
    assert {(c.weight.removeprefix("self_attn."), c.axis, c.widths) for c in heads.cuts} == {
        ("q_proj.weight", 0, (8,)),
        ("k_proj.weight", 0, (4,)),
        ("v_proj.weight", 0, (4,)),
        ("o_proj.weight", 1, (8,)),
    }
    assert {(c.weight, c.axis, c.widths) for c in channels.cuts} == {
        ("mlp.gate_proj.weight", 0, (1,)),
        ("mlp.up_proj.weight", 0, (1,)),
        ("mlp.down_proj.weight", 1, (1,)),
    }


@pytest.mark.parametrize(
    ("name", "kind", "cuts"),
    [
        ("phi3", HEADS, {("self_attn.qkv_proj.weight", 0, (8, 4, 4)), ("self_attn.o_proj.weight", 1, (8,))}),
        ("phi3", CHANNELS, {("mlp.gate_up_proj.weight", 0, (1, 1)), ("mlp.down_proj.weight", 1, (1,))}),
        (
            "gpt2",
            CHANNELS,
            {("mlp.c_fc.weight", 1, (1,)), ("mlp.c_fc.bias", 0, (1,)), ("mlp.c_proj.weight", 0, (1,))},
        ),
        ("opt", CHANNELS, {("fc1.weight", 0, (1,)), ("fc1.bias", 0, (1,)), ("fc2.weight", 1, (1,))}),
        (
            "cohere",
            HEADS,
            {
                ("self_attn.q_proj.weight", 0, (8,)),
                ("self_attn.k_proj.weight", 0, (4,)),
                ("self_attn.v_proj.weight", 0, (4,)),
                ("self_attn.o_proj.weight", 1, (8,)),
                ("self_attn.q_norm.weight", 0, (2,)),
                ("self_attn.k_norm.weight", 0, (1,)),
            },
        ),
    ],
)
def test_what_a_unit_owns(name, kind, cuts):
    width = anatomy_of(zoo.CONFIGS[name]()).blocks[0].widths[kind]
    assert {(c.weight, c.axis, c.widths) for c in width.cuts} == cuts


def test_indices_of_a_cut():
    fused = Cut("qkv", 0, (4, 2, 2))
    # Of three units: queries 0-11, keys 12-17, values 18-23.
    assert fused.indices([1], 3).tolist() == [4, 5, 6, 7, 14, 15, 20, 21]
    assert fused.indices([0, 2], 3).tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 22, 23]
    assert fused.indices([], 3).tolist() == []
    assert Cut("down", 1, (1,)).indices([3, 5], 8).tolist() == [3, 5]
    assert fused.indices([1], 3).dtype == torch.int64


def test_a_single_unit_cannot_go():
    """Multi-query attention has one group of heads in a block."""
    config = zoo.shared_settings("llama", num_key_value_heads=1)()
    assert "single unit of heads" in anatomy_of(config).refused[HEADS]


def test_what_cannot_be_lost_is_refused_with_what_can():
    found = anatomy_of(zoo.CONFIGS["olmo2"]())
    found.check([BLOCKS, CHANNELS])
    with pytest.raises(UserError) as refused:
        found.check([CHANNELS, HEADS])
    message = str(refused.value)
    assert "eads" in message
    assert found.refused[HEADS] in message
    assert "attention halves or MLP halves" in message


def test_dense_shape(llama, dense):
    assert dense.blocks == (0, 1, 2, 3, 4)
    assert dense.layers[3] == Layer(3, True, True, {HEADS: (0, 1, 2, 3), CHANNELS: tuple(range(64))})
    assert dense.parameters(llama) == llama.parameters
    assert (dense.uneven(), dense.sizes(llama), dense.removed_description(llama)) == (None, {}, "nothing")


@pytest.mark.parametrize(
    ("gone", "parameters", "lost", "uneven"),
    [
        ([(BLOCKS, 1, (0,)), (BLOCKS, 4, (0,))], 2 * BLOCK, "2 of 5 blocks", None),
        (
            [(ATTENTION, 1, (0,))],
            ATTENTION_SIZE,
            "1 of 5 attention halves",
            "1 of its blocks' halves is removed",
        ),
        (
            [(ATTENTION, 1, (0,)), (MLP, 1, (0,)), (MLP, 2, (0,))],
            ATTENTION_SIZE + 2 * MLP_SIZE,
            "1 of 5 attention halves and 2 of 5 MLP halves",
            "3 of its blocks' halves are removed",
        ),
        (
            [(HEADS, n, (n % 4,)) for n in range(5)],
            5 * GROUP,
            "1 of 4 groups of heads in every block",
            None,
        ),
        (
            [(CHANNELS, n, (3, 9)) for n in range(5)],
            10 * CHANNEL,
            "2 of 64 channels in every block",
            None,
        ),
        (
            [(CHANNELS, 0, (3, 9)), (CHANNELS, 1, (1,))],
            3 * CHANNEL,
            "3 of 320 channels",
            "its blocks keep different numbers of channels (62 to 64)",
        ),
        (
            [(HEADS, 2, (0, 1, 2)), *((CHANNELS, n, (5,)) for n in range(5))],
            3 * GROUP + 5 * CHANNEL,
            "3 of 20 groups of heads and 1 of 64 channels in every block",
            "its blocks keep different numbers of heads (1 to 4)",
        ),
        # What a half takes with it is not lost twice.
        (
            [(CHANNELS, 2, (1, 2, 3)), (MLP, 2, (0,))],
            MLP_SIZE,
            "1 of 5 MLP halves",
            "1 of its blocks' halves is removed",
        ),
        (
            [(CHANNELS, 2, (1, 2, 3)), (HEADS, 2, (1,)), (BLOCKS, 2, (0,))],
            BLOCK,
            "1 of 5 blocks",
            None,
        ),
    ],
    ids=str,
)
def test_smaller_shapes(llama, dense, gone, parameters, lost, uneven):
    shape = dense.without(Units(*unit) for unit in gone)
    assert llama.parameters - shape.parameters(llama) == parameters
    assert shape.removed_description(llama) == lost
    assert shape.uneven() == uneven
    step = dense
    for unit in gone:
        step = step.without([Units(*unit)])
    assert step == shape
    assert dense == Shape.dense(llama)


def test_even_sizes(llama, dense):
    shape = dense.without(Units(HEADS, n, (0, n % 3 + 1)) for n in range(5))
    assert shape.sizes(llama) == {HEADS: 2}
    shape = shape.without(Units(CHANNELS, n, (0,)) for n in range(5))
    assert shape.sizes(llama) == {HEADS: 2, CHANNELS: 63}


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ([(BLOCKS, 5, (0,))], "block 5 does not remain"),
        ([(BLOCKS, 1, (0,)), (BLOCKS, 1, (0,))], "block 1 does not remain"),
        ([(BLOCKS, 1, (0,)), (HEADS, 1, (0,))], "block 1 does not remain"),
        ([(BLOCKS, n, (0,)) for n in range(5)], "no block would remain"),
        ([(MLP, 1, (0,)), (MLP, 1, (0,))], "block 1 has no mlp left"),
        ([(HEADS, 1, (0, 1, 2, 3))], "block 1 cannot lose 4 of 4 heads"),
        ([(HEADS, 1, (4,))], "block 1 cannot lose 1 of 4 heads"),
        ([(HEADS, 1, (2,)), (HEADS, 1, (2, 3))], "block 1 cannot lose 2 of 3 heads"),
        ([(CHANNELS, 1, (-1,))], "block 1 cannot lose 1 of 64 channels"),
    ],
    ids=str,
)
def test_what_is_not_there_cannot_go(dense, gone, message):
    with pytest.raises(ValueError, match=message):
        dense.without(Units(*unit) for unit in gone)


def test_shapes_are_written_and_read(llama, dense):
    shape = dense.without(
        [
            Units(BLOCKS, 0, (0,)),
            Units(ATTENTION, 2, (0,)),
            Units(HEADS, 3, (1,)),
            Units(CHANNELS, 4, (0, 63)),
        ]
    )
    assert Shape.from_dict(json.loads(json.dumps(shape.to_dict())), llama) == shape


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("layers"),
        lambda d: d.update(layers=[]),
        lambda d: d.update(layers=5),
        lambda d: d["layers"].reverse(),
        lambda d: d["layers"].append(d["layers"][-1]),
        lambda d: d["layers"][0].pop("mlp"),
        lambda d: d["layers"][0].update(block=9),
        lambda d: d["layers"][0].update(block="0"),
        lambda d: d["layers"][0].update(kept=[]),
        lambda d: d["layers"][0]["kept"].pop(HEADS),
        lambda d: d["layers"][0]["kept"].update(tails=[0]),
        lambda d: d["layers"][0]["kept"].update(heads=[]),
        lambda d: d["layers"][0]["kept"].update(heads=[0, 4]),
        lambda d: d["layers"][0]["kept"].update(heads=[2, 1]),
        lambda d: d["layers"][0]["kept"].update(heads=[1, 1]),
        lambda d: d["layers"][0]["kept"].update(heads=3),
        lambda d: d["layers"][0].update(block=-1),
        lambda d: d["layers"][0].update(attention="yes"),
    ],
)
def test_shapes_that_are_damaged(llama, dense, spoil):
    values = json.loads(json.dumps(dense.to_dict()))
    spoil(values)
    with pytest.raises(UserError, match="the folder is damaged"):
        Shape.from_dict(values, llama)


def test_a_shape_of_another_model(dense):
    with pytest.raises(UserError, match="does not belong to it"):
        Shape.from_dict(json.loads(json.dumps(dense.to_dict())), anatomy_of(zoo.CONFIGS["gpt2"]()))


def test_sites_of_blocks(llama, dense):
    shape = dense.without([Units(BLOCKS, 1, (0,)), Units(MLP, 2, (0,)), Units(HEADS, 3, (0, 1))])
    assert sites_of(llama, shape, (BLOCKS,)) == [
        Site(BLOCKS, 0, 0, (0,), BLOCK),
        Site(BLOCKS, 2, 1, (0,), BLOCK - MLP_SIZE),
        Site(BLOCKS, 3, 2, (0,), BLOCK - 2 * GROUP),
        Site(BLOCKS, 4, 3, (0,), BLOCK),
    ]


def test_sites_of_halves(llama, dense):
    shape = dense.without(
        [Units(BLOCKS, 0, (0,)), Units(ATTENTION, 1, (0,)), Units(MLP, 2, (0,)), Units(CHANNELS, 3, (7, 8))]
    )
    found = [(s.kind, s.block, s.position, s.cost, s.added) for s in sites_of(llama, shape, (ATTENTION, MLP))]
    assert found == [
        (MLP, 1, 0, MLP_SIZE, "mlp"),
        (ATTENTION, 2, 1, ATTENTION_SIZE, "self_attn"),
        (ATTENTION, 3, 2, ATTENTION_SIZE, "self_attn"),
        (MLP, 3, 2, MLP_SIZE - 2 * CHANNEL, "mlp"),
        (ATTENTION, 4, 3, ATTENTION_SIZE, "self_attn"),
        (MLP, 4, 3, MLP_SIZE, "mlp"),
    ]


def test_sites_of_units(llama, dense):
    shape = dense.without([Units(BLOCKS, 0, (0,)), Units(ATTENTION, 1, (0,)), Units(HEADS, 2, (1,))])
    found = [(s.kind, s.block, s.position, s.size, s.cost) for s in sites_of(llama, shape, WIDTH)]
    assert found[:3] == [
        (CHANNELS, 1, 0, 64, CHANNEL),
        (HEADS, 2, 1, 3, GROUP),
        (CHANNELS, 2, 1, 64, CHANNEL),
    ]
    assert len(found) == 7
    assert sites_of(llama, shape, (HEADS,))[0].numbers == (0, 2, 3)


@pytest.mark.parametrize(("name", "kind"), [("llama", HEADS), ("phi3", HEADS), ("gpt2", CHANNELS)])
def test_slices_share_out_every_weight(name, kind):
    model = zoo.build(name)
    anatomy = anatomy_of(model.config)
    site = sites_of(anatomy, Shape.dense(anatomy), (kind,))[1]
    block = model.get_submodule("transformer.h" if name == "gpt2" else "model.layers")[1]
    total = torch.zeros(site.size)
    for part, cut in zip(site.slices(block), site.width.cuts, strict=True):
        assert part.weight is block.get_parameter(cut.weight)
        values = torch.rand_like(part.weight)
        found = part.by_unit(values, site.size)
        for unit in range(site.size):
            owned = values.index_select(cut.axis, cut.indices([unit], site.size))
            torch.testing.assert_close(found[unit], owned.sum(), rtol=1e-5, atol=0)
        total += part.by_unit(torch.ones_like(part.weight), site.size)
    assert total.tolist() == [site.cost] * site.size


def test_slices_of_a_half_and_a_block(llama, dense):
    model = zoo.build("llama")
    block = model.model.layers[2]
    for kind, owner in ((BLOCKS, block), (ATTENTION, block.self_attn), (MLP, block.mlp)):
        site = sites_of(llama, dense, (kind,))[2]
        assert [id(s.weight) for s in site.slices(block)] == [id(p) for p in owner.parameters()]
        assert site.size == 1


@pytest.mark.parametrize(("name", "path"), [("llama", "mlp.down_proj"), ("gpt2", "mlp.c_proj")])
def test_output_weight_whatever_its_class(name, path):
    model = zoo.build(name)
    anatomy = anatomy_of(model.config)
    site = sites_of(anatomy, Shape.dense(anatomy), (CHANNELS,))[0]
    block = model.get_submodule("transformer.h" if name == "gpt2" else "model.layers")[0]
    projection, x = block.get_submodule(path), torch.randn(3, site.size)
    weight = site.output_weight(block)
    assert weight.shape == (32, site.size)
    bias = 0 if projection.bias is None else projection.bias
    torch.testing.assert_close(x @ weight.T + bias, projection(x))
