"""Bringing a model into a shape, and keeping its config true.

Blocks are dropped from the stack; halves are replaced by modules that add nothing; heads and
channels are cut out of the weights, and the block is built again by its own class for the smaller
config, so that every size it remembers is the one its weights have.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..core.errors import UserError
from ..core.units import ATTENTION, MLP, WIDTH
from .anatomy import Anatomy, narrowed
from .families import Family, blocks_of, replace_blocks, skeleton
from .shape import Layer, Shape

# Lists in a config that are as long as there are layers by chance.
NOT_PER_LAYER = ("architectures",)


def reshape(model: PreTrainedModel, anatomy: Anatomy, before: Shape, after: Shape) -> None:
    """Bring `model`, which has the shape `before`, into the shape `after`, in place.

    Layer indices are renumbered, so that each block finds its own slot of the key-value cache, and
    every per-layer field of the config is *selected*, so that a block keeps the entry it was
    trained with (sliding or full attention, rotary or not). Of an even shape the config states the
    sizes too.

    Raises:
        ValueError: `after` holds something that `before` does not.
    """
    stack = list(blocks_of(model))
    positions = {layer.block: p for p, layer in enumerate(before.layers)}
    if not set(after.blocks) <= positions.keys():
        raise ValueError(f"blocks {sorted(set(after.blocks) - positions.keys())} are not there")
    kept = [positions[layer.block] for layer in after.layers]
    if len(kept) < len(stack):
        for index, position in enumerate(kept):
            for module in stack[position].modules():
                for name in ("layer_idx", "layer_id"):
                    if isinstance(getattr(module, name, None), int):
                        setattr(module, name, index)
        stack = [stack[p] for p in kept]
        replace_blocks(model, stack)
        select_layers(model.config, kept, anatomy.family)
    for index, (position, layer) in enumerate(zip(kept, after.layers, strict=True)):
        old = before.layers[position]
        if layer.kept != old.kept:
            stack[index] = _narrow(stack[index], model.config, anatomy, old, layer, index)
        for half in (ATTENTION, MLP):
            if not getattr(layer, half) and (getattr(old, half) or layer.kept != old.kept):
                _take_out(stack[index], anatomy, layer.block, half, index)
    replace_blocks(model, stack)
    if after.uneven() is None and (sizes := after.sizes(anatomy)):
        state_sizes(model.config, anatomy, sizes)


def state_sizes(config: PreTrainedConfig, anatomy: Anatomy, sizes: dict[str, int]) -> None:
    """Make `config` state heads and channels of all its blocks, in place."""
    said = narrowed(config, anatomy.channel_field, anatomy.head_size, anatomy.queries, sizes)
    for name, value in vars(said).items():
        if getattr(config, name, None) != value:
            setattr(config, name, value)


def select_layers(config: PreTrainedConfig, kept: list[int], family: Family) -> None:
    """Make `config` describe only the layers in `kept` (old indices, in order), in place.

    A per-layer field is found mechanically: any list as long as the number of layers. Fields that
    list layers by number, or state a rule for all of them, are named by the family.
    """
    count = config.num_hidden_layers
    if family.sparse_step:
        step, dense = getattr(config, family.sparse_step), set(getattr(config, family.layer_numbers[0]))
        dense |= {i for i in range(count) if (i + 1) % step}
        setattr(config, family.layer_numbers[0], sorted(dense))
        setattr(config, family.sparse_step, 1)
    for name, value in list(vars(config).items()):
        if name in NOT_PER_LAYER or name.endswith("_token_id"):
            continue
        if name in family.layer_numbers:
            setattr(config, name, [n for n, i in enumerate(kept) if i in value])
        elif isinstance(value, list | tuple) and len(value) == count and name not in family.repeats[:1]:
            setattr(config, name, type(value)(value[i] for i in kept))
    if family.repeats:
        rule, spelt = family.repeats
        setattr(config, rule, [[[kind], 1] for kind in getattr(config, spelt)])
    config.num_hidden_layers = len(kept)


def verify_config_matches(model: PreTrainedModel) -> None:
    """Make sure that the config describes the very blocks the model now has.

    The model is built once more from its config alone (without weights); every weight's shape and
    every plain setting of every module must come out the same.

    Raises:
        UserError: they do not: the config states a rule that does not survive removal.
    """
    try:
        # As it would be written and read again: some configs check themselves then.
        config = type(model.config).from_dict(model.config.to_dict())
    except Exception as error:  # whatever the config's own validation raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The config of this model ({model.config.model_type}) cannot describe what is left: {reason} "
            "Choose other units; nothing was written."
        ) from None
    said = skeleton(config)
    for index, (there, told) in enumerate(zip(blocks_of(model), blocks_of(said), strict=True)):
        ours, theirs = dict(there.named_modules()), dict(told.named_modules())
        for path in ours | theirs:
            if wrong := _differs(ours.get(path), theirs.get(path)):
                where = f"block {index}" + (f", {path}" if path else "")
                raise UserError(
                    f"The config of this model ({model.config.model_type}) cannot describe what is left "
                    f"({where}: {wrong}), so an export would load wrongly. Choose other blocks or other "
                    "units; nothing was written."
                )


def _differs(there: nn.Module | None, told: nn.Module | None) -> str:
    """The first weight or setting in which two modules differ; empty where they agree."""
    if type(there) is not type(told):
        return "another module"
    shapes, expected = ({n: p.shape for n, p in m.named_parameters(recurse=False)} for m in (there, told))
    for name in shapes | expected:
        if shapes.get(name) != expected.get(name):
            return f"shape of {name}"
    for name, value in vars(there).items():
        plain = isinstance(value, bool | int | float | str) or value is None
        if plain and not name.startswith("_") and name != "training" and getattr(told, name, value) != value:
            return name
    return ""


def _narrow(
    block: nn.Module, config: PreTrainedConfig, anatomy: Anatomy, old: Layer, new: Layer, index: int
) -> nn.Module:
    """`block`, of layer `old`, with the units of `new` only."""
    widths = anatomy.blocks[new.block].widths
    weights = dict(block.named_parameters())
    for kind in WIDTH:
        if kind not in widths or new.kept[kind] == old.kept[kind]:
            continue
        place = {unit: n for n, unit in enumerate(old.kept[kind])}
        units = [place[unit] for unit in new.kept[kind]]
        for cut in widths[kind].cuts:
            if cut.weight not in weights:  # its half is gone
                continue
            weight = weights[cut.weight]
            indices = cut.indices(units, len(old.kept[kind])).to(weight.device)
            weights[cut.weight] = nn.Parameter(
                weight.detach().index_select(cut.axis, indices), requires_grad=weight.requires_grad
            )
    sizes = {kind: len(units) for kind, units in new.kept.items()}
    said = narrowed(config, anatomy.channel_field, anatomy.head_size, anatomy.queries, sizes)
    with torch.device("meta"):
        built = type(block)(said, index)
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        setattr(built.get_submodule(owner), leaf, weight)
    for name, buffer in block.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(built.get_submodule(owner), leaf, buffer)
    return built.train(block.training)


def _take_out(block: nn.Module, anatomy: Anatomy, number: int, half: str, index: int) -> None:
    """Replace one half of a block by modules that add nothing."""
    made = anatomy.blocks[number]
    *before, last = made.attention if half == ATTENTION else made.mlp
    for path in before:
        block.set_submodule(path, nn.Identity())
    adds = anatomy.family.adds_residual
    block.set_submodule(last, NoAttention(adds, index) if half == ATTENTION else NoMLP(adds))


class NoMLP(nn.Module):
    """An MLP that adds nothing to the residual stream.

    Args:
        adds_residual: whether it is handed the residual stream and must hand it on.
    """

    def __init__(self, adds_residual: bool) -> None:
        super().__init__()
        self.adds_residual = adds_residual

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return residual if self.adds_residual else torch.zeros_like(hidden_states)


class NoAttention(nn.Module):
    """An attention that adds nothing to the residual stream.

    It still takes its slot of the key-value cache, with one number a token, since a model asks the
    first slot how many tokens it has seen.
    """

    def __init__(self, adds_residual: bool, layer_idx: int) -> None:
        super().__init__()
        self.adds_residual, self.layer_idx = adds_residual, layer_idx

    def forward(
        self, hidden_states: torch.Tensor, residual: torch.Tensor | None = None, **given
    ) -> tuple[torch.Tensor, None]:
        # As the releases of transformers call it, the newest first.
        names = (name for name in ("cache", "past_key_values", "layer_past") if given.get(name) is not None)
        if (cache := given.get(next(names, ""))) is not None:
            token = hidden_states[:, None, :, :1]
            cache.update(token, token, self.layer_idx)
        return (residual if self.adds_residual else torch.zeros_like(hidden_states)), None
