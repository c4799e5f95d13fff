"""What flows through a model's sites in one forward pass: what methods without gradients share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.batching import rows_of
from ..core.units import ATTENTION, BLOCKS
from ..structure.families import residual_scale
from ..structure.sites import Site


def capture_inputs(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: torch.Tensor,
    see: Callable[[int, torch.Tensor], None],
) -> None:
    """One forward pass over a text, showing what enters the output projections of width sites.

    Args:
        ids: `(T,)` token ids.
        see: is given a site's index and its units' features, `(T, size * features)`, in the model's
            number format; under inference mode.
    """

    def on_input(index: int, module: nn.Module, args: tuple) -> None:
        see(index, args[0].reshape(-1, args[0].shape[-1])[: len(ids)])

    with contextlib.ExitStack() as stack:
        for index, site in enumerate(sites):
            module = blocks[site.position].get_submodule(site.width.output)
            stack.callback(module.register_forward_pre_hook(partial(on_input, index)).remove)
        _forward(model, ids)


def capture_stream(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    sites: Sequence[Site],
    ids: torch.Tensor,
    see: Callable[[int, torch.Tensor, torch.Tensor], None],
) -> None:
    """One forward pass over a text, showing the residual stream before and after every depth site.

    Around an attention half that is the block's input, and the same with what attention adds; around
    an MLP half the block's output without what the MLP adds, and the block's output.

    Args:
        ids: `(T,)` token ids.
        see: is given a site's index and the stream before and after it, `(T, d)` each, float32;
            under inference mode.
    """
    scale, last = residual_scale(model.config), len(ids)
    added: dict[int, torch.Tensor] = {}

    def tokens(hidden: torch.Tensor) -> torch.Tensor:
        return hidden.reshape(-1, hidden.shape[-1])[:last].float()

    def on_half(index: int, module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        found = tokens(output[0] if isinstance(output, tuple) else output)
        if sites[index].adds_residual:
            see(index, tokens(args[1] if len(args) > 1 else kwargs["residual"]), found)
        else:
            added[index] = found * scale

    def on_block(index: int, module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        kind = sites[index].kind
        if kind != BLOCKS and index not in added:
            return
        before = tokens(args[0] if args else kwargs["hidden_states"])
        after = tokens(output[0] if isinstance(output, tuple) else output)
        if kind == ATTENTION:
            after = before + added.pop(index)
        elif kind != BLOCKS:
            before = after - added.pop(index)
        see(index, before, after)

    with contextlib.ExitStack() as stack:
        for index, site in enumerate(sites):
            block = blocks[site.position]
            if site.added:
                half = block.get_submodule(site.added)
                handle = half.register_forward_hook(partial(on_half, index), with_kwargs=True)
                stack.callback(handle.remove)
            handle = block.register_forward_hook(partial(on_block, index), with_kwargs=True)
            stack.callback(handle.remove)
        _forward(model, ids)


def _forward(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """A pass through the blocks; the logits, a fifth of a small model's work, are nobody's need."""
    rows, _ = rows_of((ids,))
    with torch.inference_mode():
        model.base_model(input_ids=rows.to(model.device), use_cache=False)
