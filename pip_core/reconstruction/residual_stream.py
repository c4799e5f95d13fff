"""A model's residual stream, computed block by block, and what the halves of a block add to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..core.errors import UserError
from ..core.float64 import double
from ..core.units import ATTENTION, MLP
from ..structure.anatomy import Anatomy, Block
from ..structure.families import blocks_of
from ..structure.hooks import (
    Args,
    ForwardStopped,
    Hooks,
    Kwargs,
    blocks_answering,
    capture_outputs,
    first_of,
    hidden_states,
)
from ..structure.streamed import overwrite

# Relative error of the median token up to which two streams count as the same; rounding is added to it.
TOLERANCE = 0.02
HALVES = (ATTENTION, MLP)

Stream = list[torch.Tensor]
Call = Callable[[torch.Tensor], torch.Tensor]


class ResidualStream:
    """One model's residual stream, computed block by block.

    Args:
        parts: batches of token ids, int64, each `(B, T)` with the same T.

    Attributes:
        stream: one `(B, T, d)` for each batch; at first the input of the first block.
    """

    def __init__(self, model: PreTrainedModel, parts: Sequence[torch.Tensor]) -> None:
        self.blocks = blocks_of(model)
        # Masks and positions belong to a batch of one size.
        one_of_each = {len(part): part for part in parts}
        self._calls = {size: _calls(model, part) for size, part in one_of_each.items()}
        self.stream: Stream = [_entering(model, part) for part in parts]

    def call(self, number: int, h: torch.Tensor) -> torch.Tensor:
        """Block `number` on a stream `(B, T, d)`."""
        return self._calls[len(h)][number](h)

    def until(self, number: int, module: nn.Module, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `module`, inside block `number`, is given and returns where the block is given `h`, of shape
        `(B, T, d)`: `(B, T, inputs)` and `(B, T, outputs)`. Nothing after it is computed."""
        found: list[torch.Tensor] = []

        def stop(args: Args, kwargs: Kwargs, output: torch.Tensor) -> None:
            found.extend((args[0], output))
            raise ForwardStopped

        with Hooks() as hooks, contextlib.suppress(ForwardStopped):
            hooks.after(module, stop)
            self.call(number, h)
        if not found:
            raise RuntimeError("a block did not call the projection that it ends in")
        given, returned = (value.reshape(*h.shape[:2], value.shape[-1]) for value in found)
        return given, returned

    def advance(self, start: int, end: int) -> None:
        """Replace `stream`, which enters block `start`, by what enters block `end`."""
        for number in range(start, end):
            for place, h in enumerate(self.stream):
                self.stream[place] = self.call(number, h)


@dataclass(frozen=True)
class BlockTrace:
    """What a block with both its halves makes of a stream.

    Attributes:
        end: the stream after it.
        middle: the stream after its attention; None where the block's output is not the sum of its input
            and what its halves add.
        paths: for each half the projection that it ends in, by name in the block, or None; empty where
            this was not asked for.
        returned: what the modules return whose outputs the halves add, by name in the block; empty likewise.
    """

    end: torch.Tensor
    middle: torch.Tensor | None
    paths: dict[str, str | None]
    returned: dict[str, Any]


def trace_block(
    model: ResidualStream,
    number: int,
    made: Block,
    anatomy: Anatomy,
    scale: float,
    h: torch.Tensor,
    find_projections: bool,
) -> BlockTrace:
    """Run block `number` of `model`, which has both its halves, on a stream `h` of shape `(B, T, d)`.

    Args:
        made: the block's modules.
        scale: see `families.residual_scale`.
        find_projections: whether to find the projections that the halves end in.
    """
    block, adds = model.blocks[number], anatomy.family.adds_residual
    captured = {path: block.get_submodule(path) for path in made.added if path}
    if find_projections:
        for half in HALVES:
            captured |= candidates(block, made, half, h.shape[-1])
    returned: dict[str, Any] = {}
    with capture_outputs(captured) as found, Hooks() as hooks:
        for path in made.added if find_projections else ():
            hooks.after(block.get_submodule(path), _noting(returned, path))
        end = model.call(number, h)
    h = h.to(end.device)  # blocks may be on several devices
    attention, mlp = (found[path].reshape(h.shape) for path in made.added)
    if adds:
        attention, mlp = attention - h, mlp - attention
    expected = h.float() + scale * (attention.float() + mlp.float())
    if not _alike(expected, end, end.float() - h.float()):
        return BlockTrace(end, None, {}, returned)
    paths: dict[str, str | None] = {}
    for half, added in ((ATTENTION, attention), (MLP, mlp)) if find_projections else ():
        same = [
            name
            for name in candidates(block, made, half, h.shape[-1])
            if name in found and _ends_in(found[name], added, h if adds else added)
        ]
        paths[half] = same[-1] if same else None
    return BlockTrace(end, h + scale * attention, paths, returned)


def _noting(into: dict[str, Any], path: str) -> Callable[[Args, Kwargs, Any], None]:
    """A hook that notes what a module returns."""
    return lambda args, kwargs, output: into.update({path: output})


def candidates(block: nn.Module, made: Block, half: str, width: int) -> dict[str, nn.Module]:
    """Projections onto the residual stream in one half of a block, by name in the block."""
    found: dict[str, nn.Module] = {}
    for path in made.attention if half == ATTENTION else made.mlp:
        for name, module in block.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, nn.Linear | Conv1D) and weight_of(module).shape[0] == width:
                found[name] = module
    return found


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a projection, `(outputs, inputs)` whatever its class."""
    weight = module.get_parameter("weight")
    return weight.T if isinstance(module, Conv1D) else weight


def add_to_weight(module: nn.Module, change: torch.Tensor) -> None:
    """Add `change`, `(outputs, inputs)` in float64, to a projection's weight.

    Raises:
        UserError: the sum is not finite in the weight's number format.
    """
    weight = module.get_parameter("weight")
    before = double(weight_of(module))
    moved = (before + double(change).to(before.device)).to(weight.dtype)
    if not bool(moved.isfinite().all()):
        raise UserError(
            "A weight solved anew is not a finite number in the chosen number format. Choose float32, or "
            "switch the repair without training off."
        )
    overwrite(weight, moved.T if isinstance(module, Conv1D) else moved)


def _ends_in(output: torch.Tensor, added: torch.Tensor, rounded: torch.Tensor) -> bool:
    """Whether a projection's output is what the half adds."""
    if output.numel() != added.numel():
        return False
    return _alike(output.reshape(added.shape), added, added, rounded)


def _alike(
    one: torch.Tensor, other: torch.Tensor, change: torch.Tensor, rounded: torch.Tensor | None = None
) -> bool:
    """Whether two streams agree, for the median token, up to a share of `change` and to the rounding of
    `rounded` (`other` where it is None)."""
    rounded = other if rounded is None else rounded
    gap = (one.float() - other.float()).norm(dim=-1)
    allowed = TOLERANCE * change.float().norm(dim=-1)
    allowed += torch.finfo(other.dtype).eps * rounded.float().norm(dim=-1)
    return bool((gap - allowed).median() <= 0)


def _entering(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """The residual stream `(B, T, d)` that enters the first block."""
    found: list[torch.Tensor] = []

    def stop(args: Args, kwargs: Kwargs) -> None:
        found.append(hidden_states(args, kwargs))
        raise ForwardStopped

    with Hooks() as hooks, contextlib.suppress(ForwardStopped):
        hooks.before(blocks_of(model)[0], stop)
        model(input_ids=rows, use_cache=False)
    if not found:
        raise RuntimeError("the first block was not called")
    return found[0]


def _calls(model: PreTrainedModel, rows: torch.Tensor) -> list[Call]:
    """Per block a function from the stream before it to the stream after it, for batches like `rows`. Only
    the first block computes, for the others to be given something of the kind that blocks return."""
    blocks = list(blocks_of(model))
    made: list[Call] = []
    first: list[Any] = []

    def keep(args: Args, kwargs: Kwargs, output: Any) -> None:
        first.append(output)
        raise ForwardStopped

    def remember(block: nn.Module, args: Args, kwargs: Kwargs) -> None:
        others = {name: value for name, value in kwargs.items() if name != "hidden_states"}

        def call(h: torch.Tensor) -> torch.Tensor:
            return first_of(block(h, *args[1:], **others) if args else block(hidden_states=h, **others))

        made.append(call)
        if len(made) == len(blocks):
            raise ForwardStopped

    with Hooks() as hooks, contextlib.suppress(ForwardStopped):
        hooks.after(blocks[0], keep)
        model(input_ids=rows, use_cache=False)
    stack = blocks_of(model)
    answers = dict.fromkeys(range(len(blocks)), first[0] if first else None)
    with blocks_answering(stack, answers), Hooks() as hooks, contextlib.suppress(ForwardStopped):
        for block, stand_in in zip(blocks, stack, strict=True):
            hooks.before(stand_in, partial(remember, block))
        model(input_ids=rows, use_cache=False)
    if len(made) < len(blocks):
        raise RuntimeError("not every block was called")
    return made
