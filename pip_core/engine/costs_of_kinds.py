"""What each kind of units costs a model, measured on windows of its calibration text with nothing cut.

A kind's least important parameters are masked, some sizes one after another, and the loss is taken of every
window: forward passes alone. They are ranked by the run's method, in one pass over all kinds where the method
can do that; the first removal takes these scores over.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
Steps = Generator[int, None, Losses]


@dataclass
class Kind:
    """One kind under measurement.

    Attributes:
        name: "tokens" or a kind of units.
        most: parameters that may go.
        joins: whether it is not among the recipe's own kinds, and joins them only where it is cheaper.
        scores: of each site; or, by domain of the text they were scored on, of the rows of the vocabulary,
            added up over its windows.
        losses: (parameters removed, increase of the loss on each window in nats), ascending.
    """

    name: str
    most: float
    joins: bool = False
    sites: Sequence[Site] = ()
    scores: Mapping[int, torch.Tensor] = field(default_factory=dict)
    losses: list[tuple[float, Losses]] = field(default_factory=list)

    def curve(self, size: int, given_back: float, window: int | None = None) -> CostCurve:
        """Its costs, in nats per byte.

        Args:
            size: bytes of all windows.
            given_back: share of a cost that a refit gives back.
            window: of this window alone, as a part of all.
        """
        points = [
            (removed, (sum(found) if window is None else found[window]) / size * (1 - given_back))
            for removed, found in self.losses
        ]
        return CostCurve(self.name, tuple(points), self.most)


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
    removed: int,
    texts: Sequence[Pair],
) -> Steps:
    """The loss on each window with `removed` tokens left out. A text of a domain is judged on tokens that
    were chosen on the others, where there are others: tokens are needed or not by what a text is about, and
    the model will read more than its calibration text."""
    whole = torch.stack(list(scores.values())).sum(dim=0)
    subsets: dict[int, VocabularySubset] = {}

    def losses() -> Iterator[float]:
        for pair in current().share(texts):
            if pair.domain not in subsets:
                known = whole - scores[pair.domain] if len(scores) > 1 and pair.domain in scores else whole
                kept = vocabulary.keep(known, vocabulary.rows - removed)
                subsets[pair.domain] = VocabularySubset(vocabulary, kept)
            yield from nats_without(model, subsets[pair.domain], [pair.clean.ids])

    return (yield from _gathered(losses(), len(texts)))


def without_units(
    model: PreTrainedModel,
    sites: Sequence[Site],
    units: Mapping[int, torch.Tensor],
    texts: Sequence[Pair],
) -> Steps:
    """The loss on each window with units masked; with none of them, that of the dense model."""

    def losses() -> Iterator[float]:
        for pair in current().share(texts):
            with masked(model, sites, units):
                found = sum(nats(model, [pair.clean.ids]))
            yield found

    return (yield from _gathered(losses(), len(texts)))


def _gathered(losses: Iterator[float], texts: int) -> Steps:
    """The losses of all processes, each of which has those of its share of the texts, in an order that is
    always the same; says after each how many are done."""
    found, group = [], current()
    for loss in losses:
        found.append(loss)
        yield min(len(found) * group.size, texts)
    return [loss for part in group.gather(found) for loss in part]


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
