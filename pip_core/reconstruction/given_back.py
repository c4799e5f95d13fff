"""What a refit would give back, looked at in a few blocks before anything is removed.

Units are masked in one block of the dense model, and what the stream lacks after it is predicted from what
enters the projection that the block's MLP ends in; that of the block before, where the MLP itself is masked.
The share that ridge regression explains on text that it was not solved on is what a refit gives back there.
It grows with the text, about as much each time that doubles (measured, see docs/research-log.md), so that a
little text says what the text of the refit would come to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import MLP
from ..structure.anatomy import Anatomy
from ..structure.families import residual_scale
from ..structure.hooks import capture_inputs
from .residual_stream import ResidualStream, Stream, trace_block
from .ridge import explained


@dataclass(frozen=True)
class Look:
    """Units of one block that are masked.

    Attributes:
        position: of the block in the dense model.
        before: whether only the block before can give something back, since the block's MLP is masked.
        masking: in its `with` block the units add nothing.
    """

    position: int
    before: bool
    masking: Callable[[], AbstractContextManager[None]]


@torch.no_grad()
def shares_given_back(
    model: PreTrainedModel,
    anatomy: Anatomy,
    looks: Sequence[Look],
    parts: Sequence[torch.Tensor],
    tokens: int,
) -> Generator[int, None, list[float]]:
    """The share of what is lost that a refit would give back, for each of `looks`.

    Args:
        model: the dense model; left as it was.
        parts: batches of token ids to look at, int64, each `(B, T)` with the same T.
        tokens: that the refit would read.

    Yields:
        How many blocks are done, after each.

    Returns:
        From 0 to 1 each; 0 where no MLP ends in a projection of its own, which a refit leaves as it is.
    """
    stream = ResidualStream(model, [part.to(model.device) for part in parts])
    scale, found = residual_scale(model.config), [0.0] * len(looks)
    projecting = {look.position - look.before for look in looks}
    before: Stream = []
    for position in range(max((look.position for look in looks), default=-1) + 1):
        made, block = anatomy.blocks[position], stream.blocks[position]
        path = None
        if position in projecting:
            path = trace_block(stream, position, made, anatomy, scale, stream.stream[0], True).paths.get(MLP)
        ends: Stream = []
        inputs: Stream = []
        projection: dict[str, nn.Module] = {path: block.get_submodule(path)} if path else {}
        for h in stream.stream:
            with capture_inputs(projection) as captured:
                ends.append(stream.call(position, h))
            inputs += captured.values()
        for number, look in enumerate(looks):
            if look.position != position or not (before if look.before else inputs):
                continue
            lacking: Stream = []
            given: Stream = []
            for h, end in zip(stream.stream, ends, strict=True):
                with look.masking(), capture_inputs(projection) as captured:
                    lacking.append((end.float() - stream.call(position, h).float()) / scale)
                given += captured.values()
            found[number] = _foretold(before if look.before else given, lacking, tokens)
        before, stream.stream = inputs, ends
        yield position + 1
    return found


def _foretold(given: Stream, lacking: Stream, tokens: int) -> float:
    """The share of what is `lacking` that a regression on what is `given` explains once it is solved on so
    many tokens."""
    x = torch.cat([part.reshape(-1, part.shape[-1]) for part in given])
    y = torch.cat([part.reshape(-1, part.shape[-1]) for part in lacking]).to(x.device)
    few, many = explained(x, y)
    doublings = max(0.0, math.log2(tokens / (len(x) / 2)))
    return min(1.0, many + doublings * max(0.0, many - few))
