"""From a recipe to a pruning budget: how many units of which kind to remove, in how many iterations."""

from __future__ import annotations

from collections.abc import Set

from ..core.errors import UserError
from ..core.recipe import EQUAL, EVERY_KIND, GLOBAL, Recipe
from ..core.settings import MEASURED
from ..core.units import BLOCKS, DEPTH, WIDTH
from ..data.corpora import parts
from ..data.windows import window_counts
from ..scoring import Scorer, needs_domains
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from ..structure.sites import UnitId, sites_of
from .division import open_budget
from .pruning_budget import PruningBudget
from .targets import floor_percent, target_text, titles, unit_budget, with_vocabulary

# Targets at which it is tried whether kinds can be removed together, when not all can be at every target.
TRIED_TARGETS = (0.2, 0.4, 0.6)


def budget_of(recipe: Recipe, anatomy: Anatomy, pinned_units: Set[UnitId] = frozenset()) -> PruningBudget:
    """What `recipe` will remove from a model of this anatomy, whatever the method.

    Args:
        pinned_units: units whose removal was undone, and which stay. Where the target cannot be met without
            them, the budget is what else can be removed.

    Raises:
        UserError: this model has no such units, they cannot meet the target, the blocks to keep or to drop
            contradict the rest, or the recipe asks for an ordinary checkpoint and none can describe the
            result.
    """
    anatomy.check(recipe.units)
    _check_kept_and_dropped(recipe, anatomy)
    if recipe.vocabulary == MEASURED:
        budget = open_budget(recipe, anatomy, pinned_units)
    else:
        make = with_vocabulary if recipe.vocabulary else unit_budget
        budget = make(recipe, anatomy, pinned_units)
    if budget.uneven and recipe.plain:
        raise UserError(
            f"{budget.uneven} cannot be described by an ordinary checkpoint, which gives every block the "
            f"same sizes. Nearest to it is {_nearest_plain(recipe, anatomy)}. Choose that, or allow a model "
            "that only this project's own loader can load.",
            "plain",
        )
    return budget


def budget_for(
    recipe: Recipe, anatomy: Anatomy, scorer: Scorer, pinned_units: Set[UnitId] = frozenset()
) -> PruningBudget:
    """What `recipe` will remove by a scoring method, as far as that is known before anything is scored.

    Args:
        pinned_units: see `budget_of`.

    Raises:
        UserError: as `budget_of`; or the method cannot score these units, the calibration text has too few
            domains for it, or the target cannot be met without the blocks it never changes.
    """
    if recipe.vocabulary and not scorer.scores_tokens:
        raise UserError(
            f"Rare tokens removed: enter 0, or choose another method: '{scorer.name}' is not defined for "
            "tokens.",
            "vocabulary",
        )
    if unscored := [kind for kind in recipe.units if kind not in scorer.kinds]:
        raise UserError(
            f"The method '{scorer.name}' is not defined for {', '.join(unscored)}: choose "
            f"{', '.join(scorer.kinds)}, or another method."
        )
    if recipe.mixed and recipe.allocation == GLOBAL and not scorer.comparable_scores:
        raise UserError(
            f"The method '{scorer.name}' scores blocks and parts of blocks on scales of their own, so they "
            f"cannot be ranked together. Choose '{EQUAL}' for heads and channels (first blocks, then the "
            "same number of parts from every remaining block), or another method.",
            "allocation",
        )
    budget = budget_of(recipe, anatomy, pinned_units)
    windows = window_counts([share for _, share in parts(recipe.calibration)], recipe.windows)
    if sum(count > 0 for count in windows) < scorer.domains:
        raise UserError(needs_domains(scorer))
    protected = scorer.protects(len(anatomy.blocks))
    sites = sites_of(anatomy, Shape.dense(anatomy), recipe.units)
    free = sum(s.cost * s.size for s in sites if s.block not in protected)
    if protected and (budget.share - budget.token_share) * anatomy.parameters > free + 0.5:
        raise UserError(
            f"{target_text(recipe)} is out of reach: the method '{scorer.name}' never removes anything from "
            f"blocks {', '.join(map(str, sorted(protected)))}. Choose at most "
            f"{floor_percent(free, anatomy)} %, or another method."
        )
    return budget


def divides(recipe: Recipe) -> bool:
    """Whether it is measured before the first removal which kinds of units the target is made up of."""
    return recipe.vocabulary == MEASURED or bool(recipe.target_speedup)


def joining(recipe: Recipe, anatomy: Anatomy, scorer: Scorer) -> tuple[str, ...]:
    """Kinds of units that may take part in a division beside those of the recipe: what it allows, the method
    is defined for, and this model can lose together with these in an ordinary checkpoint."""
    own = recipe.units
    if recipe.compete != EVERY_KIND or recipe.allocation != EQUAL or recipe.keep or recipe.drop:
        return ()
    if set(own) & set(DEPTH) - {BLOCKS}:
        return ()
    return tuple(
        kind
        for kind in (BLOCKS, *WIDTH)
        if kind not in own
        and kind in scorer.kinds
        and kind not in anatomy.refused
        and not (kind == BLOCKS and recipe.step >= 1)
        and any(_possible(recipe.replace(units=(*own, kind), target=t), anatomy) for t in TRIED_TARGETS)
    )


def _possible(recipe: Recipe, anatomy: Anatomy) -> bool:
    try:
        return not unit_budget(recipe, anatomy).uneven
    except UserError:
        return False


def _check_kept_and_dropped(recipe: Recipe, anatomy: Anatomy) -> None:
    """Check the blocks to keep and to drop, as far as this does not depend on the target."""
    unknown = [b for b in (*recipe.keep, *recipe.drop) if b >= len(anatomy.blocks)]
    if unknown:
        raise UserError(
            f"There is no block {unknown[0]}: the blocks of this model are numbered 0 to "
            f"{len(anatomy.blocks) - 1}."
        )
    if both := sorted(set(recipe.keep) & set(recipe.drop)):
        raise UserError(
            f"Block {both[0]} cannot be kept and dropped at once: remove it from one of the lists."
        )
    if recipe.drop and recipe.units != (BLOCKS,):
        raise UserError(
            f"Drop: only whole blocks can be dropped by their number, and this recipe removes "
            f"{titles(recipe)}. Remove whole blocks alone, or drop none.",
            "drop",
        )


def _nearest_plain(recipe: Recipe, anatomy: Anatomy) -> str:
    """What an ordinary checkpoint at the same target would lose, with the settings that ask for it."""
    ways = [recipe.replace(units=(BLOCKS,), plain=True)]
    if recipe.units[-1] not in DEPTH:
        ways.insert(0, recipe.replace(allocation=EQUAL, plain=True))
    for way in ways:
        try:
            budget = unit_budget(way, anatomy)
            return f"{budget.description} (units: {', '.join(way.units)}; allocation: {EQUAL})"
        except UserError:
            continue
    return "a smaller target"
