"""PIP at the gates (ours): how far the gradients at virtual gates differ between the views.

Put a gate z = 1 on what a block adds to the residual stream, f. The loss's gradient at the gate is
f * g, with g the gradient at the block's output; no weight gradient is needed. Taken per channel
and per word, the two views can be compared where they say the same thing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from ..sites import Site
from ..views import Pair
from .base import Scores, backpropagate, gradients_for


class GateGradientDifference:
    """`mean over pairs of sum over words of || (f*g)_word - (f~*g~)_word ||_2`, for whole blocks.

    `(f*g)_word` has shape `(d,)`: the products of a word's tokens, added up.
    """

    name = "pip-gate"
    title = "PIP at the gates"
    paper = "this project, after Cao et al., arXiv 2501.15278"
    summary = (
        "Puts a gate on what every block adds to the text, and compares the gradient at the gate between "
        "a text and its perturbed view, word by word. It needs no weight gradients, so it is faster than "
        "PIP and holds nothing of the weights' size."
    )
    # For each view a forward, and a backward for activations alone that takes as long as two of it.
    passes = 6.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        chosen = [blocks[s.position] for s in sites]
        totals = torch.zeros(len(sites), dtype=torch.float64)
        for done, pair in enumerate(pairs, 1):
            count = int(max(pair.clean.words[-1], pair.other.words[-1])) + 1
            clean = gate_gradients(model, chosen, pair.clean.ids, pair.clean.words, count)
            other = gate_gradients(model, chosen, pair.other.ids, pair.other.words, count)
            totals += (clean - other).norm(dim=2).sum(dim=1).double().cpu()
            yield done
        return [(t / len(pairs)).float().reshape(1) for t in totals]


def gate_gradients(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    ids: torch.Tensor,
    words: torch.Tensor,
    count: int,
) -> torch.Tensor:
    """Gate gradients of one view, per block, word and channel: shape `(blocks, count, d)`, float32.

    Args:
        ids: `(T,)` token ids.
        words: `(T,)` word index of each token, below `count`.
    """
    found: list[torch.Tensor | None] = [None] * len(blocks)

    def on_output(index: int, block: nn.Module, args: tuple, kwargs: dict, output) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        added = (after.detach().float() - before.detach().float())[0]

        def on_gradient(gradient: torch.Tensor) -> None:
            product = (added * gradient[0].float())[: len(words)]
            pooled = product.new_zeros(count, product.shape[1])
            found[index] = pooled.index_add_(0, words.to(product.device), product)

        if not after.requires_grad:
            # The first of the blocks: gradients need not flow back beyond its output.
            after.requires_grad_()
        after.register_hook(on_gradient)

    with torch.enable_grad(), gradients_for(model, ()), contextlib.ExitStack() as stack:
        for index, block in enumerate(blocks):
            handle = block.register_forward_hook(partial(on_output, index), with_kwargs=True)
            stack.callback(handle.remove)
        backpropagate(model, (ids,), (1.0,))
    return torch.stack(found)
