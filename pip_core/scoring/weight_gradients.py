"""Weight gradients, one weight at a time: what methods that look at them share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..structure.sites import Site, Slices
from .base import backpropagate, gradients_for


def each_gradient(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: Sequence[torch.Tensor],
    signs: Sequence[float],
    fold: Callable[[int, Slices], None],
) -> None:
    """Backward pass of `sum_i signs[i] * L(ids[i])`, handing out every weight as its gradient exists.

    Each gradient is freed before the next one is made, so no more than one is ever held.

    Args:
        ids: rows of token ids, `(T_i,)` each.
        fold: is given a site's index and its share of a weight whose `grad` is there.
    """
    shares: dict[nn.Parameter, list[tuple[int, Slices]]] = {}
    for index, site in enumerate(sites):
        for part in site.slices(blocks[site.position]):
            shares.setdefault(part.weight, []).append((index, part))

    def on_gradient(weight: nn.Parameter) -> None:
        for index, part in shares[weight]:
            fold(index, part)
        weight.grad = None

    with contextlib.ExitStack() as stack, torch.enable_grad(), gradients_for(model, shares):
        stack.enter_context(_recomputed([blocks[p] for p in sorted({s.position for s in sites})]))
        for weight in shares:
            stack.callback(weight.register_post_accumulate_grad_hook(on_gradient).remove)
        backpropagate(model, ids, signs)


@contextlib.contextmanager
def _recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Keep only each block's input for the backward pass and recompute the rest.

    A third more computing for a tenth of the memory: activations of all blocks at once would
    outweigh a small model's own weights.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
