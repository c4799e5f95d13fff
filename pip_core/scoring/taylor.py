"""First-order Taylor importance: how much the loss would change if a unit's weights were zero.

Source: LLM-Pruner (Ma et al., NeurIPS 2023, arXiv 2305.11627), its element-wise first-order
importance, summed over what a unit owns. LLM-Pruner takes the gradient of all calibration texts
together; here the absolute value is taken text by text, so that no gradient of the model's size is
ever held. LLM-Pruner's dependency groups are this project's units.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import CHANNELS, HEADS
from ..data.perturbation import Pair
from ..structure.sites import Site, Slices
from .base import AT_ONCE, Scorer, Scores
from .token_gradients import rows_by_gradient
from .weight_gradients import each_gradient


class Taylor(Scorer):
    """`mean over texts of sum over a unit's weights of | w * grad_w L(s) |`."""

    name = "taylor"
    title = "Taylor (LLM-Pruner)"
    paper = "Ma et al., NeurIPS 2023, arXiv 2305.11627"
    summary = (
        "Multiplies every weight by its gradient, which estimates how much the loss would change "
        "without it, and adds up the sizes of these products over a unit. One forward and one backward "
        "pass over the plain text."
    )
    usual: ClassVar = {"units": (HEADS, CHANNELS), "step": AT_ONCE}
    scores_tokens = True
    comparable_scores = True

    def cost(self, sites: int) -> float:
        # A forward, the same recomputed, and a full backward, as for either view of `pip`.
        return 4.5

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        totals = [torch.zeros(s.size) for s in sites]

        def fold(index: int, part: Slices) -> None:
            weight = part.weight.detach()
            product = (weight.float() * part.weight.grad.float()).abs()
            totals[index] += part.by_unit(product, sites[index].size)

        for done, pair in enumerate(pairs, 1):
            each_gradient(model, blocks, sites, (pair.clean.ids,), (1.0,), fold)
            yield done
        return [t / len(pairs) for t in totals]

    def tokens(self, model: PreTrainedModel, pairs: Sequence[Pair]) -> Generator[int, None, torch.Tensor]:
        """As for any unit: the sum of `| w * grad_w L(s) |` over a row of the vocabulary."""
        return rows_by_gradient(
            model, pairs, False, lambda weight, gradient: (weight * gradient).abs().sum(dim=1), torch.abs
        )
