"""A model's residual stream, carried from block to block, and what a block does to it on the inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..core.units import ATTENTION, MLP
from ..structure.anatomy import Anatomy, Block
from ..structure.families import blocks_of

# Relative error, of the middle token, up to which a sum is called one; rounding comes on top.
TOLERANCE = 0.02
HALVES = (ATTENTION, MLP)

Stream = list[torch.Tensor]
Call = Callable[[torch.Tensor], torch.Tensor]


class _Reached(Exception):
    """What was wanted of a forward pass is there; the rest of it is not needed."""


class ResidualStream:
    """One model's residual stream, carried from block to block.

    Attributes:
        stream: one `(B, T, d)` for each batch; at first what enters the first block.
    """

    def __init__(self, model: PreTrainedModel, parts: Sequence[torch.Tensor]) -> None:
        self.blocks = blocks_of(model)
        # Masks and positions are those of a batch, so batches of another size have others.
        one_of_each = {len(part): part for part in parts}
        self._calls = {size: _calls(model, part) for size, part in one_of_each.items()}
        self.stream: Stream = [_entering(model, part) for part in parts]

    def call(self, number: int, h: torch.Tensor) -> torch.Tensor:
        """Block `number` on a stream `(B, T, d)`."""
        return self._calls[len(h)][number](h)

    def advance(self, start: int, end: int) -> None:
        for number in range(start, end):
            self.stream = [self.call(number, h) for h in self.stream]


@dataclass(frozen=True)
class BlockTrace:
    """What a whole block did to a stream.

    Attributes:
        end: the stream after it.
        middle: the stream after its attention; None where the block's output is not its input and what
            its halves add.
        paths: for each half the projection that it ends in, by name in the block, if there is one;
            empty where it was not asked for.
    """

    end: torch.Tensor
    middle: torch.Tensor | None
    paths: dict[str, str | None]


def trace_block(
    run: ResidualStream, number: int, made: Block, anatomy: Anatomy, scale: float, h: torch.Tensor, ends: bool
) -> BlockTrace:
    """Carry a stream `h` over block `number` of `run`, which has both its halves.

    Args:
        made: what the block is made of; `scale`: see `families.residual_scale`.
        ends: whether to tell which projections the halves end in.
    """
    block, adds = run.blocks[number], anatomy.family.adds_residual
    looked_at = {path: block.get_submodule(path) for path in made.added if path}
    if ends:
        for half in HALVES:
            looked_at |= candidates(block, made, half, h.shape[-1])
    with capture_outputs(looked_at) as found:
        end = run.call(number, h)
    attention, mlp = (found[path].reshape(h.shape) for path in made.added)
    if adds:
        attention, mlp = attention - h, mlp - attention
    expected = h.float() + scale * (attention.float() + mlp.float())
    if not _alike(expected, end, end.float() - h.float()):
        return BlockTrace(end, None, {})
    paths: dict[str, str | None] = {}
    for half, added in ((ATTENTION, attention), (MLP, mlp)) if ends else ():
        same = [
            name
            for name in candidates(block, made, half, h.shape[-1])
            if name in found and _ends_in(found[name], added, h if adds else added)
        ]
        paths[half] = same[-1] if same else None
    return BlockTrace(end, h + scale * attention, paths)


def candidates(block: nn.Module, made: Block, half: str, width: int) -> dict[str, nn.Module]:
    """Projections onto the residual stream in one half of a block, by name in the block."""
    found = {}
    for path in made.attention if half == ATTENTION else made.mlp:
        for name, module in block.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, nn.Linear | Conv1D) and weight_of(module).shape[0] == width:
                found[name] = module
    return found


def weight_of(module: nn.Module) -> torch.Tensor:
    """Of a projection, `(outputs, inputs)`."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def add_to_weight(module: nn.Module, change: torch.Tensor) -> None:
    """Add `change`, `(outputs, inputs)` in float64, to a projection's weight."""
    moved = (weight_of(module).double() + change).to(module.weight.dtype)
    module.weight.data.copy_(moved.T if isinstance(module, Conv1D) else moved)


@contextmanager
def capture_outputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """What `modules` give while this is open, by the same names."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple, output) -> None:
        # A copy: some blocks go on to add to it in place.
        found[name] = (output[0] if isinstance(output, tuple) else output).clone()

    handles = [m.register_forward_hook(partial(keep, name)) for name, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def inputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """What reaches `modules` while this is open, by the same names."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple) -> None:
        found[name] = args[0]

    handles = [m.register_forward_pre_hook(partial(keep, name)) for name, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def capture_input(module: nn.Module, call: Call, h: torch.Tensor) -> torch.Tensor:
    """What reaches `module`, which is called last, when `call` is made on `h`."""
    found: list[torch.Tensor] = []

    def stop(module: nn.Module, args: tuple) -> None:
        found.append(args[0])
        raise _Reached

    handle = module.register_forward_pre_hook(stop)
    try:
        call(h)
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise RuntimeError("a block passed by the projection that it ends in")


def _ends_in(output: torch.Tensor, added: torch.Tensor, rounded: torch.Tensor) -> bool:
    """Whether a projection's output is what the half adds."""
    if output.numel() != added.numel():
        return False
    return _alike(output.reshape(added.shape), added, added, rounded)


def _alike(
    told: torch.Tensor, there: torch.Tensor, moved: torch.Tensor, rounded: torch.Tensor | None = None
) -> bool:
    """Whether two streams agree, for the middle token, to a share of `moved` and `rounded`'s rounding."""
    rounded = there if rounded is None else rounded
    gap = (told.float() - there.float()).norm(dim=-1)
    allowed = TOLERANCE * moved.float().norm(dim=-1)
    allowed += torch.finfo(there.dtype).eps * rounded.float().norm(dim=-1)
    return bool((gap - allowed).median() <= 0)


def _entering(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """The residual stream `(B, T, d)` that enters the first block."""
    found: list[torch.Tensor] = []

    def stop(block: nn.Module, args: tuple, kwargs: dict) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = blocks_of(model)[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(input_ids=rows, use_cache=False)
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise RuntimeError("the first block was not reached")


def _calls(model: PreTrainedModel, rows: torch.Tensor) -> list[Call]:
    """Per block a function from the stream before it to the stream after it, for batches like `rows`."""
    made: list[Call] = []
    blocks = blocks_of(model)

    def remember(block: nn.Module, args: tuple, kwargs: dict) -> None:
        others = {k: v for k, v in kwargs.items() if k != "hidden_states"}

        def call(h: torch.Tensor) -> torch.Tensor:
            out = block(h, *args[1:], **others) if args else block(hidden_states=h, **others)
            return out[0] if isinstance(out, tuple) else out

        made.append(call)
        if len(made) == len(blocks):
            raise _Reached

    handles = [b.register_forward_pre_hook(remember, with_kwargs=True) for b in blocks]
    try:
        model(input_ids=rows, use_cache=False)
    except _Reached:
        return made
    finally:
        for handle in handles:
            handle.remove()
    raise RuntimeError("not every block was reached")
