"""Cutting blocks out of a model, and keeping its config true."""

from __future__ import annotations

from collections.abc import Collection

from transformers import PreTrainedConfig, PreTrainedModel

from .families import blocks_of, replace_blocks


def remove_blocks(model: PreTrainedModel, positions: Collection[int]) -> None:
    """Remove the blocks at `positions` (from 0, as the model stands now), in place.

    Layer indices are renumbered, so that each block finds its own slot of the key-value cache, and
    every per-layer list of the config is *selected*, so that a block keeps the entry it was
    trained with (sliding or full attention, rotary or not).

    Raises:
        ValueError: a position that does not exist, or no block would remain.
    """
    stack = list(blocks_of(model))
    gone = set(positions)
    if not gone <= set(range(len(stack))):
        raise ValueError(f"positions {sorted(gone)} outside 0..{len(stack) - 1}")
    kept = [i for i in range(len(stack)) if i not in gone]
    if not kept:
        raise ValueError("no block would remain")
    for index, position in enumerate(kept):
        for module in stack[position].modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = index
    replace_blocks(model, [stack[i] for i in kept])
    select_layers(model.config, kept)


def select_layers(config: PreTrainedConfig, kept: list[int]) -> None:
    """Make `config` describe only the layers in `kept` (old indices, in order), in place.

    A per-layer field is found mechanically: any list as long as the number of layers. Token ids
    (several end-of-text tokens) and class names are lists of another kind.
    """
    count = config.num_hidden_layers
    for name, value in list(vars(config).items()):
        if name == "architectures" or name.endswith("_token_id"):
            continue
        if isinstance(value, list | tuple) and len(value) == count:
            setattr(config, name, type(value)(value[i] for i in kept))
    config.num_hidden_layers = len(kept)
