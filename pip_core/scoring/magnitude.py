"""Magnitude: the sum of a unit's squared weights. No text is read."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.perturbation import Pair
from ..structure.families import tables_of
from ..structure.sites import Site
from .base import Scorer, Scores


class Magnitude(Scorer):
    """`sum of w^2` over a unit's weights."""

    name = "magnitude"
    title = "Magnitude"
    paper = "Han et al., NeurIPS 2015, arXiv 1506.02626, for whole units"
    summary = (
        "Adds up the squares of a unit's weights. It reads no text, so it is instant, and it knows "
        "nothing of what the weights are used for."
    )
    scores_tokens = True
    comparable_scores = True

    def cost(self, sites: int) -> float:
        return 0.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        found = []
        for done, site in enumerate(sites, 1):
            total = torch.zeros(site.size)
            with torch.no_grad():
                for part in site.slices(blocks[site.position]):
                    total += part.by_unit(part.weight.float().square(), site.size)
            found.append(total)
            yield len(pairs) * done // len(sites)
        return found

    def tokens(self, model: PreTrainedModel, pairs: Sequence[Pair]) -> Generator[int, None, torch.Tensor]:
        weights = {id(t.weight): t.weight for t in tables_of(model)}.values()
        with torch.no_grad():
            total = sum(weight.float().square().sum(dim=1).cpu() for weight in weights)
        yield len(pairs)
        return total
