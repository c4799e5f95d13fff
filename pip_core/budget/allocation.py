"""From scores and a budget to units: pure functions, no model in sight."""

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
from .budget import PruningBudget

NOTHING_LEFT = (
    "The target cannot be reached by this method: it spares everything that is left. What was removed so "
    "far can be exported as it is; for more choose another method."
)


def complete(
    recipe: Recipe,
    goal: PruningBudget,
    removed: int,
    sites: Sequence[Site],
    undone: Set[UnitId] = frozenset(),
) -> bool:
    """Whether nothing more has to go; arguments as for `choose`."""
    if goal.stages and sites and sites[0].kind == BLOCKS:
        return False
    goal, _, removed = goal.now(sites, 0, removed)
    if goal.counts:
        return all(_gone(site) >= goal.counts.get(site.kind, 0) for site in sites)
    giving = [s for s in sites if s.kind in DEPTH or s.size > 1]
    return all(removed + s.cost / 2 > goal.parameters for s in giving if free_units(s, undone))


def choose(
    recipe: Recipe,
    goal: PruningBudget,
    iteration: int,
    removed: int,
    sites: Sequence[Site],
    scores: Sequence[torch.Tensor],
    undone: Set[UnitId] = frozenset(),
    inf_protects: bool = False,
) -> list[UnitId]:
    """The units to remove in an iteration: `(kind, dense block, dense unit)`; none when all is done.

    Where more or less is gone than is usual by now (the target or the step was changed meanwhile),
    an iteration takes what leads on from there.

    Args:
        iteration: from 1.
        removed: parameters that are gone already.
        sites: those that are `offered`.
        scores: one tensor of shape `(site.size,)` per site; the lowest go.
        undone: units that were taken back, and stay.
        protecting: whether +inf means that a unit must not go, and not that numbers overflowed.

    Raises:
        UserError: a score is not a finite number, or nothing is left that may go.
    """
    check_finite(scores, inf_protects)
    goal, iteration, removed = goal.now(sites, iteration, removed, undone)
    if goal.counts:
        whole = sum(goal.counts.get(s.kind, 0) * s.cost for s in sites)
        for mark in _marks(goal, whole, iteration, removed):
            if chosen := _equal(goal, mark, sites, scores, undone):
                return chosen
        return []
    depth = all(site.kind in DEPTH for site in sites)
    # Blocks that stay in any case are not among the sites.
    blocks = len({s.block for s in sites if s.kind == BLOCKS}) + bool(recipe.keep or undone)
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
        and (site.kind, site.block, site.numbers[unit]) not in undone
        and not (site.kind == BLOCKS and touched(site, undone))
    )
    marks = [goal.iterations] if depth else _marks(goal, goal.parameters, iteration, removed)
    for mark in marks:
        until = goal.parameters * mark / goal.iterations
        each = goal.each if depth else math.inf
        if chosen := _lowest(ranked, sites, removed, until, goal.parameters, each, blocks):
            return chosen
    return []


def nearest_to_largest(chosen: Sequence[UnitId], values: Mapping[UnitId, float]) -> tuple[float, float]:
    """Of the units that go, the score that is nearest to the largest of its kind, and its share of that.

    Args:
        values: score of every unit that is there.
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
    """The first of `ranked`, `most` at most, that bring `removed` as near to `until` as whole units allow."""
    # Where parts of blocks can bring it about, no block leads beyond the target.
    parts = [s.cost for s in sites if s.kind not in DEPTH]
    finest = min(parts) if parts else math.inf
    left = {(s.kind, s.block): s.size for s in sites}
    chosen: list[UnitId] = []
    # What blocks have lost in parts, and which are gone whole.
    lost: Counter[int] = Counter()
    gone: set[int] = set()
    for _, _, unit, cost in ranked:
        if len(chosen) == most:
            break
        kind, block, _ = unit
        # A block keeps its last head and its last channel, a model its last block.
        last = left[kind, block] == 1 if kind not in DEPTH else kind == BLOCKS and blocks == 1
        cost -= lost[block] if kind == BLOCKS else 0
        beyond = kind == BLOCKS and removed + cost - finest / 2 > target
        if last or block in gone or beyond or removed + cost / 2 > until:
            continue
        if kind == BLOCKS:
            blocks -= 1
            gone.add(block)
            chosen = [c for c in chosen if c[1] != block]
        left[kind, block] -= 1
        lost[block] += cost
        chosen.append(unit)
        removed += cost
    return chosen


def _equal(
    goal: PruningBudget, mark: int, sites: Sequence[Site], scores: Sequence[torch.Tensor], undone: Set[UnitId]
) -> list[UnitId]:
    """As many of the lowest from every block as brings it to the share of the counts due at `mark`."""
    chosen: list[UnitId] = []
    for site, found in zip(sites, scores, strict=True):
        due = round(goal.counts.get(site.kind, 0) * mark / goal.iterations) - _gone(site)
        order = [(site.kind, site.block, site.numbers[unit]) for unit in found.argsort(stable=True).tolist()]
        going = [unit for unit in order if unit not in undone][: max(due, 0)]
        if any(found[site.numbers.index(number)] == math.inf for _, _, number in going):
            raise UserError(NOTHING_LEFT)
        chosen += going
    return chosen


def _marks(goal: PruningBudget, whole: float, iteration: int, removed: int) -> range:
    """The iterations of the plan that could come next: the first, unless it has nothing to remove.

    Args:
        whole: parameters that go in all the plan's iterations.
    """
    pace, last = whole / goal.iterations, goal.iterations
    usual = min(iteration, last)
    if not pace / 4 <= pace * usual - removed <= pace * 1.5:
        usual = min(math.ceil(removed / pace + 0.25), last)
    return range(usual, last + 1)


def _gone(site: Site) -> int:
    """Units that a width site has lost."""
    return site.width.size - site.size
