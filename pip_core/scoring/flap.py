"""FLAP: how much a feature fluctuates, weighed by what the output projection makes of it.

Source: An et al., AAAI 2024, arXiv 2312.11983 (WIFV). What hardly varies can be replaced by its mean.
Layers and kinds are made comparable by standardising within each, a head scores the mean of its
features, and one threshold goes through the whole model, counting what each unit costs; here that is
the unit's own parameters, where the authors' code has a constant that fits LLaMA-7B. Their code also
squares the scores of attention before standardising, which the paper does not say; it is not done here.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import CHANNELS, HEADS, WIDTH
from ..data.perturbation import Pair
from ..structure.sites import Site
from .activation_hooks import capture_inputs
from .base import AT_ONCE, Scorer, Scores
from .moments import Moments


class Flap(Scorer):
    """`Var(x_j) * sum_i W_ij^2`, standardised over the features of a site; the mean over a unit's."""

    name = "flap"
    title = "FLAP"
    paper = "An et al., AAAI 2024, arXiv 2312.11983"
    summary = (
        "Measures how much each feature fluctuates before it enters its output projection, weighed by "
        "that projection. What hardly fluctuates goes, wherever in the model it is."
    )
    kinds = WIDTH
    # Standardised scores are ranked as they are; the parameters a unit costs count against the budget.
    usual: ClassVar = {
        "units": (HEADS, CHANNELS),
        "allocation": "global",
        "per_parameter": False,
        "plain": False,
        "step": AT_ONCE,
    }

    def cost(self, sites: int) -> float:
        return 1.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        moments = [Moments.none(site.size * site.width.features) for site in sites]
        for done, pair in enumerate(pairs, 1):
            capture_inputs(
                model, blocks, sites, pair.clean.ids, lambda index, values: moments[index].add(values)
            )
            yield done
        return [
            _standardised(site, blocks[site.position], found)
            for site, found in zip(sites, moments, strict=True)
        ]


def _standardised(site: Site, block: nn.Module, moments: Moments) -> torch.Tensor:
    weight = site.output_weight(block).detach()
    fluctuation = moments.variance * weight.float().square().sum(dim=0).double().cpu()
    spread = fluctuation.std()
    # A site whose features are all alike prefers none of them.
    found = (fluctuation - fluctuation.mean()) / spread if spread > 0 else torch.zeros_like(fluctuation)
    return found.view(site.size, -1).mean(dim=1).float()
