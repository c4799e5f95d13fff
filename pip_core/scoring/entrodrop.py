"""EntroDrop: how much entropy a block or half adds to the hidden states, where entropy grows.

Source: Yang et al., arXiv 2504.03794. Entropy falls in the early blocks of a model and grows in the
later ones; only of those goes what adds least. Entropy is estimated here from nearest neighbours
(k = 25), the estimator the authors' code runs; the stage begins where a text's hidden states have
their least entropy. As in that code blocks 0, 1 and the last are never touched. Unlike it, what is
chosen is really removed.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import DEPTH, MLP
from ..data.perturbation import Pair
from ..structure.sites import Site
from .activation_hooks import capture_stream
from .base import AT_ONCE, Scorer, Scores

NEIGHBOURS = 25


class EntroDrop(Scorer):
    """`mean over texts of H(h_out) - H(h_in)` in nats; +inf before the stage where entropy grows."""

    name = "entrodrop"
    title = "EntroDrop"
    paper = "Yang et al., arXiv 2504.03794"
    summary = (
        "Estimates how much entropy a block adds to the hidden states, from how far a token's neighbours "
        "are. Of the later blocks, where entropy grows, the one that adds least goes first."
    )
    kinds = DEPTH
    usual: ClassVar = {"step": AT_ONCE}
    inf_protects = True

    def cost(self, sites: int) -> float:
        return 1.0

    def protects(self, blocks: int) -> frozenset[int]:
        return frozenset({0, 1, blocks - 1})

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        before = torch.zeros(len(sites), dtype=torch.float64)
        after = torch.zeros(len(sites), dtype=torch.float64)

        def see(index: int, given: torch.Tensor, answered: torch.Tensor) -> None:
            before[index] += entropy(given)
            after[index] += entropy(answered)

        for done, pair in enumerate(pairs, 1):
            capture_stream(model, blocks, sites, pair.clean.ids, see)
            yield done
        scores = ((after - before) / len(pairs)).float()
        order = sorted(range(len(sites)), key=lambda i: (sites[i].position, sites[i].kind == MLP))
        start = int(torch.cat([before[order], after[order[-1:]]]).argmin())
        # The blocks that are never touched are all still there, and so where they were.
        protected = self.protects(len(blocks))
        for rank, index in enumerate(order):
            if rank < start or sites[index].position in protected:
                scores[index] = math.inf
        return list(scores.split(1))


def entropy(states: torch.Tensor) -> float:
    """Differential entropy in nats, after Kozachenko and Leonenko (1987).

    With r_t the distance from state t to its k-th nearest neighbour among T states of d features:
    `d * mean log r_t + log(volume of the unit ball) + log T - log k`. Of fewer than k + 1 states the
    farthest neighbour stands in.

    Args:
        states: `(T, d)`, T > 1.
    """
    count, features = states.shape
    k = min(NEIGHBOURS, count - 1)
    points = states.double()
    # The nearest of all is the state itself.
    radii = torch.cdist(points, points).topk(k + 1, largest=False).values[:, -1]
    logs = float(radii.clamp(min=1e-10).log().mean())
    ball = features / 2 * math.log(math.pi) - math.lgamma(features / 2 + 1)
    return features * logs + ball + math.log(count) - math.log(k)
