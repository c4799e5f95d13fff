"""PIP as its authors describe it: how far the weight gradients of the two views differ.

Source: Cao et al., Findings of EMNLP 2025, arXiv 2501.15278 (PertImport). With updates
w' = w - a*grad L(s) and w'' = w - a*grad L(s~), a block's importance is how far the two differ; the
step a cancels. That the difference is measured by its L2 norm is our choice.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.perturbation import Pair
from ..structure.sites import Site, Slices
from .base import Scorer, Scores
from .token_gradients import rows_by_gradient
from .weight_gradients import each_gradient


class WeightGradientDifference(Scorer):
    """`mean over pairs of || grad_w L(s) - grad_w L(s~) ||_2`, exact per pair, over a unit's weights."""

    name = "pip"
    title = "PIP (the authors' reading)"
    paper = "Cao et al., Findings of EMNLP 2025, arXiv 2501.15278"
    summary = (
        "Takes the gradient of every weight for the text as it is and for its perturbed view, and "
        "measures how far the two differ. What differs least goes first."
    )
    perturbs = True
    scores_tokens = True

    def cost(self, sites: int) -> float:
        # For each view a forward, the same recomputed, and a full backward (together 4.5, measured).
        return 9.0

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

    def tokens(self, model: PreTrainedModel, pairs: Sequence[Pair]) -> Generator[int, None, torch.Tensor]:
        """As for any unit: the norm of the gradient's difference over a row of the vocabulary."""
        return rows_by_gradient(
            model, pairs, True, lambda weight, gradient: gradient.square().sum(dim=1), torch.sqrt
        )

    @staticmethod
    def _pair(
        model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site], pair: Pair
    ) -> list[torch.Tensor]:
        """Per site the squared norms of its units' gradient differences, shape `(size,)`.

        The difference is the gradient of L(s) - L(s~), one backward pass over both views.
        """
        squares = [torch.zeros(s.size) for s in sites]

        def fold(index: int, part: Slices) -> None:
            if sites[index].size == 1:
                norm = torch.linalg.vector_norm(part.weight.grad, dtype=torch.float32)
                squares[index] += float(norm) ** 2
            else:
                squares[index] += part.by_unit(part.weight.grad.float().square(), sites[index].size)

        each_gradient(model, blocks, sites, (pair.clean.ids, pair.other.ids), (1.0, -1.0), fold)
        return squares
