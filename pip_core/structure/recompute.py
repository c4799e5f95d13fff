"""Activation checkpointing by hooks: a block's activations are computed again in the backward pass.

As `torch.utils.checkpoint` (non-reentrant) does it, and with the same public means, saved-tensor
hooks; but that function has to be called in a module's place, and a module's `forward` is not
replaced here. The models' own `gradient_checkpointing_enable` is no choice either: it works in
training mode alone, which switches dropout on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from .hooks import Args, Hooks, Kwargs

# Blocks inside a `with` block of `recomputed`.
_ACTIVE: WeakSet[nn.Module] = WeakSet()


@contextlib.contextmanager
def recomputed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Keep only each block's input for a backward pass inside the `with` block.

    A third more computing for a tenth of the memory: the activations of all blocks at once would
    outweigh a small model's own weights. The values are the same. A block must do the same whenever
    it is called with the same input, as in evaluation mode.
    """
    added = [block for block in blocks if block not in _ACTIVE]
    _ACTIVE.update(added)
    try:
        with Hooks() as hooks:
            for block in added:
                _Recomputed(block).register(hooks)
            yield
    finally:
        _ACTIVE.difference_update(added)


class _AllFound(Exception):
    """Ends a recomputation once the last saved tensor is there."""


class _Recomputed:
    """One block: numbers in place of what it saves, and a way to the tensors."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.recomputing = False
        self.open: list[saved_tensors_hooks] = []

    def register(self, hooks: Hooks) -> None:
        hooks.before(self.block, self._before)
        hooks.after(self.block, self._after, always=True)

    def _before(self, args: Args, kwargs: Kwargs) -> None:
        if not self.recomputing and torch.is_grad_enabled():
            call = _Call(self, args, kwargs)
            self.open.append(saved_tensors_hooks(call.save, call.load))
            self.open[-1].__enter__()

    def _after(self, args: Args, kwargs: Kwargs, output: Any) -> None:
        if not self.recomputing and self.open:
            self.open.pop().__exit__(None, None, None)


class _Call:
    """One call of a block: what it was given, and what it saves for the backward pass."""

    def __init__(self, owner: _Recomputed, args: Args, kwargs: Kwargs) -> None:
        self.owner, self.args, self.kwargs = owner, args, kwargs
        self.saved = 0
        self.found: dict[int, torch.Tensor] = {}

    def save(self, tensor: torch.Tensor) -> int:
        self.saved += 1
        return self.saved - 1

    def load(self, number: int) -> torch.Tensor:
        if number not in self.found:
            self._compute()
        return self.found.pop(number)

    def _compute(self) -> None:
        self.found = {}

        def keep(tensor: torch.Tensor) -> None:
            self.found[len(self.found)] = tensor.detach()
            # What comes after the last saved tensor is nobody's need.
            if len(self.found) == self.saved:
                raise _AllFound

        def unwanted(_: None) -> torch.Tensor:
            raise RuntimeError("a recomputation has no backward pass of its own")

        args = tuple(map(_detached, self.args))
        kwargs = {name: _detached(value) for name, value in self.kwargs.items()}
        self.owner.recomputing = True
        try:
            with torch.enable_grad(), saved_tensors_hooks(keep, unwanted), contextlib.suppress(_AllFound):
                self.owner.block(*args, **kwargs)
        finally:
            self.owner.recomputing = False


def _detached(value: Any) -> Any:
    """The same values without their history, asking for gradients as before."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value
