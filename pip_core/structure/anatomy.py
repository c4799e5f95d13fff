"""The anatomy of a model: which units its blocks have, and which slices of which weights belong to a unit.

The weights of a head or a channel are found by building a block one unit narrower with the block's own
class and comparing shapes: a weight that shrinks belongs to the units, and a size that the config cannot
state does not shrink. So a family needs no list of its weights, and an unknown family is analysed in the
same way. Works from the config alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from ..core.errors import UserError
from ..core.units import ATTENTION, CHANNELS, EXPERTS, HEADS, KINDS, MLP, TITLES, WIDTH
from .experts import Experts, experts_of, field_of, stating, why_none
from .families import (
    FAMILIES,
    GATE_UP,
    PLAIN,
    QUERY_KEY_VALUE,
    Family,
    blocks_of,
    check_config,
    embedding_weight,
    head_counts,
    row_parameters,
    skeleton,
)
from .width import Cut, Width, meta_block, shrunk_weights

# Config fields that may state how many channels an MLP has.
CHANNEL_FIELDS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
NOT_STATED = "its config cannot state fewer {} of the same size"
OF_EXPERTS = "its channels belong to the experts of a mixture, which are stored as one and are not cut"


@dataclass(frozen=True)
class Block:
    """One dense block.

    Attributes:
        parameters: number of parameters of the block.
        attention, mlp: modules of each half, in order; empty where the halves cannot be removed.
        added: the two modules whose outputs attention and MLP add to the residual stream.
        half_parameters: number of parameters of each half.
        widths: unit kind ("heads", "channels", "experts") to its units, for the kinds that can be cut.
    """

    parameters: int
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    added: tuple[str, str]
    half_parameters: tuple[int, int]
    widths: Mapping[str, Width]


@dataclass(frozen=True)
class Anatomy:
    """The parts of a dense model, derived from its config alone.

    Attributes:
        listed: True where the model type is in the table of families, False where it was recognised by
            its structure.
        parameters: number of parameters of the whole model (tied weights once).
        embedding_parameters: number of parameters outside the blocks.
        vocabulary: number of rows of the embeddings.
        row_parameters: parameters of one token, in the head too where that is another matrix.
        blocks: the dense blocks in order.
        channel_field: config field that states the number of channels; empty where channels cannot be cut.
        expert_field: config field that states the number of experts; empty where there are none.
        head_size: features of a head.
        queries: query heads per group.
        group_counts: numbers of head groups that a smaller config may state; some configs allow only
            numbers that divide the width of the model.
        refused: unit kind -> why units of this kind cannot be removed from this model.
    """

    model_type: str
    family: Family
    listed: bool
    parameters: int
    embedding_parameters: int
    vocabulary: int
    row_parameters: int
    blocks: tuple[Block, ...]
    channel_field: str
    expert_field: str
    head_size: int
    queries: int
    group_counts: frozenset[int]
    refused: Mapping[str, str]

    def narrowed(self, config: PreTrainedConfig, sizes: Mapping[str, int]) -> PreTrainedConfig:
        """A copy of `config` for so many units of each kind in every block."""
        found = narrowed(config, self.channel_field, self.head_size, self.queries, sizes)
        return stating(found, self.expert_field, sizes[EXPERTS]) if EXPERTS in sizes else found

    def check(self, kinds: Sequence[str]) -> None:
        """Check that units of all `kinds` can be removed from this model.

        Raises:
            UserError: those of one kind cannot.
        """
        for kind in kinds:
            if kind in self.refused:
                can = [TITLES[k] for k in KINDS if k not in self.refused]
                title = TITLES[kind]
                raise UserError(
                    f"{title[0].upper()}{title[1:]} cannot be removed from this model ({self.model_type}): "
                    f"{self.refused[kind]}. Choose {' or '.join(can)}."
                )


def anatomy_of(config: PreTrainedConfig) -> Anatomy:
    """Analyse a model by its config alone; no weights are read.

    Raises:
        UserError: see `check_config`, `skeleton` and `blocks_of`.
    """
    check_config(config)
    model = skeleton(config)
    config = model.config
    family = FAMILIES.get(config.model_type, PLAIN)
    stack = blocks_of(model)
    refused: dict[str, str] = {}
    channel_field, expert_field = _channel_field(config, stack[0], refused), field_of(config, list(stack))
    if not expert_field:
        refused[EXPERTS] = why_none(config)
    heads, groups = head_counts(config)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    # Blocks of equal shape are analysed once.
    known: dict[tuple, Block] = {}
    blocks = []
    for index, block in enumerate(stack):
        shapes = tuple((n, tuple(p.shape)) for n, p in block.named_parameters())
        if shapes not in known:
            known[shapes] = _analyse(config, family, block, index, channel_field, expert_field, refused)
        blocks.append(known[shapes])
    total = sum(p.numel() for p in model.parameters())
    counts = frozenset() if HEADS in refused else _group_counts(config, groups, head_size, heads // groups)
    if not counts:
        refused.setdefault(HEADS, "its config allows no smaller number of heads")
    return Anatomy(
        model_type=config.model_type,
        family=family,
        listed=config.model_type in FAMILIES,
        parameters=total,
        embedding_parameters=total - sum(b.parameters for b in blocks),
        vocabulary=embedding_weight(model).shape[0],
        row_parameters=row_parameters(model),
        blocks=tuple(blocks),
        channel_field=channel_field,
        expert_field=expert_field,
        head_size=head_size,
        queries=heads // groups,
        group_counts=counts,
        refused=refused,
    )


def narrowed(
    config: PreTrainedConfig, channel_field: str, head_size: int, queries: int, sizes: Mapping[str, int]
) -> PreTrainedConfig:
    """A copy of `config` for `sizes["heads"]` groups of heads and `sizes["channels"]` channels."""
    found = copy.deepcopy(config)
    if HEADS in sizes:
        found.head_dim = head_size
        found.num_attention_heads = sizes[HEADS] * queries
        if getattr(config, "num_key_value_heads", None) is not None:
            found.num_key_value_heads = sizes[HEADS]
    if CHANNELS in sizes:
        setattr(found, channel_field, sizes[CHANNELS])
    return found


def _group_counts(config: PreTrainedConfig, groups: int, head_size: int, queries: int) -> frozenset[int]:
    """The numbers of head groups below `groups` that the config can state, written and read again."""
    found = set()
    for count in range(1, groups):
        made = narrowed(config, "", head_size, queries, {HEADS: count})
        try:
            type(config).from_dict(made.to_dict())
        except Exception:  # whatever the config's own validation raises
            continue
        found.add(count)
    return frozenset(found)


def _channel_field(config: PreTrainedConfig, block: nn.Module, refused: dict[str, str]) -> str:
    """The config field that states the number of channels, found by trying each candidate."""
    for name in CHANNEL_FIELDS:
        if not hasattr(config, name):
            continue
        other = copy.deepcopy(config)
        setattr(other, name, 8)
        if shrunk_weights(block, meta_block(type(block), other, 0)):
            return name
    experts = any(p.dim() == 3 for p in block.parameters())
    refused[CHANNELS] = OF_EXPERTS if experts else NOT_STATED.format(CHANNELS)
    return ""


def _analyse(
    config: PreTrainedConfig,
    family: Family,
    block: nn.Module,
    index: int,
    channel_field: str,
    expert_field: str,
    refused: dict[str, str],
) -> Block:
    """The halves and units of one block; the reasons for missing ones are added to `refused`."""
    attention, mlp = _halves(family, block, refused)
    owned = _parameters_of(block, attention), _parameters_of(block, mlp)
    heads, groups = head_counts(config)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    widths: dict[str, Width] = {}
    for kind, size in ((HEADS, groups), (CHANNELS, _channels(config, block, channel_field))):
        if kind in refused or size < 2:
            refused.setdefault(kind, f"a block has a single unit of {kind}")
            continue
        try:
            other = narrowed(config, channel_field, head_size, heads // groups, {kind: size - 1})
        except AttributeError:  # a config that derives the size of a head from their number
            refused[kind] = NOT_STATED.format(kind)
            continue
        shrunk = shrunk_weights(block, meta_block(type(block), other, index))
        found = _width(kind, size, family, block, shrunk, heads // groups * head_size, head_size)
        if isinstance(found, str):
            refused[kind] = found
        else:
            widths[kind] = found
    if EXPERTS not in refused and (experts := experts_of(config, expert_field, block, index, mlp)):
        if isinstance(experts, Experts):
            widths[EXPERTS] = experts
        else:
            refused[EXPERTS] = experts
    first, second = family.added or (attention[-1] if attention else "", mlp[-1] if mlp else "")
    total = sum(p.numel() for p in block.parameters())
    return Block(total, attention, mlp, (first, second), owned, widths)


def _parameters_of(block: nn.Module, half: Iterable[str]) -> int:
    return sum(p.numel() for path in half for p in block.get_submodule(path).parameters())


def _channels(config: PreTrainedConfig, block: nn.Module, channel_field: str) -> int:
    """Number of channels of a block's MLP, also where the config leaves it to a rule of the model."""
    if not channel_field:
        return 0
    stated = getattr(config, channel_field)
    if stated is not None:
        return stated
    other = copy.deepcopy(config)
    setattr(other, channel_field, 8)
    shrunk = shrunk_weights(block, meta_block(type(block), other, 0))
    # A plain weight has a row per channel, a fused one a multiple of that.
    return min((before for _, before, _ in shrunk.values()), default=0)


def _halves(
    family: Family, block: nn.Module, refused: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules of the attention half and of the MLP half.

    Attention is the module with a slot of the key-value cache, and so with a layer index; the MLP is the
    other modules that hold matrices.
    """
    attention = [
        name
        for name, child in block.named_children()
        if any(
            isinstance(getattr(m, a, None), int) for m in child.modules() for a in ("layer_idx", "layer_id")
        )
    ]
    rest = [
        name
        for name, child in block.named_children()
        if name not in attention and any(p.dim() > 1 for p in child.parameters())
    ]
    mlp = list(family.mlp) or rest
    if len(attention) != 1 or len(rest) != max(1, len(family.mlp)) or not set(mlp) <= set(rest):
        for kind in (ATTENTION, MLP, *WIDTH):
            refused.setdefault(kind, "its blocks are not made of one attention and one MLP")
        return (), ()
    return tuple(attention), tuple(mlp)


def _width(
    kind: str,
    size: int,
    family: Family,
    block: nn.Module,
    shrunk: Mapping[str, tuple[int, int, int]],
    query_width: int,
    head_size: int,
) -> Width | str:
    """The units of a kind, from the weights that shrank with one unit less, or why there are none."""
    if not shrunk:
        if kind == CHANNELS and any(p.dim() == 3 for p in block.parameters()):
            return OF_EXPERTS
        return NOT_STATED.format(kind)
    weights, cuts, outputs, cost = dict(block.named_parameters()), [], [], 0
    for name, (axis, before, after) in shrunk.items():
        weight, each = weights[name], before - after
        if each < 0:
            return NOT_STATED.format(kind)
        if weight.dim() == 3:
            return OF_EXPERTS
        if weight.dim() == 1 and name.endswith("norm.weight"):
            return "a norm spans all heads, so removing some would change the others"
        widths = _runs(family.fused.get(name), kind, each, query_width, head_size)
        if widths is None:
            return f"the order inside its fused weight '{name}' is not known"
        if each * size != before:
            return NOT_STATED.format(kind)
        cuts.append(Cut(name, axis, widths))
        cost += weight.numel() // before * each
        owner = block.get_submodule(name.rpartition(".")[0])
        input_axis = 0 if isinstance(owner, Conv1D) else 1
        if isinstance(owner, nn.Linear | Conv1D) and weight.dim() == 2 and axis == input_axis:
            outputs.append((name.rpartition(".")[0], each))
    if len(outputs) != 1:
        return f"its {kind} do not end in one projection"
    return Width(size, tuple(cuts), outputs[0][0], outputs[0][1], cost)


def _runs(
    order: str | None, kind: str, each: int, query_width: int, head_size: int
) -> tuple[int, ...] | None:
    """Widths of the runs in which a unit has its `each` indices; None where the order is unknown."""
    if order == QUERY_KEY_VALUE:
        return (query_width, head_size, head_size)
    if order == GATE_UP:
        return (1, 1)
    if kind == CHANNELS:
        return (1,) if each == 1 else None
    queries = query_width // head_size
    return (each,) if each in (query_width, head_size, queries, 1) else None
