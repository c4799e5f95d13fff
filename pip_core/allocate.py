"""From scores and a budget to units: pure functions, no model in sight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from .anatomy import Anatomy
from .errors import UserError
from .recipe import EQUAL, Recipe
from .shape import Shape
from .sites import Site, sites_of
from .units import BLOCKS, DEPTH, HEADS, TITLES

# Of the parameters, per iteration, where width units go and nothing else is asked for.
WIDTH_STEP = 0.05

Loose = tuple[str, int, int]


@dataclass(frozen=True)
class Goal:
    """What a recipe will remove from a model.

    Attributes:
        parameters: to be removed, as asked for.
        share: of all parameters that will go, as near to the target as whole units allow.
        iterations: about how many there will be; exactly so where all units cost the same.
        words: what will go, in words.
        each: depth units to remove per iteration.
        counts: width units to take from every block, per kind, where all give alike.
        uneven: why no plain config can describe the result; empty where one can.
    """

    parameters: float
    share: float
    iterations: int
    words: str
    each: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    uneven: str = ""


def goal_of(recipe: Recipe, anatomy: Anatomy) -> Goal:
    """What `recipe` will remove from a model of this anatomy.

    Raises:
        UserError: units that this model cannot lose, a target that they cannot meet, or a shape
            that no plain config can describe where the recipe asks for a plain one.
    """
    anatomy.check(recipe.units)
    found = _goal(recipe, anatomy)
    if found.uneven and recipe.plain:
        raise UserError(
            f"{found.uneven} cannot be described by an ordinary checkpoint, which gives every block the same "
            f"sizes. Nearest to it is {_nearest_plain(recipe, anatomy)}; or allow a folder that only this "
            "project's own loader can load (plain: false)."
        )
    return found


def choose(
    recipe: Recipe,
    goal: Goal,
    iteration: int,
    removed: int,
    sites: Sequence[Site],
    scores: Sequence[torch.Tensor],
) -> list[Loose]:
    """The units to remove in an iteration: `(kind, dense block, dense unit)`; none when all is done.

    Args:
        iteration: from 1.
        removed: parameters that are gone already.
        scores: one tensor of shape `(site.size,)` per site; the lowest go.

    Raises:
        UserError: a score is not a finite number.
    """
    if not all(bool(s.isfinite().all()) for s in scores):
        raise UserError(
            "The scores are not finite numbers: this model's gradients overflow in the chosen number "
            "format. Choose float32."
        )
    if goal.counts:
        return _equal(recipe, goal, iteration, sites, scores)
    depth = sites[0].kind in DEPTH
    blocks = len({s.block for s in sites if s.kind == BLOCKS})
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
    )
    left = {(s.kind, s.block): s.size for s in sites}
    until = (
        min(goal.parameters, goal.parameters * iteration / goal.iterations) if not depth else goal.parameters
    )
    most = goal.each if depth else math.inf
    chosen: list[Loose] = []
    for _, _, unit, cost in ranked:
        if len(chosen) == most or removed + cost / 2 > until:
            break
        # A block keeps its last head and its last channel, a model its last block.
        if (not depth and left[unit[:2]] == 1) or (unit[0] == BLOCKS and blocks == 1):
            continue
        left[unit[:2]] -= 1
        blocks -= unit[0] == BLOCKS
        chosen.append(unit)
        removed += cost
    return chosen


def _equal(
    recipe: Recipe, goal: Goal, iteration: int, sites: Sequence[Site], scores: Sequence[torch.Tensor]
) -> list[Loose]:
    """As many of the lowest from every block as brings it to this iteration's share of the counts."""
    chosen: list[Loose] = []
    if iteration > goal.iterations:
        return chosen
    for site, found in zip(sites, scores, strict=True):
        wanted = round(goal.counts[site.kind] * iteration / goal.iterations)
        so_far = round(goal.counts[site.kind] * (iteration - 1) / goal.iterations)
        order = found.argsort(stable=True)[: wanted - so_far].tolist()
        chosen += [(site.kind, site.block, site.numbers[unit]) for unit in order]
    return chosen


def _goal(recipe: Recipe, anatomy: Anatomy) -> Goal:
    if recipe.units[0] in DEPTH:
        return _depth_goal(recipe, anatomy)
    if recipe.allocation == EQUAL:
        return _equal_goal(recipe, anatomy)
    return _global_goal(recipe, anatomy)


def _depth_goal(recipe: Recipe, anatomy: Anatomy) -> Goal:
    sites = sites_of(anatomy, Shape.dense(anatomy), recipe.units)
    total = sum(s.cost for s in sites)
    each, wanted = total / len(sites), recipe.target * anatomy.parameters
    count = round(wanted / each)
    most = len(sites) - (recipe.units[0] == BLOCKS)
    title = TITLES[recipe.units[0]] if len(recipe.units) == 1 else "halves"
    one = {"blocks": "block"}.get(title, title.removesuffix("lves") + "lf")
    if wanted > total or count > most:
        raise UserError(
            f"A target of {recipe.target * 100:g} % would leave no {one}: the {title} hold "
            f"{total / anatomy.parameters * 100:.0f} % of the parameters and at least one must stay. "
            f"Choose at most {math.floor(most * each / anatomy.parameters * 100)} %."
        )
    if count < 1:
        least = each / anatomy.parameters * 100
        raise UserError(
            f"A target of {recipe.target * 100:g} % is less than half a {one}: one {one} is "
            f"{least:.1f} % of the parameters. Choose at least {least:.1f} %."
        )
    at_once = recipe.step * anatomy.parameters / each if recipe.step < 1 else recipe.step
    at_once = max(1, round(at_once))
    words = f"{count} of {len(sites)} {title}"
    uneven = "" if recipe.units[0] == BLOCKS else f"A model without {words}"
    share = count * each / anatomy.parameters
    return Goal(wanted, share, math.ceil(count / at_once), words, at_once, uneven=uneven)


def _equal_goal(recipe: Recipe, anatomy: Anatomy) -> Goal:
    sizes, costs = {}, {}
    for kind in recipe.units:
        widths = [b.widths[kind] for b in anatomy.blocks]
        if len({w.size for w in widths}) > 1:
            raise UserError(
                f"The blocks of this model have different numbers of {TITLES[kind]}, so they cannot all lose "
                "as many. Choose the allocation 'global' or whole blocks."
            )
        sizes[kind], costs[kind] = widths[0].size, sum(w.cost for w in widths)
    wanted = recipe.target * anatomy.parameters
    most = sum((sizes[k] - 1) * costs[k] for k in recipe.units)
    _check_reach(recipe, anatomy, wanted, most, min(costs.values()))
    rest, counts = wanted, {}
    # Groups of heads are large: channels make up what whole groups leave of the target.
    for kind in sorted(recipe.units, key=lambda k: k != HEADS):
        last = kind == max(recipe.units, key=lambda k: k != HEADS)
        portion = (
            rest / costs[kind] if last else wanted * sizes[kind] / sum(sizes[k] * costs[k] for k in sizes)
        )
        counts[kind] = min(max(round(portion), 0), sizes[kind] - 1)
        rest -= counts[kind] * costs[kind]
    counts = {kind: n for kind, n in counts.items() if n}
    gone = sum(n * costs[k] for k, n in counts.items())
    if not counts:
        least = min(costs.values()) / anatomy.parameters * 100
        raise UserError(
            f"A target of {recipe.target * 100:g} % is too little: choose at least {least:.2f} %."
        )
    share = gone / anatomy.parameters
    iterations = (
        math.ceil(max(counts.values()) / recipe.step)
        if recipe.step >= 1
        else math.ceil(share / (recipe.step or WIDTH_STEP) - 1e-6)
    )
    words = " and ".join(f"{n:,} of {sizes[k]:,} {TITLES[k]}" for k, n in counts.items()) + " in every block"
    return Goal(wanted, share, iterations, words, counts=counts)


def _global_goal(recipe: Recipe, anatomy: Anatomy) -> Goal:
    sites = sites_of(anatomy, Shape.dense(anatomy), recipe.units)
    wanted = recipe.target * anatomy.parameters
    least = min(s.cost for s in sites)
    _check_reach(recipe, anatomy, wanted, sum((s.size - 1) * s.cost for s in sites), least)
    mean = sum(s.size * s.cost for s in sites) / sum(s.size for s in sites)
    iterations = math.ceil(
        wanted / mean / recipe.step
        if recipe.step >= 1
        else recipe.target / (recipe.step or WIDTH_STEP) - 1e-6
    )
    named = " and ".join(TITLES[k] for k in recipe.units)
    words = f"the {named} that matter least, {recipe.target:.1%} of all parameters"
    return Goal(
        wanted, recipe.target, iterations, words, uneven=f"{named[0].upper()}{named[1:]} ranked globally"
    )


def _check_reach(recipe: Recipe, anatomy: Anatomy, wanted: float, most: int, least: int) -> None:
    named = " and ".join(TITLES[k] for k in recipe.units)
    if wanted > most:
        raise UserError(
            f"A target of {recipe.target * 100:g} % is out of reach: the {named} of this model hold "
            f"{most / anatomy.parameters * 100:.0f} % of its parameters beyond the last of every block. "
            f"Choose at most {math.floor(most / anatomy.parameters * 100)} %, or whole blocks."
        )
    if wanted < least / 2:
        raise UserError(
            f"A target of {recipe.target * 100:g} % is too little: choose at least "
            f"{math.ceil(least / anatomy.parameters * 1e4) / 1e2} %."
        )


def _nearest_plain(recipe: Recipe, anatomy: Anatomy) -> str:
    """The plain shape at the same target, in words that say how to ask for it."""
    ways = [replace(recipe, units=(BLOCKS,), plain=True)]
    if recipe.units[0] not in DEPTH:
        ways.insert(0, replace(recipe, allocation=EQUAL, plain=True))
    for way in ways:
        try:
            return f"{_goal(way, anatomy).words} (units: {', '.join(way.units)}; allocation: {EQUAL})"
        except UserError:
            continue
    return "a smaller target"
