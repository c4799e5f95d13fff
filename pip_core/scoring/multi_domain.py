"""Multi-domain calibration: what matters in any domain stays.

Source: Wu et al., EACL 2026 (industry track), arXiv 2601.02674, of which only the abstract could be
had: channels are judged on a hybrid calibration set of several domains, and judged again after every
pruning step. Ours is the rest: a unit's importance in a domain is the root mean square of what it
adds, and a domain's importances are divided by their mean over the model before domains are averaged,
so that none is heard louder than another for the size of its activations.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.errors import UserError
from ..core.units import CHANNELS, HEADS, WIDTH
from ..data.perturbation import Pair
from ..structure.sites import Site
from .activation_hooks import capture_inputs
from .base import Scorer, Scores
from .moments import Moments


class MultiDomain(Scorer):
    """`mean over domains of I_d(u) / mean over all units of the kind of I_d`.

    `I_d(u) = sqrt(sum over the unit's features j of mean(x_j^2) * sum_i W_ij^2)`, over the tokens of
    domain d.
    """

    name = "multi-domain"
    title = "Multi-domain calibration"
    paper = "after Wu et al., arXiv 2601.02674 (abstract only)"
    summary = (
        "Measures how much each head and channel adds to the text in each domain of a mixed calibration "
        "set, and gives every domain the same voice. After every step all is measured again."
    )
    kinds = WIDTH
    usual: ClassVar = {"units": (HEADS, CHANNELS)}
    domains = 2

    def cost(self, sites: int) -> float:
        return 1.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        found = {pair.domain: [Moments.none(s.size * s.width.features) for s in sites] for pair in pairs}
        if len(found) < self.domains:
            raise UserError(needs_domains(self))
        for done, pair in enumerate(pairs, 1):
            heard = found[pair.domain]

            def see(index: int, values: torch.Tensor, heard: list[Moments] = heard) -> None:
                heard[index].add(values)

            capture_inputs(model, blocks, sites, pair.clean.ids, see)
            yield done
        columns = [
            s.output_weight(blocks[s.position]).detach().float().square().sum(dim=0).double().cpu()
            for s in sites
        ]
        totals = [torch.zeros(s.size, dtype=torch.float64) for s in sites]
        for heard in found.values():
            added = [
                (m.mean_square * c).view(s.size, -1).sum(dim=1).sqrt()
                for s, m, c in zip(sites, heard, columns, strict=True)
            ]
            for kind in {s.kind for s in sites}:
                mean = torch.cat([a for s, a in zip(sites, added, strict=True) if s.kind == kind]).mean()
                for site, total, part in zip(sites, totals, added, strict=True):
                    if site.kind == kind:
                        total += part / mean
        return [(t / len(found)).float() for t in totals]


def needs_domains(scorer: Scorer) -> str:
    return (
        f"The method '{scorer.name}' compares domains and the calibration has only one: choose the "
        "calibration 'mixed' with at least two windows, or another method."
    )
