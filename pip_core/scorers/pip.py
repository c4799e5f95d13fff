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

from ..sites import Site, Slices
from ..units import KINDS
from ..views import Pair
from .base import Scores, backpropagate, gradients_for


class WeightGradientDifference:
    """`mean over pairs of || grad_w L(s) - grad_w L(s~) ||_2`, exact per pair, over a unit's weights."""

    name = "pip"
    title = "PIP (the authors' reading)"
    paper = "Cao et al., Findings of EMNLP 2025, arXiv 2501.15278"
    summary = (
        "Takes the gradient of every weight for the text as it is and for its perturbed view, and "
        "measures how far the two differ. What differs least goes first."
    )
    kinds = KINDS
    # For each view a forward, the same recomputed, and a full backward (together 4.5, measured).
    passes = 9.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        totals = [torch.zeros(s.size) for s in sites]
        for done, pair in enumerate(pairs, 1):
            for total, squares in zip(totals, self._pair(model, blocks, sites, pair), strict=True):
                total += squares.sqrt()
            yield done
        return [t / len(pairs) for t in totals]

    @staticmethod
    def _pair(
        model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site], pair: Pair
    ) -> list[torch.Tensor]:
        """Per site the squared norms of its units' gradient differences, shape `(size,)`.

        The difference is the gradient of L(s) - L(s~), one backward pass over both views. Each
        weight's gradient is folded into its units' sums and freed as soon as it exists, so no more
        than one is ever held.
        """
        squares = [torch.zeros(s.size) for s in sites]
        shares: dict[nn.Parameter, list[tuple[int, Slices]]] = {}
        for index, site in enumerate(sites):
            for part in site.slices(blocks[site.position]):
                shares.setdefault(part.weight, []).append((index, part))

        def fold(weight: nn.Parameter) -> None:
            for index, part in shares[weight]:
                if sites[index].size == 1:
                    norm = torch.linalg.vector_norm(weight.grad, dtype=torch.float32)
                    squares[index] += float(norm) ** 2
                else:
                    squares[index] += part.by_unit(weight.grad.float().square(), sites[index].size)
            weight.grad = None

        with contextlib.ExitStack() as stack, torch.enable_grad(), gradients_for(model, shares):
            stack.enter_context(_recomputed([blocks[p] for p in sorted({s.position for s in sites})]))
            for weight in shares:
                stack.callback(weight.register_post_accumulate_grad_hook(fold).remove)
            backpropagate(model, (pair.clean.ids, pair.other.ids), (1.0, -1.0))
        return squares


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
