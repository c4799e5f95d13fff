"""Refit: least squares that bring the residual stream of a pruned model back to the dense model's.

Block by block, a ridge regression changes the projections that attention and MLP end in, so that the
pruned model's residual stream comes as near as possible to the dense model's at the same place; at a
block that is followed by removed ones, to the dense stream after those. So one mechanism repairs width
and depth, and each solution is added to a weight that exists already.

Least squares on the remaining inputs: OBC (arXiv 2208.11580) and its successors; a linear map in place
of removed blocks: ReplaceMe (arXiv 2505.02819). That the target is the dense *stream*, so that each
solution also corrects errors of the blocks before, is ours. Which projection a half ends in, and
whether a block adds its output unchanged, is found by running the dense model; where there is no such
projection the weight stays unchanged, and `Outcome.left` says why.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.errors import UserError
from ..core.process_group import ALONE, ProcessGroup, current
from ..core.units import ATTENTION, MLP
from ..structure.anatomy import Anatomy, Block
from ..structure.families import blocks_of, residual_scale
from ..structure.hooks import capture_outputs
from ..structure.shape import Layer, Shape
from .residual_stream import (
    HALVES,
    ResidualStream,
    Stream,
    add_to_weight,
    candidates,
    capture_input,
    trace_block,
    weight_of,
)
from .ridge import NOT_FINITE, Regression

NO_PROJECTION = "they end in no projection of their own: a norm follows it, or experts share it"
NO_SUM = "what they add is normed or scaled on its way to the stream"
SINGULAR = "their inputs are zero"


@dataclass(frozen=True)
class Outcome:
    """The result of a refit.

    Attributes:
        projections: how many could be solved, of `halves` attentions and MLPs.
        moved: how many of these were changed, since the solution had the smaller error on text that it was
            not solved on.
        left: why the others could not be solved, in words; empty where there are none.
        before, after: distance to the dense model's last hidden states, as a share of their length,
            mean over the first batch's tokens.
    """

    projections: int
    moved: int
    halves: int
    left: str
    before: float
    after: float


def widest(model: PreTrainedModel, anatomy: Anatomy) -> int:
    """Inputs of the widest projection that a refit of the dense `model` may solve; 0 where there is none."""
    return max(
        (
            weight_of(module).shape[1]
            for block, made in zip(blocks_of(model), anatomy.blocks, strict=True)
            for half in HALVES
            for module in candidates(block, made, half, model.config.hidden_size).values()
        ),
        default=0,
    )


def refit(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    anatomy: Anatomy,
    shape: Shape,
    parts: Sequence[torch.Tensor],
    same: Sequence[torch.Tensor] | None = None,
) -> Generator[int, None, Outcome]:
    """Refit the output projections of `pruned`, in place.

    Args:
        dense: the unpruned model; it is not changed.
        shape: of `pruned`.
        parts: batches of token ids to calibrate on, int64, each of shape `(B, T)` with the same T.
        same: the same text by the dense model's token ids, where its vocabulary is another.

    Yields:
        How many blocks are done, after each. No gradient mode is held across a yield.

    Raises:
        UserError: activations, or a changed weight, are not finite.
    """
    same, group = parts if same is None else same, current()
    if len(parts) < group.size:
        group = ALONE  # too few to share: each process reads them all
    work = _Refit(dense, pruned, anatomy, shape, group.share(parts), group.share(same), group)
    yield 0
    for index in range(len(shape.layers)):
        work.block(index)
        yield index + 1
    halves = sum(layer.attention + layer.mlp for layer in shape.layers)
    left = "; ".join(_describe_skipped(why, halves) for why, halves in work.left.items() if halves)
    return Outcome(work.solved, work.moved, halves, left, work.before, work.error())


class _Refit:
    """A refit under way: the streams of both models, and what was solved so far."""

    @torch.no_grad()
    def __init__(
        self,
        dense: PreTrainedModel,
        pruned: PreTrainedModel,
        anatomy: Anatomy,
        shape: Shape,
        parts: Sequence[torch.Tensor],
        same: Sequence[torch.Tensor],
        group: ProcessGroup,
    ) -> None:
        self.anatomy, self.shape, self.group = anatomy, shape, group
        self.scale = residual_scale(dense.config)
        self.solved, self.moved = 0, 0
        self.left: dict[str, list[str]] = {why: [] for why in (NO_PROJECTION, NO_SUM, SINGULAR)}
        self.dense, self.pruned = ResidualStream(dense, same), ResidualStream(pruned, parts)
        whole = self.dense.stream, self.pruned.stream
        for model in (self.dense, self.pruned):
            model.stream = model.stream[:1]
            model.advance(0, len(model.blocks))
        self.before = self.error()
        self.dense.stream, self.pruned.stream = whole
        self.dense.advance(0, shape.layers[0].block)

    @torch.no_grad()
    def error(self) -> float:
        """Distance between the first batch's streams, as a share of the dense one's length: the mean over
        tokens."""
        now = self.pruned.stream[0].float()
        wanted = self.dense.stream[0].float().to(now.device)
        found = float(((now - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean())
        found = self.group.gather(found)[0]
        if not math.isfinite(found):
            raise UserError(NOT_FINITE)
        return found

    @torch.no_grad()
    def block(self, index: int) -> None:
        """Solve block `index`, and advance both streams to the block after it."""
        layer = self.shape.layers[index]
        following = self.shape.layers[index + 1 : index + 2]
        until = following[0].block if following else len(self.dense.blocks)
        made, block = self.anatomy.blocks[layer.block], self.pruned.blocks[index]
        middle, paths = self._dense_halves(layer, made)
        self.dense.advance(layer.block + 1, until)
        for half, there, wanted in (
            (ATTENTION, layer.attention, middle if layer.mlp else self.dense.stream),
            (MLP, layer.mlp, self.dense.stream),
        ):
            if not there:
                continue
            path = paths.get(half)
            if path is None or wanted is None:
                self.left[NO_SUM if middle is None else NO_PROJECTION].append(half)
            elif self._solve(index, block.get_submodule(path), made, half, wanted):
                self.solved += 1
            else:
                self.left[SINGULAR].append(half)
        self.pruned.advance(index, index + 1)

    def _dense_halves(self, layer: Layer, made: Block) -> tuple[Stream | None, dict[str, str | None]]:
        """Advance the dense stream over one block.

        Returns:
            As in `BlockTrace`: the stream after the block's attention, or None; and for each half the
            projection that it ends in, or None.
        """
        middle, ends = [], []
        paths: dict[str, str | None] = {}
        for number, h in enumerate(self.dense.stream):
            found = trace_block(self.dense, layer.block, made, self.anatomy, self.scale, h, number == 0)
            ends.append(found.end)
            if found.middle is not None:
                middle.append(found.middle)
            paths |= found.paths
        self.dense.stream = ends
        return (middle, paths) if len(middle) == len(ends) else (None, {})

    def _solve(self, index: int, output: nn.Module, made: Block, half: str, wanted: Stream) -> bool:
        """Add to one projection the regression of what is missing in the stream on its inputs.

        Returns:
            False where there is nothing to solve, since the inputs are zero.
        """
        block, weight = self.pruned.blocks[index], weight_of(output)
        inputs, adds = weight.shape[1], self.anatomy.family.adds_residual
        regression = Regression(inputs, weight.shape[0], weight.device)
        before = {made.added[0]: block.get_submodule(made.added[0])} if half == MLP else {}
        for h, target in zip(self.pruned.stream, wanted, strict=True):
            with capture_outputs(before) as found:
                x = capture_input(output, partial(self.pruned.call, index), h).reshape(-1, inputs)
            h, target = h.to(x.device), target.to(x.device)  # blocks may be on several devices
            missing = (target.float() - h.float()) / self.scale
            if half == MLP:
                attention = found[made.added[0]].float().reshape(h.shape)
                missing -= attention - h.float() if adds else attention
            missing = missing.reshape(-1, weight.shape[0]) - (x @ weight.T).float()
            if (bias := getattr(output, "bias", None)) is not None:
                missing -= bias.float()
            regression.add(x, missing)
        regression.add_up(self.group)
        regression.check()
        change = regression.best()
        if change is not None:
            add_to_weight(output, change)
            self.moved += 1
        elif regression.singular:
            return False
        return True


def _describe_skipped(why: str, halves: Sequence[str]) -> str:
    """ "1 attention and 5 MLPs (no projection ...)"."""
    names = {ATTENTION: "attention", MLP: "MLP"}
    parts = [f"{n} {names[half]}{'s' * (n > 1)}" for half in HALVES if (n := halves.count(half))]
    return f"{' and '.join(parts)} ({why})"
