"""From scores and a budget to the units to remove: pure functions that need no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set

import torch

from ..core.errors import UserError
from ..core.recipe import Recipe
from ..core.units import BLOCKS, DEPTH
from ..data.calibration import check_finite
from ..structure.sites import Site, UnitId, free_units, touched
from .pruning_budget import PruningBudget

NOTHING_LEFT = (
    "This method cannot reach the target: it protects everything that remains. The model can be exported as "
    "it is now; to remove more, choose another method."
)


def complete(
    recipe: Recipe,
    budget: PruningBudget,
    removed: int,
    sites: Sequence[Site],
    pinned_units: Set[UnitId] = frozenset(),
) -> bool:
    """Whether the budget is used up. Arguments as for `choose`."""
    if budget.phases and sites and sites[0].kind == BLOCKS:
        return False
    budget, _, removed = budget.current_phase(sites, 0, removed)
    if budget.width_units:
        return all(_removed_units(site) >= budget.width_units.get(site.kind, 0) for site in sites)
    prunable = [s for s in sites if s.kind in DEPTH or s.size > s.least]
    return all(removed + s.cost / 2 > budget.parameters for s in prunable if free_units(s, pinned_units))


def choose(
    recipe: Recipe,
    budget: PruningBudget,
    iteration: int,
    removed: int,
    sites: Sequence[Site],
    scores: Sequence[torch.Tensor],
    pinned_units: Set[UnitId] = frozenset(),
    inf_protects: bool = False,
) -> list[UnitId]:
    """The units to remove in an iteration, `(kind, dense block, dense unit)`; none if the budget is used up.

    Where more or fewer parameters are removed already than the plan has by this iteration (the target or the
    step was changed meanwhile), the iteration continues from there.

    Args:
        iteration: from 1.
        removed: number of parameters removed so far.
        sites: the sites that may lose units, see `current_sites`.
        scores: one tensor of shape `(site.size,)` per site; the units with the lowest scores are removed.
        pinned_units: units whose removal was undone, and which stay.
        inf_protects: whether a score of +inf means that a unit must stay. Otherwise it means that numbers
            overflowed.

    Raises:
        UserError: a score is not a finite number, or every remaining unit must stay.
    """
    check_finite(scores, inf_protects)
    budget, iteration, removed = budget.current_phase(sites, iteration, removed, pinned_units)
    if budget.width_units:
        whole = sum(budget.width_units.get(s.kind, 0) * s.cost for s in sites)
        for mark in _marks(budget, whole, iteration, removed):
            if chosen := _equal(budget, mark, sites, scores, pinned_units):
                return chosen
        return []
    depth = all(site.kind in DEPTH for site in sites)
    # Blocks that the recipe keeps, or that are pinned, are not among the sites.
    blocks = len({s.block for s in sites if s.kind == BLOCKS}) + bool(recipe.keep or pinned_units)
    middle = (len(sites) - 1) / 2
    ranked = sorted(
        (
            float(value) / (site.cost if recipe.per_parameter else 1),
            abs(place - middle),
            (site.kind, site.block, site.numbers[unit]),
            site.cost,
        )
        for place, (site, found) in enumerate(zip(sites, scores, strict=True))
        for unit, value in enumerate(found.tolist())
        if value != math.inf
        and (site.kind, site.block, site.numbers[unit]) not in pinned_units
        and not (site.kind == BLOCKS and touched(site, pinned_units))
    )
    marks = [budget.iterations] if depth else _marks(budget, budget.parameters, iteration, removed)
    for mark in marks:
        until = budget.parameters * mark / budget.iterations
        most = budget.per_iteration if depth else math.inf
        if chosen := _lowest(ranked, sites, removed, until, budget.parameters, most, blocks):
            return chosen
    return []


def largest_relative_score(chosen: Sequence[UnitId], values: Mapping[UnitId, float]) -> tuple[float, float]:
    """Of the units to remove, the score that is closest to the largest of its kind, and its share of that.

    Args:
        values: the score of every unit that could be removed.
    """
    found = []
    for kind in {unit[0] for unit in chosen}:
        score = max(values[unit] for unit in chosen if unit[0] == kind)
        largest = max(value for unit, value in values.items() if unit[0] == kind)
        found.append((score / largest if largest else 1.0, score))
    share, score = max(found)
    return score, share


def _lowest(
    ranked: Sequence[tuple],
    sites: Sequence[Site],
    removed: int,
    until: float,
    target: float,
    most: float,
    blocks: int,
) -> list[UnitId]:
    """The first of `ranked`, at most `most`, that bring the removed parameters as close to `until` as whole
    units allow.

    Args:
        ranked: (score, distance from the middle, unit, parameters), the next to remove first.
        until, target: number of removed parameters that this iteration, and the whole run, aims at.
        blocks: how many blocks there are that may be removed, and one more where others stay in any case.
    """
    # Where parts of blocks can meet the target, no block may lead beyond it.
    parts = [s.cost for s in sites if s.kind not in DEPTH]
    finest = min(parts) if parts else math.inf
    left = {(s.kind, s.block): s.size - s.least for s in sites}
    chosen: list[UnitId] = []
    # Parameters that blocks lose in parts, and the blocks that are removed whole.
    lost: Counter[int] = Counter()
    whole: set[int] = set()
    for _, _, unit, cost in ranked:
        if len(chosen) == most:
            break
        kind, block, _ = unit
        # A block keeps its last head and its last channel, and as many experts as a token is sent to; a model
        # keeps its last block.
        last = not left[kind, block] if kind not in DEPTH else kind == BLOCKS and blocks == 1
        cost -= lost[block] if kind == BLOCKS else 0
        beyond = kind == BLOCKS and removed + cost - finest / 2 > target
        if last or block in whole or beyond or removed + cost / 2 > until:
            continue
        if kind == BLOCKS:
            blocks -= 1
            whole.add(block)
            chosen = [c for c in chosen if c[1] != block]
        left[kind, block] -= 1
        lost[block] += cost
        chosen.append(unit)
        removed += cost
    return chosen


def _equal(
    budget: PruningBudget,
    mark: int,
    sites: Sequence[Site],
    scores: Sequence[torch.Tensor],
    pinned_units: Set[UnitId],
) -> list[UnitId]:
    """The lowest-scored units of every block, as many as bring it to the number due by iteration `mark`."""
    chosen: list[UnitId] = []
    for site, found in zip(sites, scores, strict=True):
        assert site.width is not None
        each = site.width.portions
        wanted = budget.width_units.get(site.kind, 0) / each
        due = round(wanted * mark / budget.iterations) * each - _removed_units(site)
        named = {n: (site.kind, site.block, number) for n, number in enumerate(site.numbers)}
        free = [n for n in found.argsort(stable=True).tolist() if named[n] not in pinned_units]
        lowest = site.lowest(free, max(due, 0))
        if any(found[n] == math.inf for n in lowest):
            raise UserError(NOTHING_LEFT)
        chosen += [named[n] for n in lowest]
    return chosen


def _marks(budget: PruningBudget, whole: float, iteration: int, removed: int) -> range:
    """The iterations of the plan that could come next: the first, unless it has nothing to remove.

    Args:
        whole: number of parameters that all iterations of the plan remove.
    """
    pace, last = whole / budget.iterations, budget.iterations
    usual = min(iteration, last)
    if not pace / 4 <= pace * usual - removed <= pace * 1.5:
        usual = min(math.ceil(removed / pace + 0.25), last)
    return range(usual, last + 1)


def _removed_units(site: Site) -> int:
    """How many units a width site has lost."""
    assert site.width is not None
    return site.width.size - site.size
