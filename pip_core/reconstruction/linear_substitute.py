"""What the block before could add in a block's place: the part of a block that need not be kept.

The projection that the MLP of the block before ends in can be given any linear map of its inputs on
top, for no parameters at all. The ridge regression of what a block adds on those inputs is the part
of the block that can be given back that way (as by ReplaceMe, arXiv 2505.02819, with a map of the
stream). What is left over is what removing the block costs.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import MLP
from ..structure.anatomy import Anatomy
from ..structure.families import residual_scale
from ..structure.shape import Shape
from .residual_stream import ResidualStream, add_to_weight, inputs, trace_block
from .ridge import Regression

# Fixed, so that all blocks are compared by one rule.
RIDGE = 0.3


@dataclass(frozen=True)
class Substitute:
    """What a block adds to the stream, as far as the block before can say it.

    Attributes:
        path: of the projection in the block before.
        weight: `(inputs, d)`, of the model's type; `x @ weight` is added in the block's place, x being that
            projection's input.
    """

    path: str
    weight: torch.Tensor


@torch.no_grad()
def substitutes(
    model: PreTrainedModel,
    anatomy: Anatomy,
    shape: Shape,
    parts: Sequence[torch.Tensor],
    wanted: Collection[int] | None = None,
) -> Generator[int, None, dict[int, Substitute]]:
    """Substitutes of the blocks at the positions `wanted`, or of all.

    Args:
        shape: of `model`.
        parts: batches of token ids, int64, each `(B, T)` with the same T.

    Yields:
        How many blocks are done, after each; `model` is left as it was.

    Returns:
        By position. The first block has none, nor has one that follows a block whose MLP does not end in
        a projection of its own.
    """
    run = ResidualStream(model, [part.to(model.device) for part in parts])
    scale, given = residual_scale(model.config), {}
    before: tuple[str, list[torch.Tensor]] | None = None
    last = len(shape.layers) - 1 if wanted is None else max(wanted, default=-1)
    for position, layer in enumerate(shape.layers[: last + 1]):
        path = None
        if layer.attention and layer.mlp:
            made = anatomy.blocks[layer.block]
            path = trace_block(run, position, made, anatomy, scale, run.stream[0], True).paths.get(MLP)
        asked = before if wanted is None or position in wanted else None
        follows = wanted is None or position + 1 in wanted
        regression, kept = None, []
        watched = {path: run.blocks[position].get_submodule(path)} if path and follows else {}
        for number, h in enumerate(run.stream):
            with inputs(watched) as found:
                end = run.call(position, h)
            kept += [x.reshape(-1, x.shape[-1]) for x in found.values()]
            if asked:
                x, y = asked[1][number], (end - h).reshape(-1, h.shape[-1])
                regression = regression or Regression(x.shape[-1], y.shape[-1], y.device)
                regression.add(x, y)
            run.stream[number] = end
        change = regression.solve(RIDGE) if regression else None
        if change is not None:
            given[position] = Substitute(asked[0], change.T.to(run.stream[0].dtype))
        before = (path, kept) if kept else None
        yield position + 1
    return given


def apply_substitute(blocks: nn.ModuleList, position: int, substitute: Substitute, scale: float) -> None:
    """Let the block before `position` add what the block there did, as far as it can, in place."""
    module = blocks[position - 1].get_submodule(substitute.path)
    add_to_weight(module, substitute.weight.T.double() / scale)
