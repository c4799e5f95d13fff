"""PIP as its authors describe it: the difference between the weight gradients of the two views.

Source: Cao et al., Findings of EMNLP 2025, arXiv 2501.15278 (PertImport). With updates
w' = w - a*grad L(s) and w'' = w - a*grad L(s~), a block's importance is the distance between the two;
the step a cancels. That the distance is measured by its L2 norm is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.feeding import ScoringPass
from ..data.perturbation import Pair
from ..structure.sites import Site, Slices
from .base import Batch, Scorer, Scores, gradient_of
from .token_gradients import RowGradients
from .weight_gradients import each_gradient


class WeightGradientDifference(Scorer):
    """`mean over pairs of || grad_w L(s) - grad_w L(s~) ||_2`, exact per pair, over a unit's weights."""

    name = "pip"
    title = "PIP (as published)"
    paper = "Cao et al., Findings of EMNLP 2025, arXiv 2501.15278"
    summary = (
        "Compares the gradient of every weight for a clean and for a misspelt text. Parts where the two "
        "differ least are removed first."
    )
    perturbs = True
    scores_tokens = True

    def cost(self, sites: int) -> float:
        # For each view a forward pass, that again, and a full backward pass (together 4.5, measured).
        return 9.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites)

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]:
        """As for any unit: the norm of the gradient's difference over a row of the vocabulary."""
        return RowGradients(model, lambda weight, gradient: gradient.square().sum(dim=1), torch.sqrt, True)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("totals", "pairs")

    def __init__(self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]) -> None:
        self.model, self.blocks, self.sites = model, blocks, sites
        self.totals = [torch.zeros(site.size) for site in sites]
        self.pairs = 0

    def add(self, batch: Batch) -> None:
        for pair in batch:
            for total, squares in zip(self.totals, self._squares(pair), strict=True):
                total += squares.sqrt()
            self.pairs += 1

    def scores(self) -> Scores:
        return [total / self.pairs for total in self.totals]

    def _squares(self, pair: Pair) -> list[torch.Tensor]:
        """Per site the squared norms of its units' gradient differences, shape `(size,)`.

        The difference is the gradient of L(s) - L(s~), one backward pass over both views.
        """
        sites = self.sites
        squares = [torch.zeros(site.size) for site in sites]

        def on_gradient(index: int, part: Slices) -> None:
            if sites[index].size == 1:
                norm = torch.linalg.vector_norm(gradient_of(part.weight), dtype=torch.float32)
                squares[index] += float(norm) ** 2
            else:
                squares[index] += part.by_unit(gradient_of(part.weight).float().square(), sites[index].size)

        views = (pair.clean.ids, pair.perturbed.ids)
        each_gradient(self.model, self.blocks, sites, views, (1.0, -1.0), on_gradient)
        return squares
