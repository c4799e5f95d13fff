"""Target -> number of units: one function for each way in which a recipe can remove them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace

from ..core.errors import UserError
from ..core.figures import percent, stated_percent
from ..core.recipe import EQUAL, GLOBAL, Recipe
from ..core.settings import AUTO
from ..core.units import BLOCKS, CHANNELS, DEPTH, EXPERTS, HEADS, TITLES, WIDTH, format_count, in_blocks
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from ..structure.sites import Site, UnitId, free_units, sites_of, touched
from ..structure.vocabulary import MULTIPLE
from .pruning_budget import PruningBudget, prunable_sites

# Share of all parameters that one iteration removes as width units, where the recipe does not say.
WIDTH_STEP = 0.05
# A target is met by all that may go of its units where it is beyond that by so little, as a share of all
# parameters: a division among kinds is made in steps of up to this.
NEAR = 0.0005
# Largest share of the vocabulary that a stated division removes, where the recipe does not say: tokens rarer
# than the median one count as rare.
MOST_TOKENS = 0.5


def kinds_of(recipe: Recipe) -> tuple[str, ...]:
    """The kinds of units that a recipe removes; only tokens where these make up the whole target, whatever
    units it lists."""
    return ("tokens",) if recipe.vocabulary == 1 else recipe.units


def unit_budget(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId] = frozenset()) -> PruningBudget:
    """What will be removed as units, rows of the vocabulary left aside. Arguments as for `budget_of`.

    Raises:
        UserError: the units cannot meet the target.
    """
    if recipe.mixed and recipe.allocation == EQUAL:
        return _blocks_then_width(recipe, anatomy, pinned_units)
    if recipe.units[-1] in DEPTH:
        return _depth_budget(recipe, anatomy, pinned_units)
    if recipe.allocation == EQUAL:
        return _equal_width_budget(recipe, anatomy, pinned_units)
    return _global_budget(recipe, anatomy, pinned_units)


def with_vocabulary(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId]) -> PruningBudget:
    """Units for their part of the target, and as many rows of the vocabulary as meet the rest. Arguments as
    for `budget_of`.

    Raises:
        UserError: the units cannot meet their part, or leave nothing for the vocabulary.
    """
    rows, cost, wanted = anatomy.vocabulary, anatomy.row_parameters, recipe.target * anatomy.parameters
    limit = MOST_TOKENS if recipe.vocabulary_limit == AUTO else recipe.vocabulary_limit
    most = rows * limit // MULTIPLE * MULTIPLE
    share = min(recipe.vocabulary, most * cost / wanted)
    if recipe.vocabulary == 1:
        return _tokens_alone(
            recipe, anatomy, rows - round((rows - wanted / cost) / MULTIPLE) * MULTIPLE, most
        )
    try:
        units = unit_budget(recipe.replace(target=recipe.target * (1 - share)), anatomy, pinned_units)
    except UserError as error:
        raise UserError(f"Beside the tokens, which are {percent(share, 0)} of the target: {error}") from None
    left = rows - (wanted - units.share * anatomy.parameters) / cost
    tokens = rows - max(math.ceil(left / MULTIPLE) * MULTIPLE, math.ceil(rows - most))
    if tokens <= 0:
        raise UserError(
            f"The {units.description} make up {percent(units.share)} of the parameters, which leaves no "
            f"token to remove for a target of {stated_percent(recipe.target)}. Raise the share of rare "
            "tokens, or set it to 0.",
            "vocabulary",
        )
    token_share = tokens * cost / anatomy.parameters
    return replace(
        units,
        share=units.share + token_share,
        description=f"{units.description}, then {tokens:,} of {rows:,} tokens",
        tokens=tokens,
        token_share=token_share,
    )


def _tokens_alone(recipe: Recipe, anatomy: Anatomy, tokens: int, most: float) -> PruningBudget:
    """Rows of the vocabulary and nothing else."""
    rows, each = anatomy.vocabulary, anatomy.row_parameters / anatomy.parameters
    if tokens > most:
        raise UserError(
            f"{target_text(recipe)} is out of reach of tokens alone: at most {most:,.0f} of {rows:,} are "
            f"removed, {percent(most * each)} of the parameters. Choose a smaller target, raise 'Vocabulary "
            "limit', or lower 'Rare tokens removed', so that other parts make up the rest.",
            "vocabulary_limit",
        )
    if tokens <= 0:
        least = math.ceil(MULTIPLE * each * 1e4) / 1e2
        raise UserError(f"{target_text(recipe)} is too little: choose at least {least} %.")
    share = tokens * each
    words = f"{tokens:,} of {rows:,} tokens"
    return PruningBudget(0.0, share, 0, words, tokens=tokens, token_share=share)


def _blocks_then_width(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId]) -> PruningBudget:
    """Blocks for their share of the target, then width units of every remaining block for the rest."""
    if some := [k for k in recipe.units[1:] if any(k not in block.widths for block in anatomy.blocks)]:
        raise UserError(
            f"Some blocks of this model have no {TITLES[some[0]]}, so how many are left after whole blocks "
            f"were removed is not known before. Remove blocks, or {TITLES[some[0]]}, in a run of their own.",
            "units",
        )
    part, blocks = "blocks", recipe.replace(units=(BLOCKS,), target=recipe.target * recipe.depth_share)
    try:
        first = _depth_budget(blocks, anatomy, frozenset(u for u in pinned_units if u[0] == BLOCKS))
        part = "part after the blocks"
        # All blocks are alike, or the budget of the rest is refused; so it does not matter which remain.
        left = replace(anatomy, blocks=anatomy.blocks[first.depth_units :])
        rest = recipe.replace(units=recipe.units[1:], target=max(recipe.target - first.share, 1e-9))
        then = _equal_width_budget(rest, left, frozenset(u for u in pinned_units if u[0] != BLOCKS))
    except UserError as error:
        share = recipe.depth_share if part == "blocks" else 1 - recipe.depth_share
        words = f"The {part} of this mix ({stated_percent(share)} of the target): {error}"
        raise UserError(words, "depth_share") from None
    return PruningBudget(
        recipe.target * anatomy.parameters,
        first.share + then.share,
        first.iterations + then.iterations,
        f"{first.description}, then {then.description} that remains",
        phases=(first, then),
        dense_blocks=len(anatomy.blocks),
    )


def _depth_budget(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId]) -> PruningBudget:
    """Whole blocks or halves of blocks, a fixed number per iteration."""
    every = sites_of(anatomy, Shape.dense(anatomy), recipe.units)
    sites = prunable_sites(recipe, every)
    title = TITLES[recipe.units[0]] if len(recipe.units) == 1 else "halves"
    if not sites:
        raise UserError(f"The recipe keeps all {title} of this model, so nothing can be removed. Keep fewer.")
    total, wanted = sum(s.cost for s in sites), recipe.target * anatomy.parameters
    cost = total / len(sites)
    count, most = round(wanted / cost), _most_depth_units(recipe, sites, every)
    one = {"blocks": "block"}.get(title, title.removesuffix("lves") + "lf")
    held = f"{percent(total / anatomy.parameters, 0)} of the parameters"
    if (wanted > total or count > most) and len(sites) < len(every):
        raise UserError(
            f"{target_text(recipe)} is out of reach: {len(every) - len(sites)} of {len(every)} {title} are "
            f"kept, and the others hold {held}. Choose at most {floor_percent(total, anatomy)} %, or keep "
            "fewer."
        )
    if wanted > total or count > most:
        raise UserError(
            f"{target_text(recipe)} would leave no {one}: the {title} hold {held} and at least one must "
            f"stay. Choose at most {floor_percent(most * cost, anatomy)} %."
        )
    if count < 1:
        least = percent(cost / anatomy.parameters)
        raise UserError(
            f"{target_text(recipe)} is less than half a {one}: one {one} is {least} of the parameters. "
            f"Choose at least {least}."
        )
    dropped = [s.cost for s in every if s.block in recipe.drop and (BLOCKS, s.block, 0) not in pinned_units]
    if dropped and sum(dropped) - min(dropped) / 2 > wanted:
        raise UserError(
            f"{format_count(len(dropped), BLOCKS)} to drop would exceed a target of "
            f"{stated_percent(recipe.target)}, which is {format_count(count, BLOCKS)}. Choose at least "
            f"{math.ceil(sum(dropped) / anatomy.parameters * 100)} %, or drop fewer."
        )
    forced, possible = len(dropped), prunable_sites(recipe, every, pinned_units)
    wanted = min(wanted, sum(s.cost for s in possible))
    count = min(max(count, forced), _most_depth_units(recipe, possible, every))
    _check_any_left(count)
    step = recipe.step * anatomy.parameters / cost if recipe.step < 1 else recipe.step
    per_iteration = max(1, round(step))
    description = f"{count} of {len(every)} {title}"
    return PruningBudget(
        wanted,
        count * cost / anatomy.parameters,
        forced + math.ceil((count - forced) / per_iteration),
        description + (f" ({forced} named in the recipe)" if forced else ""),
        count,
        forced,
        per_iteration,
        uneven="" if recipe.units[0] == BLOCKS else f"A model without {description}",
    )


def _most_depth_units(recipe: Recipe, possible: Sequence[Site], every: Sequence[Site]) -> int:
    """How many depth units may be removed: all that are possible, but never the last block."""
    return len(possible) - (recipe.units[0] == BLOCKS and len(possible) == len(every))


def _equal_width_budget(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId]) -> PruningBudget:
    """The same number of width units from every block."""
    if recipe.keep:
        raise UserError(
            f"Keep: no block can be kept where all lose the same number of {TITLES[recipe.units[0]]}. Remove "
            f"whole blocks, or choose '{GLOBAL}' for heads and channels (only this project's loader will "
            "load the result).",
            "allocation",
        )
    sizes: dict[str, int] = {}
    costs: dict[str, int] = {}
    portions: dict[str, int] = {}
    for kind in recipe.units:
        widths = [b.widths[kind] for b in anatomy.blocks if kind in b.widths]
        if len({w.size for w in widths}) > 1:
            raise UserError(
                f"The blocks of this model have different numbers of {TITLES[kind]}, so they cannot all lose "
                f"the same number. Choose '{GLOBAL}' for heads and channels, or whole blocks.",
                "allocation",
            )
        sizes[kind], costs[kind], portions[kind] = (
            widths[0].size,
            sum(w.cost for w in widths),
            widths[0].portions,
        )
    wanted = recipe.target * anatomy.parameters
    most = sum(_possible_counts(anatomy, k, sizes[k])[-1] * costs[k] for k in recipe.units)
    least = min(costs[kind] * portions[kind] for kind in costs)
    _check_target(recipe, anatomy, wanted, most, least)
    rest, counts = wanted, dict[str, int]()
    # Groups of heads and experts are large: channels meet what whole ones leave of the target.
    order = sorted(recipe.units, key=(HEADS, EXPERTS, CHANNELS).index)
    for kind in order:
        last = kind == order[-1]
        portion = (
            rest / costs[kind] if last else wanted * sizes[kind] / sum(sizes[k] * costs[k] for k in sizes)
        )
        if not last and recipe.head_share != AUTO:
            portion = wanted * recipe.head_share / costs[kind]
        possible = _possible_counts(anatomy, kind, sizes[kind])
        counts[kind] = min(possible, key=lambda n: (abs(n - portion), n))
        rest -= counts[kind] * costs[kind]
    counts = {kind: n for kind, n in counts.items() if n}
    if not counts:
        enough = percent(least / anatomy.parameters, 2)
        raise UserError(f"{target_text(recipe)} is too little: choose at least {enough}.")
    runs = {kind: sizes[kind] // portions[kind] for kind in sizes}
    for (kind, _, _), pinned in Counter((k, b, n // runs[k]) for k, b, n in pinned_units).items():
        possible = _possible_counts(anatomy, kind, sizes[kind])
        free = (runs[kind] - pinned) * portions[kind]
        counts[kind] = max(n for n in possible if n <= min(counts.get(kind, 0), free))
    counts = {kind: n for kind, n in counts.items() if n}
    _check_any_left(len(counts))
    share = sum(n * costs[k] for k, n in counts.items()) / anatomy.parameters
    iterations = (
        math.ceil(max(counts.values()) / recipe.step)
        if recipe.step >= 1
        else math.ceil(share / (recipe.step or WIDTH_STEP) - 1e-6)
    )
    # Every iteration has to remove something.
    iterations = min(iterations, max(n // portions[kind] for kind, n in counts.items()))
    named = " and ".join(f"{n:,} of {sizes[k]:,} {TITLES[k]}" for k, n in counts.items())
    # A mixture may have blocks without experts.
    some = min(sum(kind in block.widths for block in anatomy.blocks) for kind in counts)
    where = in_blocks(some, len(anatomy.blocks))
    return PruningBudget(wanted, share, iterations, f"{named} {where}", width_units=counts)


def _possible_counts(anatomy: Anatomy, kind: str, size: int) -> Sequence[int]:
    """The numbers of width units of a kind that every block may lose so that an ordinary config can state the
    rest, ascending."""
    if kind == HEADS:
        return [0, *sorted(size - left for left in anatomy.group_counts)]
    width = next(block.widths[kind] for block in anatomy.blocks if kind in block.widths)
    return range(0, width.most + 1, width.portions)


def most_of_width(anatomy: Anatomy, kind: str) -> int:
    """Parameters that may go of a width kind where every block loses the same number."""
    widths = [block.widths[kind] for block in anatomy.blocks if kind in block.widths]
    most = min(_possible_counts(anatomy, kind, width.size)[-1] for width in widths)
    return most * sum(width.cost for width in widths)


def _global_budget(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId]) -> PruningBudget:
    """The units with the lowest scores, wherever they are."""
    sites = prunable_sites(recipe, sites_of(anatomy, Shape.dense(anatomy), recipe.units))
    if not sites:
        raise UserError("The recipe keeps all blocks of this model, so nothing can be removed. Keep fewer.")
    wanted = recipe.target * anatomy.parameters
    width = [s for s in sites if s.kind in WIDTH]
    # A removed block takes its parts with it; the last block stays whole.
    whole = [s for s in sites if s.kind == BLOCKS][: len(anatomy.blocks) - 1]
    if any(s.width is not None and s.width.portions > 1 for s in width):
        raise UserError(
            "A token chooses its experts out of groups, and each group must lose as many of them: choose "
            f"'{EQUAL}', the same number from every block.",
            "allocation",
        )
    most = max(sum((s.size - s.least) * s.cost for s in width), sum(s.cost for s in whole))
    _check_target(recipe, anatomy, wanted, most, min(s.cost for s in sites))
    free = sum(min(s.size - s.least, free_units(s, pinned_units)) * s.cost for s in width)
    wanted = min(wanted, max(free, sum(s.cost for s in whole if not touched(s, pinned_units))))
    _check_any_left(wanted)
    share = wanted / anatomy.parameters
    mean = sum(s.size * s.cost for s in width) / sum(s.size for s in width)
    iterations = math.ceil(
        wanted / mean / recipe.step if recipe.step >= 1 else share / (recipe.step or WIDTH_STEP) - 1e-6
    )
    named = titles(recipe)
    return PruningBudget(
        wanted,
        share,
        iterations,
        f"the {named} with the lowest scores",
        uneven=f"A model without the {named} with the lowest scores of all blocks",
    )


def _check_any_left(amount: float) -> None:
    if not amount:
        raise UserError(
            "Nothing can be removed: every unit that could be was put back by an undo, and stays. Start a "
            "new run, or continue with other settings."
        )


def _check_target(recipe: Recipe, anatomy: Anatomy, wanted: float, most: int, least: int) -> None:
    """Check that a number of parameters can be removed: at most `most` or so little more that all of it meets
    the target, and no less than half of `least`."""
    if wanted > most + NEAR * anatomy.parameters:
        kept = " and without what is kept" if recipe.keep else ""
        raise UserError(
            f"{target_text(recipe)} is out of reach: the {titles(recipe)} of this model hold "
            f"{percent(most / anatomy.parameters, 0)} of its parameters beyond what "
            f"every block needs{kept}. Choose at most {floor_percent(most, anatomy)} %, or whole blocks."
        )
    if wanted < least / 2:
        enough = stated_percent(math.ceil(least / anatomy.parameters * 1e4) / 1e4)
        raise UserError(f"{target_text(recipe)} is too little: choose at least {enough}.")


def target_text(recipe: Recipe) -> str:
    """A recipe's target, as messages name it."""
    return f"A target of {stated_percent(recipe.target)}"


def titles(recipe: Recipe) -> str:
    """What a recipe removes, as people read it: "blocks and channels"."""
    return " and ".join(TITLES[kind] for kind in recipe.units)


def floor_percent(parameters: float, anatomy: Anatomy) -> int:
    """A number of parameters in whole percent of all, rounded down."""
    return math.floor(parameters / anatomy.parameters * 100)
