"""From a target to what will go: how many units of which kind, in how many iterations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from ..core.errors import UserError
from ..core.recipe import EQUAL, GLOBAL, Recipe
from ..core.units import BLOCKS, DEPTH, HEADS, TITLES, WIDTH, format_count
from ..data.corpora import parts
from ..data.windows import window_counts
from ..scoring import Scorer, needs_domains
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from ..structure.sites import Site, UnitId, free_units, sites_of, touched
from ..structure.vocabulary import MULTIPLE

# Of the parameters, per iteration, where width units go and nothing else is asked for.
WIDTH_STEP = 0.05
# Of the vocabulary, at most this share goes: what is rarer than the middle token is rare.
MOST_TOKENS = 0.5


@dataclass(frozen=True)
class PruningBudget:
    """What a recipe will remove from a model.

    Attributes:
        parameters: to be removed, as asked for.
        share: of all parameters that will go, as near to the target as whole units allow.
        iterations: about how many there will be; exactly so where all units cost the same.
        words: what will go, in words.
        count: depth units that go.
        forced: how many of the iterations remove a block that the recipe names, unscored; they come first.
        each: depth units to remove per iteration after those.
        counts: width units to take from every block, per kind, where all give alike.
        uneven: why no plain config can describe the result; empty where one can.
        tokens: of the vocabulary that go at the end, and `token_share` what they are of all parameters.
        stages: of a mix, the goal of its blocks and that of the width units after them; else empty.
        blocks: of a mix, how many the dense model has.
    """

    parameters: float
    share: float
    iterations: int
    words: str
    count: int = 0
    forced: int = 0
    each: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    uneven: str = ""
    tokens: int = 0
    token_share: float = 0.0
    stages: tuple[PruningBudget, ...] = ()
    blocks: int = 0

    def of_blocks(self, anatomy: Anatomy) -> float:
        """The share of its blocks' parameters that a model of this anatomy loses."""
        inside = anatomy.parameters - anatomy.embedding_parameters
        return (self.share - self.token_share) * anatomy.parameters / inside

    def now(
        self, sites: Sequence[Site], iteration: int, removed: int, undone: Set[UnitId] = frozenset()
    ) -> tuple[PruningBudget, int, int]:
        """The goal that counts where these sites are offered, and iteration and removed parameters by it."""
        if not self.stages or not sites:
            return self, iteration, removed
        first, then = self.stages
        whole = round(self.parameters - then.parameters)
        if sites[0].kind != BLOCKS:
            return then, iteration - first.iterations, removed - whole
        # After another target was set, blocks may go that have lost some of their units already.
        gone = self.blocks - len(sites) - sum(kind == BLOCKS for kind, _, _ in undone)
        each = min(first.each, first.count - gone)
        return replace(first, each=each), iteration, gone * whole // first.count


def budget_of(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId] = frozenset()) -> PruningBudget:
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
    found = _with_tokens(recipe, anatomy, undone) if recipe.vocabulary else _goal(recipe, anatomy, undone)
    if found.uneven and recipe.plain:
        raise UserError(
            f"{found.uneven} cannot be described by an ordinary checkpoint, which gives every block the same "
            f"sizes. Nearest to it is {_nearest_plain(recipe, anatomy)}; or allow a folder that only this "
            "project's own loader can load (plain: false)."
        )
    return found


def budget_for(
    recipe: Recipe, anatomy: Anatomy, scorer: Scorer, undone: Set[UnitId] = frozenset()
) -> PruningBudget:
    """What `recipe` will remove by a method, as far as can be known before anything is scored.

    Raises:
        UserError: as `budget_of`; or units the method is not defined for, too few calibration domains,
            or a target that cannot be met without the blocks it never touches.
    """
    strange = [kind for kind in recipe.units if kind not in scorer.kinds]
    if strange:
        raise UserError(
            f"The method '{scorer.name}' is not defined for {', '.join(strange)}: choose "
            f"{', '.join(scorer.kinds)}, or another method."
        )
    if recipe.mixed and recipe.allocation == GLOBAL and not scorer.comparable_scores:
        raise UserError(
            f"The method '{scorer.name}' scores blocks and parts of blocks on scales of their own, so they "
            f"cannot be ranked with one another. Choose the allocation '{EQUAL}' (blocks go, then as many "
            "from every block left), or another method."
        )
    goal = budget_of(recipe, anatomy, undone)
    counts = window_counts([share for _, share in parts(recipe.calibration)], recipe.windows)
    if sum(count > 0 for count in counts) < scorer.domains:
        raise UserError(needs_domains(scorer))
    protected = scorer.protects(len(anatomy.blocks))
    sites = sites_of(anatomy, Shape.dense(anatomy), recipe.units)
    free = [s.cost * s.size for s in sites if s.block not in protected]
    if recipe.vocabulary and not scorer.scores_tokens:
        raise UserError(
            f"The method '{scorer.name}' is not defined for tokens: set the vocabulary's share to 0, or "
            "choose another method."
        )
    if protected and (goal.share - goal.token_share) * anatomy.parameters > sum(free) + 0.5:
        raise UserError(
            f"A target of {recipe.target * 100:g} % is out of reach: the method '{scorer.name}' never takes "
            f"anything from blocks {', '.join(map(str, sorted(protected)))}. Choose at most "
            f"{math.floor(sum(free) / anatomy.parameters * 100)} %, or another method."
        )
    return goal


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


def _goal(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId] = frozenset()) -> PruningBudget:
    if recipe.mixed and recipe.allocation == EQUAL:
        return _mixed_goal(recipe, anatomy, undone)
    if recipe.units[-1] in DEPTH:
        return _depth_goal(recipe, anatomy, undone)
    if recipe.allocation == EQUAL:
        return _equal_goal(recipe, anatomy, undone)
    return _global_goal(recipe, anatomy, undone)


def _with_tokens(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId]) -> PruningBudget:
    """Units for their part of the target, and as many tokens as then bring it about."""
    rows, cost, whole = anatomy.vocabulary, anatomy.row_parameters, recipe.target * anatomy.parameters
    most = rows * MOST_TOKENS // MULTIPLE * MULTIPLE
    share = min(recipe.vocabulary, most * cost / whole)
    try:
        found = _goal(recipe.replace(target=recipe.target * (1 - share)), anatomy, undone)
    except UserError as error:
        raise UserError(f"Beside the tokens, which are {share:.0%} of the target: {error}") from None
    left = rows - (whole - found.share * anatomy.parameters) / cost
    tokens = rows - max(math.ceil(left / MULTIPLE) * MULTIPLE, math.ceil(rows - most))
    if tokens <= 0:
        raise UserError(
            f"The {found.words} make up {found.share:.1%} of the parameters, so no token is left to go for a "
            f"target of {recipe.target * 100:g} %. Raise the vocabulary's share of it, or set it to 0."
        )
    part = tokens * cost / anatomy.parameters
    words = f"{found.words}, and at the end {tokens:,} of {rows:,} tokens"
    return replace(found, share=found.share + part, words=words, tokens=tokens, token_share=part)


def _mixed_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId]) -> PruningBudget:
    """Blocks for their share of the target, width units in every block that is left for the rest."""
    part, blocks = "blocks", recipe.replace(units=(BLOCKS,), target=recipe.target * recipe.depth_share)
    try:
        first = _depth_goal(blocks, anatomy, frozenset(u for u in undone if u[0] == BLOCKS))
        part = "part after the blocks"
        # All blocks are alike, or the goal of the rest is refused.
        left = replace(anatomy, blocks=anatomy.blocks[first.count :])
        rest = recipe.replace(units=recipe.units[1:], target=max(recipe.target - first.share, 1e-9))
        then = _equal_goal(rest, left, frozenset(u for u in undone if u[0] != BLOCKS))
    except UserError as error:
        raise UserError(f"The {part} of this mix (depth_share {recipe.depth_share:g}): {error}") from None
    return PruningBudget(
        recipe.target * anatomy.parameters,
        first.share + then.share,
        first.iterations + then.iterations,
        f"{first.words}, then {then.words} that is left",
        stages=(first, then),
        blocks=len(anatomy.blocks),
    )


def _depth_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId]) -> PruningBudget:
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
            f"{format_count(len(dropped), BLOCKS)} to drop would exceed a target of "
            f"{recipe.target * 100:g} %, which is {format_count(count, BLOCKS)}. Choose at least "
            f"{math.ceil(sum(dropped) / anatomy.parameters * 100)} %, or drop fewer."
        )
    forced, possible = len(dropped), offered(recipe, every, undone)
    most = len(possible) - (recipe.units[0] == BLOCKS and len(possible) == len(every))
    wanted, count = min(wanted, sum(s.cost for s in possible)), min(max(count, forced), most)
    _check_left(count)
    at_once = recipe.step * anatomy.parameters / each if recipe.step < 1 else recipe.step
    at_once = max(1, round(at_once))
    words = f"{count} of {len(every)} {title}"
    uneven = "" if recipe.units[0] == BLOCKS else f"A model without {words}"
    share = count * each / anatomy.parameters
    words += f" ({forced} as asked)" if forced else ""
    iterations = forced + math.ceil((count - forced) / at_once)
    return PruningBudget(wanted, share, iterations, words, count, forced, at_once, uneven=uneven)


def _equal_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId]) -> PruningBudget:
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
    most = sum(_possible_counts(anatomy, k, sizes[k])[-1] * costs[k] for k in recipe.units)
    _check_reach(recipe, anatomy, wanted, most, min(costs.values()))
    rest, counts = wanted, {}
    # Groups of heads are large: channels make up what whole groups leave of the target.
    for kind in sorted(recipe.units, key=lambda k: k != HEADS):
        last = kind == max(recipe.units, key=lambda k: k != HEADS)
        portion = (
            rest / costs[kind] if last else wanted * sizes[kind] / sum(sizes[k] * costs[k] for k in sizes)
        )
        possible = _possible_counts(anatomy, kind, sizes[kind])
        counts[kind] = min(possible, key=lambda n: (abs(n - portion), n))
        rest -= counts[kind] * costs[kind]
    counts = {kind: n for kind, n in counts.items() if n}
    if not counts:
        least = min(costs.values()) / anatomy.parameters * 100
        raise UserError(
            f"A target of {recipe.target * 100:g} % is too little: choose at least {least:.2f} %."
        )
    for (kind, _), stay in Counter(unit[:2] for unit in undone).items():
        possible = _possible_counts(anatomy, kind, sizes[kind])
        counts[kind] = max(n for n in possible if n <= min(counts.get(kind, 0), sizes[kind] - stay))
    counts = {kind: n for kind, n in counts.items() if n}
    _check_left(len(counts))
    share = sum(n * costs[k] for k, n in counts.items()) / anatomy.parameters
    iterations = (
        math.ceil(max(counts.values()) / recipe.step)
        if recipe.step >= 1
        else math.ceil(share / (recipe.step or WIDTH_STEP) - 1e-6)
    )
    # Something has to go in every iteration.
    iterations = min(iterations, max(counts.values()))
    words = " and ".join(f"{n:,} of {sizes[k]:,} {TITLES[k]}" for k, n in counts.items()) + " in every block"
    return PruningBudget(wanted, share, iterations, words, counts=counts)


def _possible_counts(anatomy: Anatomy, kind: str, size: int) -> Sequence[int]:
    """How many units of a width kind every block may lose so that a plain config can state the rest."""
    if kind == HEADS:
        return [0, *sorted(size - left for left in anatomy.group_counts)]
    return range(size)


def _global_goal(recipe: Recipe, anatomy: Anatomy, undone: Set[UnitId]) -> PruningBudget:
    sites = offered(recipe, sites_of(anatomy, Shape.dense(anatomy), recipe.units))
    if not sites:
        raise UserError("All blocks of this model are to be kept, so nothing can go. Keep fewer.")
    wanted = recipe.target * anatomy.parameters
    width = [s for s in sites if s.kind in WIDTH]
    # Parts of a block can go with it; of the last block all stay.
    whole = [s for s in sites if s.kind == BLOCKS][: len(anatomy.blocks) - 1]
    most = max(sum((s.size - 1) * s.cost for s in width), sum(s.cost for s in whole))
    _check_reach(recipe, anatomy, wanted, most, min(s.cost for s in sites))
    free = sum(min(s.size - 1, free_units(s, undone)) * s.cost for s in width)
    wanted = min(wanted, max(free, sum(s.cost for s in whole if not touched(s, undone))))
    _check_left(wanted)
    share = wanted / anatomy.parameters
    mean = sum(s.size * s.cost for s in width) / sum(s.size for s in width)
    iterations = math.ceil(
        wanted / mean / recipe.step if recipe.step >= 1 else share / (recipe.step or WIDTH_STEP) - 1e-6
    )
    named = " and ".join(TITLES[k] for k in recipe.units)
    words = f"the {named} that matter least, {share:.1%} of all parameters"
    return PruningBudget(
        wanted, share, iterations, words, uneven=f"{named[0].upper()}{named[1:]} ranked globally"
    )


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
    ways = [recipe.replace(units=(BLOCKS,), plain=True)]
    if recipe.units[-1] not in DEPTH:
        ways.insert(0, recipe.replace(allocation=EQUAL, plain=True))
    for way in ways:
        try:
            return f"{_goal(way, anatomy).words} (units: {', '.join(way.units)}; allocation: {EQUAL})"
        except UserError:
            continue
    return "a smaller target"


def offered(recipe: Recipe, sites: Sequence[Site], undone: Set[UnitId] = frozenset()) -> list[Site]:
    """The sites that may lose something: of no block to keep, and not all of them taken back."""
    return [s for s in sites if s.block not in recipe.keep and free_units(s, undone)]


def sites_now(
    recipe: Recipe, goal: PruningBudget, anatomy: Anatomy, shape: Shape, undone: Set[UnitId] = frozenset()
) -> list[Site]:
    """Where something may go next from a model of this shape; of a mix, blocks until enough are gone."""
    kinds = recipe.units
    if goal.stages:
        more = len(anatomy.blocks) - len(shape.layers) < goal.stages[0].count
        kinds = kinds[:1] if more else kinds[1:]
    return offered(recipe, sites_of(anatomy, shape, kinds), undone)
