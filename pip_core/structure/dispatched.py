"""A model whose blocks are on several devices: what a module is given is brought to where its weights are.

accelerate's own hooks are not used for that: they replace a module's `forward`, are lost with the modules
that surgery builds anew, and let no gradient flow back to a weight that they keep elsewhere. Weights that are
on no device are `streamed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from transformers import PreTrainedModel

from .families import blocks_of
from .hooks import Args, Kwargs, always_before

_aligned: WeakSet[nn.Module] = WeakSet()


def align(model: PreTrainedModel) -> None:
    """Have every block, and every module outside of them that has weights, given its inputs where these are.
    Nothing is done twice."""
    blocks = list(blocks_of(model))
    inside = {id(module) for block in blocks for module in block.modules()}
    outside = [m for m in model.modules() if id(m) not in inside and m._parameters]
    _align([*blocks, *outside])


def keep_aligned(block: nn.Module, built: nn.Module) -> None:
    """Treat a block that surgery built anew as the one in whose place it stands."""
    if block in _aligned:
        _align([built])


def place_of(block: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a block computes."""
    weight = next(block.parameters(), None)
    return otherwise if weight is None else weight.device


def _align(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if module not in _aligned:
            _aligned.add(module)
            always_before(module, _bring)


def _bring(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    place = place_of(module, torch.device("cpu"))
    return tuple(_there(value, place) for value in args), {n: _there(v, place) for n, v in kwargs.items()}


def _there(value: Any, place: torch.device) -> Any:
    """A tensor, or a tuple or list of some, on a device; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(place)
    if isinstance(value, tuple | list) and any(isinstance(v, torch.Tensor) for v in value):
        return type(value)(_there(v, place) for v in value)
    return value
