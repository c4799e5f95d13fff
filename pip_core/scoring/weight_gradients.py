"""Weight gradients, one weight at a time: what the methods that read them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ..structure.hooks import Hooks
from ..structure.recompute import recomputed
from ..structure.sites import Site, Slices
from .base import backpropagate, gradients_for


def each_gradient(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: Sequence[torch.Tensor],
    signs: Sequence[float],
    on_gradient: Callable[[int, Slices], None],
) -> None:
    """Backward pass of `sum_i signs[i] * L(ids[i])` that reports each weight once its gradient is known.

    Each gradient is freed before the next one is made, so no more than one is ever held.

    Args:
        ids: rows of token ids, `(T_i,)` each.
        on_gradient: is given a site's index and its share of a weight whose `grad` is set.
    """
    shares: dict[nn.Parameter, list[tuple[int, Slices]]] = {}
    for index, site in enumerate(sites):
        for part in site.slices(blocks[site.position]):
            shares.setdefault(part.weight, []).append((index, part))

    def report(weight: nn.Parameter) -> None:
        for index, part in shares[weight]:
            on_gradient(index, part)
        weight.grad = None

    scored = [blocks[position] for position in sorted({site.position for site in sites})]
    with Hooks() as hooks, torch.enable_grad(), gradients_for(model, shares), recomputed(scored):
        for weight in shares:
            hooks.after_gradient(weight, report)
        backpropagate(model, ids, signs)
