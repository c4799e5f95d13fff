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
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ..core.errors import UserError
from ..core.process_group import ALONE, ProcessGroup, current
from ..core.units import ATTENTION, MLP
from ..structure.anatomy import Anatomy, Block
from ..structure.families import blocks_of, residual_scale
from ..structure.hooks import answering, capture_outputs, first_of, with_first
from ..structure.shape import Layer, Shape
from .residual_stream import (
    HALVES,
    BlockTrace,
    ResidualStream,
    Stream,
    add_to_weight,
    candidates,
    trace_block,
    weight_of,
)
from .ridge import NOT_FINITE, Regression

NO_PROJECTION = "they end in no projection of their own: a norm follows it, or experts share it"
NO_SUM = "what they add is normed or scaled on its way to the stream"
SINGULAR = "their inputs are zero"
# In the place of a tensor that is not needed any more.
NOTHING = torch.empty(0)


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
    return Outcome(work.solved, work.moved, halves, left, *work.errors())


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
        whole = self.pruned.stream
        self.pruned.stream = whole[:1]
        self.pruned.advance(0, len(self.pruned.blocks))
        self.at_first, self.pruned.stream = self.pruned.stream[0], whole
        self.dense.advance(0, shape.layers[0].block)

    @torch.no_grad()
    def errors(self) -> tuple[float, float]:
        """Distance between the first batch's last hidden states and the dense model's, as a share of those'
        length: the mean over tokens, before the refit and now."""
        wanted = self.dense.stream[0].float()
        errors = []
        for found in (self.at_first, self.pruned.stream[0]):
            gap = found.float().to(wanted.device) - wanted
            errors.append(float((gap.norm(dim=-1) / wanted.norm(dim=-1)).mean()))
        before, after = self.group.gather(errors)[0]
        if not math.isfinite(before + after):
            raise UserError(NOT_FINITE)
        return before, after

    @torch.no_grad()
    def block(self, index: int) -> None:
        """Solve block `index`, and advance both streams to the block after it."""
        layer = self.shape.layers[index]
        following = self.shape.layers[index + 1 : index + 2]
        until = following[0].block if following else len(self.dense.blocks)
        made = self.anatomy.blocks[layer.block]
        middle, first = self._dense_halves(layer, made)
        self.dense.advance(layer.block + 1, until)
        # What the halves add, batch by batch, by the name of the module that returns it: what is solved is
        # not computed again.
        added: dict[str, Stream] = {}
        why = NO_SUM if middle is None else NO_PROJECTION
        targets = {ATTENTION: middle if layer.mlp else self.dense.stream, MLP: self.dense.stream}
        del middle  # each is let go of as soon as it was used
        for half, there in ((ATTENTION, layer.attention), (MLP, layer.mlp)):
            wanted, path = targets.pop(half), first.paths.get(half)
            if not there:
                continue
            if path is None or wanted is None:
                self.left[why].append(half)
            elif self._solve(index, made, half, path, wanted, added, first.returned):
                self.solved += 1
            else:
                self.left[SINGULAR].append(half)
        for number, h in enumerate(self.pruned.stream):
            answers = _answers(added, number, first.returned)
            with answering(self.pruned.blocks[index], answers):
                self.pruned.stream[number] = self.pruned.call(index, h)
            for outputs in added.values():
                outputs[number] = NOTHING

    def _dense_halves(self, layer: Layer, made: Block) -> tuple[Stream | None, BlockTrace]:
        """Advance the dense stream over one block.

        Returns:
            As in `BlockTrace`: the stream after the block's attention, or None; and what the first batch
            shows, of `paths` none where the former is None.
        """
        traces = []
        for number, h in enumerate(self.dense.stream):
            traces.append(
                trace_block(self.dense, layer.block, made, self.anatomy, self.scale, h, number == 0)
            )
            self.dense.stream[number] = traces[-1].end
        middle = [trace.middle for trace in traces if trace.middle is not None]
        if len(middle) == len(traces):
            return middle, traces[0]
        return None, replace(traces[0], paths={})

    def _solve(
        self,
        index: int,
        made: Block,
        half: str,
        path: str,
        wanted: Stream,
        added: dict[str, Stream],
        returned: Mapping[str, Any],
    ) -> bool:
        """Add to one projection the regression of what is missing in the stream on its inputs, and note in
        `added` what the half adds from now on.

        Returns:
            False where there is nothing to solve, since the inputs are zero.
        """
        block, adds = self.pruned.blocks[index], self.anatomy.family.adds_residual
        output = block.get_submodule(path)
        outputs, inputs = weight_of(output).shape
        regression = Regression(inputs, outputs, weight_of(output).device)
        attention, mlp = made.added
        # What the attention adds where it could not be solved, or is gone.
        unsolved, kept = half == MLP and attention not in added, Stream()
        watched = {attention: block.get_submodule(attention)} if unsolved else {}
        given = Stream()
        for number, (h, target) in enumerate(zip(self.pruned.stream, wanted, strict=True)):
            with answering(block, _answers(added, number, returned)), capture_outputs(watched) as found:
                x, y = self.pruned.until(index, output, h)
            h, target = h.to(x.device), target.to(x.device)  # blocks may be on several devices
            missing = (target.float() - h.float()) / self.scale - y.float()
            if half == MLP:
                if unsolved:
                    kept.append(found[attention].reshape(h.shape))
                before = (kept if unsolved else added[attention])[number].float()
                missing -= before - h.float() if adds else before
            regression.add(x.reshape(-1, inputs), missing.reshape(-1, outputs))
            given.append(x)
        regression.add_up(self.group)
        regression.check()
        change = regression.best()
        if change is not None:
            add_to_weight(output, change)
            self.moved += 1
        if unsolved:
            added[attention] = kept
        entering = self.pruned.stream if half == ATTENTION else added[attention]
        ends = added[attention if half == ATTENTION else mlp] = []
        for number, h in enumerate(entering):
            y = output(given[number])
            given[number] = NOTHING
            ends.append(y + h.to(y.device) if adds else y)
        return change is not None or not regression.singular


def _answers(added: Mapping[str, Stream], number: int, returned: Mapping[str, Any]) -> dict[str, Any]:
    """What modules return for the batch of that `number`, given what they add. A copy, since some blocks go
    on to add to it in place."""
    answers = {}
    for path, found in added.items():
        shape = first_of(returned[path]).shape  # some return one row of tokens for all texts
        answers[path] = with_first(returned[path], found[number].reshape(-1, *shape[1:]).clone())
    return answers


def _describe_skipped(why: str, halves: Sequence[str]) -> str:
    """ "1 attention and 5 MLPs (no projection ...)"."""
    names = {ATTENTION: "attention", MLP: "MLP"}
    parts = [f"{n} {names[half]}{'s' * (n > 1)}" for half in HALVES if (n := halves.count(half))]
    return f"{' and '.join(parts)} ({why})"
