"""Multi-domain calibration: the importance of a unit, averaged over the domains of a mixed text.

Source: Wu et al., EACL 2026 (industry track), arXiv 2601.02674, of which only the abstract was
available: channels are scored on a hybrid calibration set of several domains, and scored again after
every pruning step. The rest is ours: a unit's importance in a domain is the root mean square of what it
adds, and a domain's importances are divided by their mean over the model before domains are averaged,
so that large activations give no domain more weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.errors import UserError
from ..core.units import CHANNELS, HEADS
from ..data.feeding import ScoringPass
from ..structure.sites import Site
from .activation_hooks import capture_inputs
from .base import Batch, Scorer, Scores
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
        "Measures how much each head and channel adds to the residual stream in each domain of a mixed "
        "calibration text, and gives every domain the same weight. Every unit is measured again after "
        "each step."
    )
    kinds = (HEADS, CHANNELS)
    usual: ClassVar = {"units": (HEADS, CHANNELS)}
    domains = 2

    def cost(self, sites: int) -> float:
        return 1.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites, needs_domains(self), self.domains)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("found",)

    def __init__(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        too_few: str,
        least: int,
    ) -> None:
        self.model, self.blocks, self.sites = model, blocks, sites
        self.too_few, self.least = too_few, least
        self.found: dict[int, list[Moments]] = {}

    def add(self, batch: Batch) -> None:
        for pair in batch:
            if pair.domain not in self.found:
                self.found[pair.domain] = [Moments.none(s.features) for s in self.sites]
            moments = self.found[pair.domain]

            def on_activation(index: int, values: torch.Tensor, moments: list[Moments] = moments) -> None:
                moments[index].add(values)

            capture_inputs(self.model, self.blocks, self.sites, pair.clean.ids, on_activation)

    def scores(self) -> Scores:
        if len(self.found) < self.least:
            raise UserError(self.too_few)
        columns = [
            s.output_weight(self.blocks[s.position]).detach().float().square().sum(dim=0).cpu().double()
            for s in self.sites
        ]
        totals = [torch.zeros(s.size, dtype=torch.float64) for s in self.sites]
        for moments in self.found.values():
            added = [
                (m.mean_square * c).view(s.size, -1).sum(dim=1).sqrt()
                for s, m, c in zip(self.sites, moments, columns, strict=True)
            ]
            for kind in {s.kind for s in self.sites}:
                mean = torch.cat([a for s, a in zip(self.sites, added, strict=True) if s.kind == kind]).mean()
                for site, total, part in zip(self.sites, totals, added, strict=True):
                    if site.kind == kind:
                        total += part / mean
        return [(t / len(self.found)).float() for t in totals]


def needs_domains(scorer: Scorer) -> str:
    """What to tell the user where the calibration has one domain only."""
    return (
        f"The method '{scorer.name}' compares domains and the calibration has only one: choose the "
        "calibration 'mixed' with at least two windows, or another method."
    )
