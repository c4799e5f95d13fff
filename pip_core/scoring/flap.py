"""FLAP: the variance of each feature, weighted by the output projection that reads it.

Source: An et al., AAAI 2024, arXiv 2312.11983 (WIFV). A feature that hardly varies can be replaced by
its mean. Layers and kinds are made comparable by standardising within each, a head's score is the mean
of its features', and one threshold applies to the whole model, counting what each unit costs; here that
is the unit's own parameters, where the authors' code has a constant that fits LLaMA-7B. Their code also
squares the scores of attention before standardising, which the paper does not say; it is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import CHANNELS, HEADS
from ..data.feeding import ScoringPass
from ..structure.sites import Site
from .activation_hooks import capture_inputs
from .base import AT_ONCE, Batch, Scorer, Scores
from .moments import Moments


class Flap(Scorer):
    """`Var(x_j) * sum_i W_ij^2`, standardised over the features of a site; the mean over a unit's."""

    name = "flap"
    title = "FLAP"
    paper = "An et al., AAAI 2024, arXiv 2312.11983"
    summary = (
        "Measures how much each feature varies before it enters its output projection, weighted by that "
        "projection. What hardly varies is removed, wherever in the model it is."
    )
    kinds = (HEADS, CHANNELS)
    # The scores are standardised already, so they are ranked by themselves, not per parameter; a unit's
    # parameters count against the budget.
    usual: ClassVar = {
        "units": (HEADS, CHANNELS),
        "allocation": "global",
        "per_parameter": False,
        "plain": False,
        "step": AT_ONCE,
    }

    def cost(self, sites: int) -> float:
        return 1.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("moments",)

    def __init__(self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]) -> None:
        self.model, self.blocks, self.sites = model, blocks, sites
        self.moments = [Moments.none(site.features) for site in sites]

    def add(self, batch: Batch) -> None:
        def on_activation(index: int, values: torch.Tensor) -> None:
            self.moments[index].add(values)

        for pair in batch:
            capture_inputs(self.model, self.blocks, self.sites, pair.clean.ids, on_activation)

    def scores(self) -> Scores:
        return [
            _standardised(site, self.blocks[site.position], found)
            for site, found in zip(self.sites, self.moments, strict=True)
        ]


def _standardised(site: Site, block: nn.Module, moments: Moments) -> torch.Tensor:
    weight = site.output_weight(block).detach()
    fluctuation = moments.variance * weight.float().square().sum(dim=0).cpu().double()
    spread = fluctuation.std()
    # Where all features of a site are alike, none is preferred.
    found = (fluctuation - fluctuation.mean()) / spread if spread > 0 else torch.zeros_like(fluctuation)
    return found.view(site.size, -1).mean(dim=1).float()
