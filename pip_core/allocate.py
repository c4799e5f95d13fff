"""From scores and a budget to units: pure functions, no model in sight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import torch

from .anatomy import Anatomy
from .errors import UserError
from .recipe import EQUAL, Recipe
from .shape import Shape
from .sites import Site, sites_of
from .units import BLOCKS, DEPTH, HEADS, TITLES, counted

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
        asked: how many of the iterations remove a block as asked, unscored; they come first.
        each: depth units to remove per iteration after those.
        counts: width units to take from every block, per kind, where all give alike.
        uneven: why no plain config can describe the result; empty where one can.
    """

    parameters: float
    share: float
    iterations: int
    words: str
    asked: int = 0
    each: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    uneven: str = ""


def goal_of(recipe: Recipe, anatomy: Anatomy, undone: Set[Loose] = frozenset()) -> Goal:
    """What `recipe` will remove from a model of this anatomy.

    Args:
        undone: units that were taken back, and stay; where they are in the target's way, the goal is what
            is left to take.

    Raises:
        UserError: units that this model cannot lose, a target that they cannot meet, blocks to keep
            or to drop that contradict the rest, or a shape that no plain config can describe where
            the recipe asks for a plain one.
    """
    anatomy.check(recipe.units)
    _check_named(recipe, anatomy)
    found = _goal(recipe, anatomy, undone)
    if found.uneven and recipe.plain:
        raise UserError(
            f"{found.uneven} cannot be described by an ordinary checkpoint, which gives every block the same "
            f"sizes. Nearest to it is {_nearest_plain(recipe, anatomy)}; or allow a folder that only this "
            "project's own loader can load (plain: false)."
        )
    return found


def offered(recipe: Recipe, sites: Sequence[Site], undone: Set[Loose] = frozenset()) -> list[Site]:
    """The sites that may lose something: of no block to keep, and not all of them taken back."""
    return [s for s in sites if s.block not in recipe.keep and _free(s, undone)]


def complete(
    recipe: Recipe, goal: Goal, removed: int, sites: Sequence[Site], undone: Set[Loose] = frozenset()
) -> bool:
    """Whether nothing more has to go; arguments as for `choose`."""
    if goal.counts:
        return all(_gone(site) >= goal.counts.get(site.kind, 0) for site in sites)
    giving = [s for s in sites if s.kind in DEPTH or s.size > 1]
    return all(removed + s.cost / 2 > goal.parameters for s in giving if _free(s, undone))


def choose(
    recipe: Recipe,
    goal: Goal,
    iteration: int,
    removed: int,
    sites: Sequence[Site],
    scores: Sequence[torch.Tensor],
    undone: Set[Loose] = frozenset(),
) -> list[Loose]:
    """The units to remove in an iteration: `(kind, dense block, dense unit)`; none when all is done.

    Where more or less is gone than is usual by now (the target or the step was changed meanwhile),
    an iteration takes what leads on from there.

    Args:
        iteration: from 1.
        removed: parameters that are gone already.
        sites: those that are `offered`.
        scores: one tensor of shape `(site.size,)` per site; the lowest go.
        undone: units that were taken back, and stay.

    Raises:
        UserError: a score is not a finite number.
    """
    if not all(bool(s.isfinite().all()) for s in scores):
        raise UserError(
            "The scores are not finite numbers: this model's gradients overflow in the chosen number "
            "format. Choose float32."
        )
    if goal.counts:
        whole = sum(goal.counts.get(s.kind, 0) * s.cost for s in sites)
        for mark in _marks(goal, whole, iteration, removed):
            if chosen := _equal(goal, mark, sites, scores, undone):
                return chosen
        return []
    depth = sites[0].kind in DEPTH
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
        if (site.kind, site.block, site.numbers[unit]) not in undone
    )
    marks = [goal.iterations] if depth else _marks(goal, goal.parameters, iteration, removed)
    for mark in marks:
        until = goal.parameters * mark / goal.iterations
        if chosen := _lowest(ranked, sites, removed, until, goal.each if depth else math.inf, blocks):
            return chosen
    return []


def _lowest(
    ranked: Sequence[tuple], sites: Sequence[Site], removed: int, until: float, most: float, blocks: int
) -> list[Loose]:
    """The first of `ranked`, `most` at most, that bring `removed` as near to `until` as whole units allow."""
    left = {(s.kind, s.block): s.size for s in sites}
    chosen: list[Loose] = []
    for _, _, unit, cost in ranked:
        if len(chosen) == most:
            break
        # A block keeps its last head and its last channel, a model its last block.
        last = left[unit[:2]] == 1 if unit[0] not in DEPTH else unit[0] == BLOCKS and blocks == 1
        if last or removed + cost / 2 > until:
            continue
        left[unit[:2]] -= 1
        blocks -= unit[0] == BLOCKS
        chosen.append(unit)
        removed += cost
    return chosen


def _equal(
    goal: Goal, mark: int, sites: Sequence[Site], scores: Sequence[torch.Tensor], undone: Set[Loose]
) -> list[Loose]:
    """As many of the lowest from every block as brings it to the share of the counts due at `mark`."""
    chosen: list[Loose] = []
    for site, found in zip(sites, scores, strict=True):
        due = round(goal.counts.get(site.kind, 0) * mark / goal.iterations) - _gone(site)
        order = [(site.kind, site.block, site.numbers[unit]) for unit in found.argsort(stable=True).tolist()]
        chosen += [unit for unit in order if unit not in undone][: max(due, 0)]
    return chosen


def _marks(goal: Goal, whole: float, iteration: int, removed: int) -> range:
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


def _free(site: Site, undone: Set[Loose]) -> int:
    """How many units of a site may go."""
    return sum((site.kind, site.block, number) not in undone for number in site.numbers)


def _check_named(recipe: Recipe, anatomy: Anatomy) -> None:
    """Blocks to keep and to drop, as far as the target does not matter."""
    unknown = [b for b in (*recipe.keep, *recipe.drop) if b >= len(anatomy.blocks)]
    if unknown:
        raise UserError(
            f"There is no block {unknown[0]}: the blocks of this model are numbered 0 to "
            f"{len(anatomy.blocks) - 1}."
        )
    if both := sorted(set(recipe.keep) & set(recipe.drop)):
        raise UserError(f"Block {both[0]} cannot be kept and dropped at once: take it off one of the lists.")
    if recipe.drop and recipe.units != (BLOCKS,):
        raise UserError(
            f"Only whole blocks can be dropped by their number, and this recipe removes "
            f"{' and '.join(TITLES[k] for k in recipe.units)}: choose the units 'blocks', or drop none."
        )


def _goal(recipe: Recipe, anatomy: Anatomy, undone: Set[Loose] = frozenset()) -> Goal:
    if recipe.units[0] in DEPTH:
        return _depth_goal(recipe, anatomy, undone)
    if recipe.allocation == EQUAL:
        return _equal_goal(recipe, anatomy, undone)
    return _global_goal(recipe, anatomy, undone)


def _depth_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[Loose]) -> Goal:
    every = sites_of(anatomy, Shape.dense(anatomy), recipe.units)
    sites = offered(recipe, every)
    title = TITLES[recipe.units[0]] if len(recipe.units) == 1 else "halves"
    if not sites:
        raise UserError(f"All {title} of this model are to be kept, so nothing can go. Keep fewer.")
    total = sum(s.cost for s in sites)
    each, wanted = total / len(sites), recipe.target * anatomy.parameters
    count = round(wanted / each)
    most = len(sites) - (recipe.units[0] == BLOCKS and len(sites) == len(every))
    one = {"blocks": "block"}.get(title, title.removesuffix("lves") + "lf")
    if (wanted > total or count > most) and len(sites) < len(every):
        raise UserError(
            f"A target of {recipe.target * 100:g} % is out of reach: {len(every) - len(sites)} of "
            f"{len(every)} {title} stay, and the others hold {total / anatomy.parameters * 100:.0f} % of the "
            f"parameters. Choose at most {math.floor(total / anatomy.parameters * 100)} %, or keep fewer."
        )
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
    dropped = [s.cost for s in every if s.block in recipe.drop and (BLOCKS, s.block, 0) not in undone]
    if dropped and sum(dropped) - min(dropped) / 2 > wanted:
        raise UserError(
            f"{counted(len(dropped), BLOCKS)} to drop would exceed a target of {recipe.target * 100:g} %, "
            f"which is {counted(count, BLOCKS)}. Choose at least "
            f"{math.ceil(sum(dropped) / anatomy.parameters * 100)} %, or drop fewer."
        )
    asked, possible = len(dropped), offered(recipe, every, undone)
    most = len(possible) - (recipe.units[0] == BLOCKS and len(possible) == len(every))
    wanted, count = min(wanted, sum(s.cost for s in possible)), min(max(count, asked), most)
    _check_left(count)
    at_once = recipe.step * anatomy.parameters / each if recipe.step < 1 else recipe.step
    at_once = max(1, round(at_once))
    words = f"{count} of {len(every)} {title}"
    uneven = "" if recipe.units[0] == BLOCKS else f"A model without {words}"
    share = count * each / anatomy.parameters
    words += f" ({asked} as asked)" if asked else ""
    iterations = asked + math.ceil((count - asked) / at_once)
    return Goal(wanted, share, iterations, words, asked, at_once, uneven=uneven)


def _equal_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[Loose]) -> Goal:
    if recipe.keep:
        raise UserError(
            f"Blocks cannot be kept whole where all lose as many {TITLES[recipe.units[0]]}: choose the "
            "allocation 'global' with plain: false (only this project's loader will load the result), or "
            "whole blocks."
        )
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
    if not counts:
        least = min(costs.values()) / anatomy.parameters * 100
        raise UserError(
            f"A target of {recipe.target * 100:g} % is too little: choose at least {least:.2f} %."
        )
    for (kind, _), stay in Counter(unit[:2] for unit in undone).items():
        counts[kind] = min(counts.get(kind, 0), sizes[kind] - stay)
    counts = {kind: n for kind, n in counts.items() if n}
    _check_left(len(counts))
    share = sum(n * costs[k] for k, n in counts.items()) / anatomy.parameters
    iterations = (
        math.ceil(max(counts.values()) / recipe.step)
        if recipe.step >= 1
        else math.ceil(share / (recipe.step or WIDTH_STEP) - 1e-6)
    )
    words = " and ".join(f"{n:,} of {sizes[k]:,} {TITLES[k]}" for k, n in counts.items()) + " in every block"
    return Goal(wanted, share, iterations, words, counts=counts)


def _global_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[Loose]) -> Goal:
    sites = offered(recipe, sites_of(anatomy, Shape.dense(anatomy), recipe.units))
    if not sites:
        raise UserError("All blocks of this model are to be kept, so nothing can go. Keep fewer.")
    wanted = recipe.target * anatomy.parameters
    least = min(s.cost for s in sites)
    _check_reach(recipe, anatomy, wanted, sum((s.size - 1) * s.cost for s in sites), least)
    wanted = min(wanted, sum(min(s.size - 1, _free(s, undone)) * s.cost for s in sites))
    _check_left(wanted)
    share = wanted / anatomy.parameters
    mean = sum(s.size * s.cost for s in sites) / sum(s.size for s in sites)
    iterations = math.ceil(
        wanted / mean / recipe.step if recipe.step >= 1 else share / (recipe.step or WIDTH_STEP) - 1e-6
    )
    named = " and ".join(TITLES[k] for k in recipe.units)
    words = f"the {named} that matter least, {share:.1%} of all parameters"
    return Goal(wanted, share, iterations, words, uneven=f"{named[0].upper()}{named[1:]} ranked globally")


def _check_left(amount: float) -> None:
    if not amount:
        raise UserError("All that could go was taken back. Start a new run, or go on with other settings.")


def _check_reach(recipe: Recipe, anatomy: Anatomy, wanted: float, most: int, least: int) -> None:
    named = " and ".join(TITLES[k] for k in recipe.units)
    if wanted > most:
        raise UserError(
            f"A target of {recipe.target * 100:g} % is out of reach: the {named} of this model hold "
            f"{most / anatomy.parameters * 100:.0f} % of its parameters beyond the last of every block"
            f"{' and what is kept' if recipe.keep else ''}. "
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
