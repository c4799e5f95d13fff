"""First-order Taylor importance: an estimate of the change in the loss if a unit's weights were zero.

Source: LLM-Pruner (Ma et al., NeurIPS 2023, arXiv 2305.11627), its element-wise first-order
importance, summed over a unit's weights. LLM-Pruner takes the gradient of all calibration texts
together; here the absolute value is taken text by text, so that no gradient of the model's size is
ever held. LLM-Pruner's dependency groups are called units here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import CHANNELS, HEADS
from ..data.feeding import ScoringPass
from ..structure.sites import Site, Slices
from .base import AT_ONCE, Batch, Scorer, Scores, gradient_of
from .token_gradients import RowGradients
from .weight_gradients import each_gradient


class Taylor(Scorer):
    """`mean over texts of sum over a unit's weights of | w * grad_w L(s) |`."""

    name = "taylor"
    title = "Taylor (LLM-Pruner)"
    paper = "Ma et al., NeurIPS 2023, arXiv 2305.11627"
    summary = (
        "Multiplies every weight by its gradient, which estimates how much the loss would change "
        "without it, and adds up the sizes of these products over a unit. One forward and one backward "
        "pass over the clean text."
    )
    usual: ClassVar = {"units": (HEADS, CHANNELS), "step": AT_ONCE}
    scores_tokens = True
    comparable_scores = True

    def cost(self, sites: int) -> float:
        # A forward pass, the same recomputed, and a full backward pass, as for either view of `pip`.
        return 4.5

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites)

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]:
        """As for any unit: the sum of `| w * grad_w L(s) |` over a row of the vocabulary."""
        return RowGradients(model, lambda weight, gradient: (weight * gradient).abs().sum(dim=1), torch.abs)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("totals", "texts")

    def __init__(self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]) -> None:
        self.model, self.blocks, self.sites = model, blocks, sites
        self.totals = [torch.zeros(site.size) for site in sites]
        self.texts = 0

    def add(self, batch: Batch) -> None:
        def on_gradient(index: int, part: Slices) -> None:
            weight = part.weight.detach()
            product = (weight.float() * gradient_of(part.weight).float()).abs()
            self.totals[index] += part.by_unit(product, self.sites[index].size)

        for pair in batch:
            each_gradient(self.model, self.blocks, self.sites, (pair.clean.ids,), (1.0,), on_gradient)
            self.texts += 1

    def scores(self) -> Scores:
        return [total / self.texts for total in self.totals]
