"""Magnitude: the sum of a unit's squared weights. No text is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.feeding import ScoringPass
from ..structure.families import token_weights
from ..structure.sites import Site
from .base import Batch, Scorer, Scores


class Magnitude(Scorer):
    """`sum of w^2` over a unit's weights."""

    name = "magnitude"
    title = "Magnitude"
    paper = "Han et al., NeurIPS 2015, arXiv 1506.02626, for whole units"
    summary = (
        "Adds up the squares of a unit's weights. It reads no text, so it is instant, and it does not know "
        "what the weights are used for."
    )
    scores_tokens = True
    comparable_scores = True

    def cost(self, sites: int) -> float:
        return 0.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Units(blocks, sites)

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]:
        return _Tokens(model)


class _Units:
    sums: ClassVar[tuple[str, ...]] = ()

    def __init__(self, blocks: Sequence[nn.Module], sites: Sequence[Site]) -> None:
        self.blocks, self.sites = blocks, sites

    def add(self, batch: Batch) -> None:
        """The scores depend on no text."""

    @torch.no_grad()
    def scores(self) -> Scores:
        found = []
        for site in self.sites:
            total = torch.zeros(site.size)
            for part in site.slices(self.blocks[site.position]):
                total += part.by_unit(part.weight.float().square(), site.size)
            found.append(total)
        return found


class _Tokens:
    sums: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def add(self, batch: Batch) -> None:
        """The scores depend on no text."""

    @torch.no_grad()
    def scores(self) -> torch.Tensor:
        parts = [w.float().square().sum(dim=1).cpu() for w in token_weights(self.model)]
        return torch.stack(parts).sum(dim=0)
