"""Training-free repair: what remains is solved anew so that the model's stream is the dense one's.

Block by block, the output projections of attention and MLP are replaced by the ridge regression that
best reproduces, from what the pruned model has at that place, the residual stream the dense model
has there; of a block that is followed by removed ones, the stream after those. So one mechanism
repairs width and depth, and every solution folds into a weight that is there already.

Least squares from kept inputs: OBC (arXiv 2208.11580) and its successors; a linear map in place of
removed blocks: ReplaceMe (arXiv 2505.02819). That the target is the dense *stream*, so that each
solution also takes back what went wrong before it, is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .anatomy import Anatomy, Block
from .errors import UserError
from .families import blocks_of
from .shape import Layer, Shape
from .units import CHANNELS, HEADS

# Share of the mean squared input that is added to every one: how much the old weight is trusted.
RIDGE = 0.01
# Tokens per input feature below which a regression would learn the text by heart.
TOKENS_PER_FEATURE = 4
# Relative error up to which a block's output is the sum of its input and its two halves.
SUM_TOLERANCE = 2e-2

Stream = list[torch.Tensor]
Call = Callable[[torch.Tensor], torch.Tensor]


class _Reached(Exception):
    """What was wanted of a forward pass is there; the rest of it is not needed."""


def refit(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    anatomy: Anatomy,
    shape: Shape,
    rows: torch.Tensor,
    ridge: float = RIDGE,
    batch: int = 4,
) -> Generator[int, None, int]:
    """Solve the output projections of `pruned` anew, in place.

    Args:
        dense: the model that `pruned` was cut from, as it was.
        shape: of `pruned`.
        rows: token ids to calibrate on, int64, shape `(N, T)`.
        ridge: in units of the mean squared input; the solution is drawn towards the old weight.
        batch: rows in one forward pass.

    Yields:
        How many blocks are done, after each. No gradient mode is held across a yield.

    Returns:
        How many projections were solved.

    Raises:
        UserError: too few tokens for the number of input features.
    """
    features = [
        width.features * len(layer.kept[kind])
        for layer in shape.layers
        for kind, width in anatomy.blocks[layer.block].widths.items()
    ]
    needed = TOKENS_PER_FEATURE * max(features, default=0)
    if rows.numel() < needed:
        raise UserError(
            f"The refit needs at least {needed:,} tokens of calibration text for this model, and has "
            f"{rows.numel():,}. Use a longer text, or switch the refit off."
        )
    work = _Refit(dense, pruned, anatomy, shape, list(rows.to(pruned.device).split(batch)), ridge)
    solved = 0
    for index in range(len(shape.layers)):
        solved += work.block(index)
        yield index + 1
    return solved


class _Refit:
    """Both models' residual streams, carried from block to block."""

    @torch.no_grad()
    def __init__(
        self,
        dense: PreTrainedModel,
        pruned: PreTrainedModel,
        anatomy: Anatomy,
        shape: Shape,
        parts: Sequence[torch.Tensor],
        ridge: float,
    ) -> None:
        self.anatomy, self.shape, self.ridge = anatomy, shape, ridge
        self.dense_blocks, self.blocks = blocks_of(dense), blocks_of(pruned)
        self.dense_calls, self.calls = _calls(dense, parts[0]), _calls(pruned, parts[0])
        self.dense = [_entering(dense, part) for part in parts]
        self.stream = [_entering(pruned, part) for part in parts]
        self._advance(0, shape.layers[0].block)

    @torch.no_grad()
    def block(self, index: int) -> int:
        """Solve block `index` and carry both streams over it; returns how many were solved."""
        layer = self.shape.layers[index]
        following = self.shape.layers[index + 1 : index + 2]
        until = following[0].block if following else len(self.dense_blocks)
        made, block, solved = self.anatomy.blocks[layer.block], self.blocks[index], 0
        after_attention, sums = self._dense_halves(layer, made, until)
        halves = [
            (HEADS, layer.attention, after_attention if layer.mlp else self.dense),
            (CHANNELS, layer.mlp, self.dense),
        ]
        for kind, there, wanted in halves:
            if there and sums and kind in made.widths:
                self._solve(index, block, made, kind, wanted)
                solved += 1
        self.stream = [self.calls[index](h) for h in self.stream]
        return solved

    def _advance(self, start: int, end: int) -> None:
        for number in range(start, end):
            self.dense = [self.dense_calls[number](h) for h in self.dense]

    def _dense_halves(self, layer: Layer, made: Block, until: int) -> tuple[Stream, bool]:
        """The dense stream after the block's attention; `self.dense` is carried on to block `until`.

        Also whether a block's output is its input and what its projections add: where a family
        scales or normalises in between, a regression has no stream to aim at.
        """
        block, call = self.dense_blocks[layer.block], self.dense_calls[layer.block]
        middle, ends, error = [], [], 0.0
        for h in self.dense:
            added: dict[int, torch.Tensor] = {}
            handles = [
                block.get_submodule(path).register_forward_hook(partial(_keep, added, half))
                for half, path in enumerate(made.added)
                if path
            ]
            ends.append(call(h))
            for handle in handles:
                handle.remove()
            if len(added) < 2 or self.anatomy.family.added:
                self.dense = [call(h) for h in self.dense]
                self._advance(layer.block + 1, until)
                return [], False
            attention, mlp = (added[n].reshape(h.shape) for n in (0, 1))
            middle.append(h + attention)
            gap = (h.float() + attention.float() + mlp.float() - ends[-1].float()).norm()
            error = max(error, float(gap / (ends[-1].float() - h.float()).norm()))
        self.dense = ends
        self._advance(layer.block + 1, until)
        return middle, error < SUM_TOLERANCE

    def _solve(self, index: int, block: nn.Module, made: Block, kind: str, wanted: Stream) -> None:
        """Replace one output projection by the regression of what is missing on its inputs."""
        output = block.get_submodule(made.widths[kind].output)
        weight = output.weight.T if isinstance(output, Conv1D) else output.weight
        width = weight.shape[1]
        gram = torch.zeros(width, width, dtype=torch.float32, device=weight.device)
        cross = torch.zeros(width, weight.shape[0], dtype=torch.float32, device=weight.device)
        for h, target in zip(self.stream, wanted, strict=True):
            added: dict[int, torch.Tensor] = {}
            handles = [output.register_forward_pre_hook(partial(_stop_at, added))]
            if kind == CHANNELS and made.added[0]:
                path = made.added[0]
                handles.append(block.get_submodule(path).register_forward_hook(partial(_keep, added, 0)))
            try:
                self.calls[index](h)
            except _Reached:
                pass
            finally:
                for handle in handles:
                    handle.remove()
            x = added[-1].reshape(-1, width).float()
            missing = (target.float() - h.float()).reshape(-1, weight.shape[0])
            if 0 in added:
                missing -= added[0].float().reshape(missing.shape)
            missing -= (x.to(weight.dtype) @ weight.T).float()
            if output.bias is not None:
                missing -= output.bias.float()
            gram.addmm_(x.T, x)
            cross.addmm_(x.T, missing)
        gram, cross = gram.double(), cross.double()
        gram.diagonal().add_(self.ridge * gram.diagonal().mean())
        change = torch.linalg.solve(gram, cross).to(weight.dtype).to(weight.device)
        output.weight.data += change if isinstance(output, Conv1D) else change.T


def _keep(found: dict[int, torch.Tensor], key: int, module: nn.Module, args: tuple, output) -> None:
    # A copy: some blocks go on to add to it in place.
    found[key] = (output[0] if isinstance(output, tuple) else output).clone()


def _stop_at(found: dict[int, torch.Tensor], module: nn.Module, args: tuple) -> None:
    found[-1] = args[0]
    raise _Reached


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
    """Per block a function from the stream before it to the stream after it.

    Masks and positions are those of `rows`; other batches have the same length, and fewer rows of
    them take the same ones where these are shared by all rows.
    """
    made: list[Call] = []

    def remember(block: nn.Module, args: tuple, kwargs: dict) -> None:
        given = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        by_name = not args

        def call(h: torch.Tensor) -> torch.Tensor:
            rest = {k: _cut(v, rows.shape[0], h.shape[0]) for k, v in given.items()}
            others = tuple(_cut(a, rows.shape[0], h.shape[0]) for a in args[1:])
            out = block(hidden_states=h, **rest) if by_name else block(h, *others, **rest)
            return out[0] if isinstance(out, tuple) else out

        made.append(call)

    handles = [b.register_forward_pre_hook(remember, with_kwargs=True) for b in blocks_of(model)]
    try:
        model(input_ids=rows, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return made


def _cut(value, rows: int, wanted: int):
    """A tensor that has one entry for each of `rows`, cut to the first `wanted` of them."""
    if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[0] == rows > wanted:
        return value[:wanted]
    return value
