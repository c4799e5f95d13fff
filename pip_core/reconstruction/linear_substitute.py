"""Linear substitutes of blocks: the part of a block that the block before can take over.

Any linear map of its inputs can be added to the projection that the MLP of the block before ends in,
at no cost in parameters. The ridge regression of what a block adds on those inputs is the part of the
block that is kept that way (ReplaceMe, arXiv 2505.02819, does it with a map of the stream). The rest
is what removing the block costs.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.float64 import double
from ..core.process_group import ALONE, current
from ..core.units import MLP
from ..structure.anatomy import Anatomy
from ..structure.families import residual_scale
from ..structure.hooks import capture_inputs
from ..structure.shape import Shape
from .residual_stream import ResidualStream, add_to_weight, trace_block
from .ridge import Regression

# Fixed, so that all blocks are compared by one rule.
RIDGE = 0.3


@dataclass(frozen=True)
class Substitute:
    """The part of what a block adds to the stream that the block before can add in its place.

    Attributes:
        path: of the projection in the block before.
        weight: `(inputs, d)`, in the model's number format; `x @ weight` is added, x being that projection's
            input.
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
    """Find the substitutes of the blocks at the positions `wanted`, or of all.

    Args:
        shape: of `model`.
        parts: batches of token ids, int64, each `(B, T)` with the same T.

    Yields:
        How many blocks are done, after each; `model` is left as it was.

    Returns:
        Substitutes by position. The first block has none, nor has a block whose regression has no finite
        solution or which follows one whose MLP does not end in a projection of its own.

    Raises:
        UserError: activations that are not finite.
    """
    group = current() if len(parts) >= current().size else ALONE  # each needs some
    stream = ResidualStream(model, [part.to(model.device) for part in group.share(parts)])
    scale, found = residual_scale(model.config), {}
    before: tuple[str, list[torch.Tensor]] | None = None
    last = len(shape.layers) - 1 if wanted is None else max(wanted, default=-1)
    for position, layer in enumerate(shape.layers[: last + 1]):
        path = None
        if layer.attention and layer.mlp:
            made = anatomy.blocks[layer.block]
            path = trace_block(stream, position, made, anatomy, scale, stream.stream[0], True).paths.get(MLP)
            path = group.gather(path)[0]
        predecessor = before if wanted is None or position in wanted else None
        followed = wanted is None or position + 1 in wanted
        regression, kept = None, []
        captured = {path: stream.blocks[position].get_submodule(path)} if path and followed else {}
        for number, h in enumerate(stream.stream):
            with capture_inputs(captured) as inputs:
                end = stream.call(position, h)
            kept += [x.reshape(-1, x.shape[-1]) for x in inputs.values()]
            if predecessor:
                x, y = predecessor[1][number], (end - h.to(end.device)).reshape(-1, h.shape[-1])
                y = y.to(x.device)  # blocks may be on several devices
                regression = regression or Regression(x.shape[-1], y.shape[-1], y.device)
                regression.add(x, y)
            stream.stream[number] = end
        change = None
        if regression:
            regression.add_up(group)
            regression.check()
            change = regression.solve(RIDGE)
        if change is not None and predecessor is not None:
            found[position] = Substitute(predecessor[0], change.T.to(predecessor[1][0]))
        before = (path, kept) if path and kept else None
        yield position + 1
    return found


def apply_substitute(blocks: nn.ModuleList, position: int, substitute: Substitute, scale: float) -> None:
    """Add a substitute of the block at `position` to the weight of the block before, in place.

    Args:
        scale: see `families.residual_scale`.

    Raises:
        UserError: the weight would not be finite.
    """
    module = blocks[position - 1].get_submodule(substitute.path)
    add_to_weight(module, double(substitute.weight.T) / scale)
