"""Removing at random: what any method has to beat."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.perturbation import Pair
from ..structure.sites import Site
from .base import Scorer, Scores


class RandomBaseline(Scorer):
    """Scores drawn evenly from 0 to 1.

    The draw is seeded by the perturbed texts, which change with the recipe's seed and with the
    iteration and with nothing else of a run: same recipe, same removals.
    """

    name = "random"
    title = "Random"
    paper = "the baseline that any method has to beat"
    summary = (
        "Removes units at random, looking neither at the text nor at the weights. What a method gains "
        "over this is what it knows."
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
        rng = random.Random("\n".join(pair.other.text for pair in pairs))
        found = [torch.tensor([rng.random() for _ in range(site.size)]) for site in sites]
        yield len(pairs)
        return found

    def tokens(self, model: PreTrainedModel, pairs: Sequence[Pair]) -> Generator[int, None, torch.Tensor]:
        rng = random.Random("\n".join(pair.other.text for pair in pairs))
        found = torch.tensor([rng.random() for _ in range(model.get_input_embeddings().weight.shape[0])])
        yield len(pairs)
        return found
