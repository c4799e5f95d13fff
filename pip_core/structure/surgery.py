"""Removing units from a model, and keeping its config correct.

Blocks are dropped from the stack; halves are replaced by modules that add nothing; heads, channels and
experts are cut out of the weights, and the block is built anew by its own class for the smaller config, so
that every size it stores is that of its weights.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..core.errors import UserError, shortened
from ..core.units import ATTENTION, MLP, WIDTH
from .anatomy import Anatomy
from .dispatched import keep_aligned
from .families import Family, blocks_of, replace_blocks, skeleton
from .shape import Layer, Shape
from .streamed import narrowed_weight

# Lists in a config whose length equals the number of layers only by chance.
NOT_PER_LAYER = ("architectures",)


def reshape(model: PreTrainedModel, anatomy: Anatomy, before: Shape, after: Shape) -> None:
    """Change `model` from the shape `before` to the shape `after`, in place.

    Layer indices are renumbered, so that each block has its own slot of the key-value cache. Every
    per-layer field of the config is *selected*, so that a block keeps the entry that it was trained with
    (sliding or full attention, rotary or not). For an even shape the config also states the sizes.

    Raises:
        ValueError: `after` contains something that `before` does not.
    """
    stack = list(blocks_of(model))
    positions = {layer.block: p for p, layer in enumerate(before.layers)}
    if not set(after.blocks) <= positions.keys():
        raise ValueError(f"blocks {sorted(set(after.blocks) - positions.keys())} do not remain")
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
                _remove_half(stack[index], anatomy, layer.block, half, index)
    replace_blocks(model, stack)
    if after.uneven() is None and (sizes := after.sizes(anatomy)):
        state_sizes(model.config, anatomy, sizes)


def state_sizes(config: PreTrainedConfig, anatomy: Anatomy, sizes: dict[str, int]) -> None:
    """Make `config` state the sizes of all its blocks, in place."""
    smaller = anatomy.narrowed(config, sizes)
    for name, value in vars(smaller).items():
        if getattr(config, name, None) != value:
            setattr(config, name, value)


def select_layers(config: PreTrainedConfig, kept: list[int], family: Family) -> None:
    """Make `config` describe only the layers in `kept` (old indices, in order), in place.

    Any list as long as the number of layers is taken for a per-layer field. Fields that list layers by
    number, or state a rule for all of them, are named by the family.
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
        rule, listed = family.repeats
        setattr(config, rule, [[[kind], 1] for kind in getattr(config, listed)])
    config.num_hidden_layers = len(kept)


def verify_config_matches(model: PreTrainedModel) -> None:
    """Check that the config describes the blocks that the model has now.

    A second model is built from the config alone, without weights; the shape of every weight and every
    plain setting of every module must be equal.

    Raises:
        UserError: they are not, because the config states a rule that the removal broke.
    """
    try:
        # Written and read again, because some configs check themselves then.
        config = type(model.config).from_dict(model.config.to_dict())
    except Exception as error:  # whatever the config's own validation raises
        reason = shortened(str(error), 200)
        raise UserError(
            f"The config of this model ({model.config.model_type}) cannot describe what is left: {reason} "
            "Choose other units; nothing was written."
        ) from None
    rebuilt = skeleton(config)
    for index, (block, expected) in enumerate(zip(blocks_of(model), blocks_of(rebuilt), strict=True)):
        ours, theirs = dict(block.named_modules()), dict(expected.named_modules())
        for path in ours | theirs:
            if wrong := _difference(ours.get(path), theirs.get(path)):
                where = f"block {index}" + (f", {path}" if path else "")
                raise UserError(
                    f"The config of this model ({model.config.model_type}) cannot describe what is left "
                    f"({where}: {wrong}), so an export would load wrongly. Choose other blocks or other "
                    "units; nothing was written."
                )


def _difference(module: nn.Module | None, expected: nn.Module | None) -> str:
    """The first weight or setting in which two modules differ; empty where they agree."""
    if module is None or expected is None or type(module) is not type(expected):
        return "another module"
    ours, theirs = ({n: p.shape for n, p in m.named_parameters(recurse=False)} for m in (module, expected))
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            return f"shape of {name}"
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        plain = isinstance(value, bool | int | float | str) or value is None
        if plain and getattr(expected, name, value) != value:
            return name
    return ""


def _narrow(
    block: nn.Module, config: PreTrainedConfig, anatomy: Anatomy, old: Layer, new: Layer, index: int
) -> nn.Module:
    """A block like `block`, which has the units of `old`, with the units of `new` alone."""
    widths = anatomy.blocks[new.block].widths
    weights, buffers = dict(block.named_parameters()), dict(block.named_buffers())
    for kind in WIDTH:
        if kind not in widths or new.kept[kind] == old.kept[kind]:
            continue
        place = {unit: n for n, unit in enumerate(old.kept[kind])}
        units = [place[unit] for unit in new.kept[kind]]
        for cut in widths[kind].cuts:
            if cut.weight not in weights:  # its half was removed
                continue
            indices = cut.indices(units, len(old.kept[kind]))
            weights[cut.weight] = narrowed_weight(weights[cut.weight], cut.axis, indices)
        for name in widths[kind].buffers:
            if name in buffers:
                buffers[name] = buffers[name][torch.tensor(units, device=buffers[name].device)]
    sizes = {kind: len(units) for kind, units in new.kept.items()}
    smaller = anatomy.narrowed(config, sizes)
    with torch.device("meta"):
        built = type(block)(smaller, index)
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        setattr(built.get_submodule(owner), leaf, weight)
    for name, buffer in buffers.items():
        owner, _, leaf = name.rpartition(".")
        setattr(built.get_submodule(owner), leaf, buffer)
    keep_aligned(block, built)
    return built.train(block.training)


def _remove_half(block: nn.Module, anatomy: Anatomy, number: int, half: str, index: int) -> None:
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
        adds_residual: whether it receives the residual stream and must return it.
    """

    def __init__(self, adds_residual: bool) -> None:
        super().__init__()
        self.adds_residual = adds_residual

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return _added_nothing(self.adds_residual, hidden_states, residual)


class NoAttention(nn.Module):
    """An attention that adds nothing to the residual stream.

    It still fills its slot of the key-value cache, with one number per token, because a model reads from
    the first slot how many tokens it has seen.
    """

    def __init__(self, adds_residual: bool, layer_idx: int) -> None:
        super().__init__()
        self.adds_residual, self.layer_idx = adds_residual, layer_idx

    def forward(
        self, hidden_states: torch.Tensor, residual: torch.Tensor | None = None, **given
    ) -> tuple[torch.Tensor, None]:
        # The argument's names in releases of transformers, the newest first.
        names = (name for name in ("cache", "past_key_values", "layer_past") if given.get(name) is not None)
        if (cache := given.get(next(names, ""))) is not None:
            token = hidden_states[:, None, :, :1]
            cache.update(token, token, self.layer_idx)
        return _added_nothing(self.adds_residual, hidden_states, residual), None


def _added_nothing(adds: bool, hidden_states: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
    """What a half returns that adds nothing: the residual stream where it `adds` to it itself, else zeros."""
    if not adds:
        return torch.zeros_like(hidden_states)
    assert residual is not None
    return residual
