"""PIP as its authors describe it: how far the weight gradients of the two views differ.

Source: Cao et al., Findings of EMNLP 2025, arXiv 2501.15278 (PertImport). With updates
w' = w - a*grad L(s) and w'' = w - a*grad L(s~), a block's importance is how far the two differ; the
step a cancels. That the difference is measured by its L2 norm is our choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..sites import Site
from ..views import Pair
from .base import Scores, backpropagate, gradients_for


class WeightGradientDifference:
    """`mean over pairs of || grad_w L(s) - grad_w L(s~) ||_2`, exact per pair, for whole blocks."""

    name = "pip"
    title = "PIP (the authors' reading)"
    paper = "Cao et al., Findings of EMNLP 2025, arXiv 2501.15278"
    summary = (
        "Takes the gradient of every weight for the text as it is and for its perturbed view, and "
        "measures how far the two differ. The block whose gradients differ least goes first."
    )
    # For each view a forward, the same recomputed, and a full backward (together 4.5, measured).
    passes = 9.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        totals = torch.zeros(len(sites), dtype=torch.float64)
        for done, pair in enumerate(pairs, 1):
            totals += self._pair(model, [blocks[s.position] for s in sites], pair)
            yield done
        return [(t / len(pairs)).float().reshape(1) for t in totals]

    @staticmethod
    def _pair(model: PreTrainedModel, blocks: Sequence[nn.Module], pair: Pair) -> torch.Tensor:
        """Per block the norm of the gradient difference, shape `(len(blocks),)`.

        The difference is the gradient of L(s) - L(s~), one backward pass over both views. Each
        weight's gradient is folded into its block's sum and freed as soon as it exists, so no more
        than one is ever held.
        """
        squares = torch.zeros(len(blocks), dtype=torch.float64)

        def fold(index: int, weight: nn.Parameter) -> None:
            norm = torch.linalg.vector_norm(weight.grad, dtype=torch.float32)
            squares[index] += float(norm) ** 2
            weight.grad = None

        hooks = []
        weights = [p for b in blocks for p in b.parameters()]
        with torch.enable_grad(), gradients_for(model, weights), _recomputed(blocks):
            for index, block in enumerate(blocks):
                hooks += [
                    p.register_post_accumulate_grad_hook(partial(fold, index)) for p in block.parameters()
                ]
            try:
                backpropagate(model, (pair.clean.ids, pair.other.ids), (1.0, -1.0))
            finally:
                for hook in hooks:
                    hook.remove()
        return squares.sqrt()


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
