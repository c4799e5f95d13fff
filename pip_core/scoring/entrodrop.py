"""EntroDrop: how much entropy a block or half adds to the hidden states, where entropy grows.

Source: Yang et al., arXiv 2504.03794. Entropy falls in the early blocks of a model and grows in the
later ones; only of the later ones is anything removed, and first what adds least. Entropy is
estimated here from nearest neighbours (k = 25), the estimator the authors' code runs; the later stage
begins where a text's hidden states have their least entropy. As in that code blocks 0, 1 and the last
stay. Unlike there, the chosen blocks are really removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.float64 import double
from ..core.units import DEPTH, MLP
from ..data.feeding import ScoringPass
from ..structure.sites import Site
from .activation_hooks import capture_stream
from .base import AT_ONCE, Batch, Scorer, Scores

NEIGHBOURS = 25


class EntroDrop(Scorer):
    """`mean over texts of H(h_out) - H(h_in)` in nats; +inf before the stage where entropy grows."""

    name = "entrodrop"
    title = "EntroDrop"
    paper = "Yang et al., arXiv 2504.03794"
    summary = (
        "Estimates how much entropy a block adds to the hidden states, from the distances between a token's "
        "state and its neighbours. Of the later blocks, where entropy grows, the one that adds least is "
        "removed first."
    )
    kinds = DEPTH
    usual: ClassVar = {"step": AT_ONCE}
    inf_protects = True

    def cost(self, sites: int) -> float:
        return 1.0

    def protects(self, blocks: int) -> frozenset[int]:
        return frozenset({0, 1, blocks - 1})

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites, self.protects(len(blocks)))


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("before", "after", "texts")

    def __init__(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        protected: frozenset[int],
    ) -> None:
        self.model, self.blocks, self.sites, self.protected = model, blocks, sites, protected
        self.before = torch.zeros(len(sites), dtype=torch.float64)
        self.after = torch.zeros(len(sites), dtype=torch.float64)
        self.texts = 0

    def add(self, batch: Batch) -> None:
        def on_activation(index: int, before: torch.Tensor, after: torch.Tensor) -> None:
            self.before[index] += entropy(before)
            self.after[index] += entropy(after)

        for pair in batch:
            capture_stream(self.model, self.blocks, self.sites, pair.clean.ids, on_activation)
            self.texts += 1

    def scores(self) -> Scores:
        sites, before, after = self.sites, self.before, self.after
        scores = ((after - before) / self.texts).float()
        order = sorted(range(len(sites)), key=lambda i: (sites[i].position, sites[i].kind == MLP))
        start = int(torch.cat([before[order], after[order[-1:]]]).argmin())
        # The protected blocks are all still there, so their positions are their numbers.
        for rank, index in enumerate(order):
            if rank < start or sites[index].position in self.protected:
                scores[index] = math.inf
        return list(scores.split(1))


def entropy(states: torch.Tensor) -> float:
    """Differential entropy in nats, after Kozachenko and Leonenko (1987).

    With r_t the distance from state t to its k-th nearest neighbour among T states of d features:
    `d * mean log r_t + log(volume of the unit ball) + log T - log k`. Where there
    are fewer than k + 1 states, r_t is the distance to the farthest.

    Args:
        states: `(T, d)`, T > 1.
    """
    count, features = states.shape
    k = min(NEIGHBOURS, count - 1)
    points = double(states)
    # The nearest of all is the state itself.
    radii = torch.cdist(points, points).topk(k + 1, largest=False).values[:, -1]
    logs = float(radii.clamp(min=1e-10).log().mean())
    ball = features / 2 * math.log(math.pi) - math.lgamma(features / 2 + 1)
    return features * logs + ball + math.log(count) - math.log(k)
