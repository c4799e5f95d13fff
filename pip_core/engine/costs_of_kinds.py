"""What each kind of units costs a model, measured on windows of its calibration text with nothing cut.

A kind's least important parameters are masked, some sizes one after another, and the loss is taken of every
window: forward passes alone. They are ranked by the run's method, in one pass over all kinds where the method
can do that; the first removal takes these scores over.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from transformers import PreTrainedModel

from ..budget.division import CostCurve
from ..core.errors import UserError
from ..core.process_group import current
from ..core.units import DEPTH, EXPERTS, HEADS
from ..data.perturbation import Pair
from ..scoring.removal_cost import lowest, masked, nats, nats_without
from ..structure.anatomy import Anatomy
from ..structure.sites import Site
from ..structure.vocabulary import Vocabulary, VocabularySubset
from .state import RunState

Losses = list[float]


@dataclass(frozen=True)
class Reading:
    """What was read of some windows.

    Attributes:
        losses: for each size that was asked for, the loss on each window in nats.
        tokens: how many tokens the model read for that.
    """

    losses: list[Losses]
    tokens: int


Steps = Generator[int, None, Reading]


@dataclass
class Kind:
    """One kind under measurement.

    Attributes:
        name: "tokens" or a kind of units.
        most: parameters that may go.
        joins: whether it is not among the recipe's own kinds, and joins them only where it is cheaper.
        scores: of each site; or, by domain of the text they were scored on, of the rows of the vocabulary,
            added up over its windows.
        losses: parameters removed -> increase of the loss in nats on each window that this was measured on;
            these are all of them, or the first.
    """

    name: str
    most: float
    joins: bool = False
    sites: Sequence[Site] = ()
    scores: Mapping[int, torch.Tensor] = field(default_factory=dict)
    losses: dict[float, Losses] = field(default_factory=dict)

    def curve(self, sizes: Sequence[int], given_back: float, windows: Sequence[int], whole: int) -> CostCurve:
        """Its costs, in nats per byte.

        On a window that a size was not measured on, it costs what the size before does there, and as much
        more for each byte as on the others.

        Args:
            sizes: bytes of each window.
            given_back: share of a cost that a refit gives back.
            windows: those whose costs are added up.
            whole: bytes that they are divided by.
        """
        before, points = [0.0] * len(sizes), []
        for removed, found in sorted(self.losses.items()):
            known = len(found)
            more = (sum(found) - sum(before[:known])) / sum(sizes[:known])
            guessed = (b + more * size for b, size in zip(before[known:], sizes[known:], strict=True))
            before = [*found, *guessed]
            points.append((removed, sum(before[n] for n in windows) / whole * (1 - given_back)))
        return CostCurve(self.name, tuple(points), self.most)

    def known(self, windows: int) -> float:
        """The largest size up to which every one was measured on all `windows`; infinite where all were."""
        before = 0.0
        for removed, found in sorted(self.losses.items()):
            if len(found) < windows:
                return before
            before = removed
        return math.inf


def drawn(state: RunState) -> tuple[list[Pair], list[Pair], bool]:
    """Pairs to score on, which are those of the first removal; windows to measure on; and whether nothing is
    scored on these. A short text holds none that could be held back: then it is measured on what was scored
    on."""
    recipe = state.recipe
    scored = state.calibration.pairs(1)
    texts = {pair.clean.text for pair in scored}
    try:
        more = state.calibration.pairs(1, recipe.windows + recipe.division_windows)
    except UserError:
        return scored, scored[: recipe.division_windows], False
    held_back = [pair for pair in more if pair.clean.text not in texts]
    return scored, held_back[-recipe.division_windows :], True


def without_tokens(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    scores: Mapping[int, torch.Tensor],
    removed: Sequence[int],
    texts: Sequence[Pair],
) -> Steps:
    """The loss on each window with so many tokens left out, for each number of `removed`; with 0, that of the
    dense model. A text of a domain is judged on tokens that were chosen on the others, where there are
    others: tokens are needed or not by what a text is about, and the model will read more than its
    calibration text."""
    whole = torch.stack(list(scores.values())).sum(dim=0)

    @cache
    def subsets(domain: int) -> list[VocabularySubset | None]:
        known = whole - scores[domain] if len(scores) > 1 and domain in scores else whole
        kept = iter(vocabulary.keep_each(known, [vocabulary.rows - count for count in removed if count]))
        return [VocabularySubset(vocabulary, next(kept)) if count else None for count in removed]

    def losses() -> Iterator[tuple[Losses, int]]:
        for pair in current().share(texts):
            yield nats_without(model, subsets(pair.domain), pair.clean.ids)

    return (yield from _gathered(losses(), len(texts)))


def without_units(
    model: PreTrainedModel,
    sites: Sequence[Site],
    units: Mapping[int, torch.Tensor],
    texts: Sequence[Pair],
) -> Steps:
    """The loss on each window with units masked; with none of them, that of the dense model."""

    def losses() -> Iterator[tuple[Losses, int]]:
        for pair in current().share(texts):
            with masked(model, sites, units):
                found = list(nats(model, [pair.clean.ids]))
            yield found, len(pair.clean.ids)

    return (yield from _gathered(losses(), len(texts)))


def _gathered(losses: Iterator[tuple[Losses, int]], texts: int) -> Steps:
    """The losses of all processes, each of which has those of its share of the texts, in the order of the
    texts; says after each how many are done."""
    found, group = [], current()
    for one in losses:
        found.append(one)
        yield min(len(found) * group.size, texts)
    every = [one for part in group.gather(found) for one in part]
    return Reading(
        [list(each) for each in zip(*(one for one, _ in every), strict=True)], sum(n for _, n in every)
    )


def chosen_units(equal: bool, kind: Kind, parameters: float) -> tuple[dict[int, torch.Tensor], int]:
    """The lowest-scored units that make up about `parameters`, and how many parameters they are: as many from
    every site where `equal`, else wherever they are."""
    costs = [site.cost for site in kind.sites]
    if equal and kind.name not in DEPTH:
        widths = [site.width for site in kind.sites if site.width is not None]
        each, most = max(width.portions for width in widths), min(width.most for width in widths)
        count = min(round(parameters / sum(costs) / each) * each, most)
        if kind.name in (HEADS, EXPERTS) and not count:
            count = min(each, most)
        return lowest(kind.sites, list(kind.scores.values()), [count] * len(costs)), count * sum(costs)
    ranked = sorted(
        (float(score) / site.cost, n, place)
        for n, (site, found) in enumerate(zip(kind.sites, kind.scores.values(), strict=True))
        for place, score in enumerate(found.tolist())
    )
    chosen: dict[int, list[int]] = {}
    removed = 0
    for _, n, place in ranked:
        if removed + costs[n] / 2 > parameters:
            break
        if kind.name not in DEPTH and len(chosen.get(n, ())) == kind.sites[n].size - kind.sites[n].least:
            continue
        chosen.setdefault(n, []).append(place)
        removed += costs[n]
    return {n: torch.tensor(places) for n, places in chosen.items()}, removed


def most_of(kind: str, sites: Sequence[Site], anatomy: Anatomy) -> float:
    """Parameters that may go of a kind: never a block's last unit or its last experts, nor the last block."""
    if kind in DEPTH:
        return float(sum(s.cost for s in sites) - (max(s.cost for s in sites) if sites else 0))
    least = min((s.width.most for s in sites if s.width is not None), default=0)
    if kind == HEADS and anatomy.group_counts:
        least = min(least, max(s.size for s in sites) - min(anatomy.group_counts))
    return float(least * sum(s.cost for s in sites))
