"""Activations at a model's sites in one forward pass: what methods without gradients share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.batching import rows_of
from ..core.units import ATTENTION, BLOCKS
from ..structure.families import residual_scale
from ..structure.hooks import Args, Hooks, Kwargs, first_of, hidden_states, residual
from ..structure.sites import Site


def capture_inputs(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: torch.Tensor,
    on_activation: Callable[[int, torch.Tensor], None],
) -> None:
    """Run one forward pass over a text and report the inputs of the output projections of width sites.

    Args:
        ids: `(T,)` token ids.
        on_activation: is given a site's index and its units' features, `(T, size * features)`, in the
            model's number format; under inference mode.
    """

    def before_projection(index: int, args: Args, kwargs: Kwargs) -> None:
        on_activation(index, args[0].reshape(-1, args[0].shape[-1])[: len(ids)])

    with Hooks() as hooks:
        for index, site in enumerate(sites):
            projection = blocks[site.position].get_submodule(site.output)
            hooks.before(projection, partial(before_projection, index))
        _forward(model, ids)


def capture_stream(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: torch.Tensor,
    on_activation: Callable[[int, torch.Tensor, torch.Tensor], None],
) -> None:
    """Run one forward pass over a text and report the residual stream before and after every depth site.

    For an attention half these are the block's input, and that plus what attention adds; for an MLP half
    the block's output without what the MLP adds, and the block's output.

    Args:
        ids: `(T,)` token ids.
        on_activation: is given a site's index and the stream before and after it, `(T, d)` each, float32;
            under inference mode.
    """
    scale, last = residual_scale(model.config), len(ids)
    added: dict[int, torch.Tensor] = {}

    def tokens(stream: torch.Tensor) -> torch.Tensor:
        return stream.reshape(-1, stream.shape[-1])[:last].float()

    def after_half(index: int, args: Args, kwargs: Kwargs, output: object) -> None:
        found = tokens(first_of(output))
        if sites[index].adds_residual:
            on_activation(index, tokens(residual(args, kwargs)), found)
        else:
            added[index] = found * scale

    def after_block(index: int, args: Args, kwargs: Kwargs, output: object) -> None:
        kind = sites[index].kind
        if kind != BLOCKS and index not in added:
            return
        before, after = tokens(hidden_states(args, kwargs)), tokens(first_of(output))
        if kind == ATTENTION:
            after = before + added.pop(index)
        elif kind != BLOCKS:
            before = after - added.pop(index)
        on_activation(index, before, after)

    with Hooks() as hooks:
        for index, site in enumerate(sites):
            block = blocks[site.position]
            if site.added:
                hooks.after(block.get_submodule(site.added), partial(after_half, index))
            hooks.after(block, partial(after_block, index))
        _forward(model, ids)


def _forward(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Run the blocks alone: nobody here needs the logits, a fifth of a small model's work."""
    rows, _ = rows_of((ids,))
    with torch.inference_mode():
        model.base_model(input_ids=rows, use_cache=False)
