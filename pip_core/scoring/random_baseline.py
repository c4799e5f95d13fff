"""Removal at random: the baseline that any method has to beat."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.feeding import ScoringPass
from ..structure.families import embedding_weight
from ..structure.sites import Site
from .base import Batch, Scorer, Scores


class RandomBaseline(Scorer):
    """Scores drawn uniformly from 0 to 1.

    The draw is seeded by the perturbed texts, which depend on the calibration, the recipe's seed and the
    iteration alone: same recipe, same removals.
    """

    name = "random"
    title = "Random"
    paper = "the baseline that any method has to beat"
    summary = (
        "Removes units at random, whatever the text and the weights. A method is worth what it gains "
        "over this."
    )
    scores_tokens = True
    comparable_scores = True

    def cost(self, sites: int) -> float:
        return 0.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Draw([site.size for site in sites])

    def begin_tokens(self, model: PreTrainedModel) -> ScoringPass[torch.Tensor]:
        return _TokenDraw(embedding_weight(model).shape[0])


class _Draw:
    sums: ClassVar[tuple[str, ...]] = ("texts",)

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.texts: list[str] = []

    def add(self, batch: Batch) -> None:
        self.texts += [pair.perturbed.text for pair in batch]

    def joined(self, other: _Draw) -> _Draw:
        """Both draws as one: the texts of this one first."""
        both = _Draw(self.sizes)
        both.texts = self.texts + other.texts
        return both

    def scores(self) -> Scores:
        rng = random.Random("\n".join(self.texts))
        return [torch.tensor([rng.random() for _ in range(size)]) for size in self.sizes]


class _TokenDraw:
    sums: ClassVar[tuple[str, ...]] = ("draw",)

    def __init__(self, tokens: int) -> None:
        self.draw = _Draw([tokens])

    def add(self, batch: Batch) -> None:
        self.draw.add(batch)

    def scores(self) -> torch.Tensor:
        return self.draw.scores()[0]
