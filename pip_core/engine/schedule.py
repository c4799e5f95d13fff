"""The work a run has before it, as its clock counts it: tokens times blocks of the dense model."""

from __future__ import annotations

from collections.abc import Collection

from ..budget.budget import PruningBudget
from ..core.recipe import EVERY, Recipe
from ..core.units import BLOCKS
from ..data.calibration import TOKEN_PAIRS
from ..scoring import Scorer
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from ..structure.sites import sites_of
from .clock import MEASURING, REFITTING, SCORING, Clock
from .refitting import LOOK_PASSES, PASSES


def plan_clock(
    clock: Clock,
    recipe: Recipe,
    scorer: Scorer,
    anatomy: Anatomy,
    goal: PruningBudget,
    done: int,
    prune_on: bool,
    measured: Collection[int],
    final: Collection[int],
    tokens: tuple[int, int, int],
) -> None:
    """Tell the clock the work that is planned, the model growing smaller as it goes.

    Args:
        done: iterations that are decided.
        measured, final: iterations that need not be measured again, before what is done at the end and after.
        tokens: what one measurement reads, and the refit, and what looks ahead to it; 0 where none is to be
            made.
    """
    planned = max(goal.iterations, done) if prune_on else done
    whole = goal.of_blocks(anatomy)

    def depth(iteration: int) -> float:
        return len(anatomy.blocks) * max(0.0, 1 - whole * iteration / goal.iterations)

    sites = len(sites_of(anatomy, Shape.dense(anatomy), recipe.units))
    clock.planned[SCORING] = sum(
        scoring_work(recipe, scorer, depth(i), sites) + looking_work(recipe, scorer, depth(i), tokens[2])
        for i in range(max(done, goal.asked), planned)
    )
    ending = bool(tokens[1] or goal.tokens)
    every = range(done, planned + 1) if recipe.measure == EVERY else () if ending else (planned,)
    again = {i for i in (0, *every) if i not in measured}
    clock.planned[MEASURING] = sum(tokens[0] * depth(i) for i in again)
    if ending:
        clock.planned[MEASURING] += tokens[0] * depth(planned) * (planned not in final)
        clock.planned[REFITTING] = tokens[1] * PASSES * depth(planned)
    if goal.tokens:
        clock.planned[SCORING] += token_work(recipe, scorer, depth(planned))


def scoring_work(recipe: Recipe, scorer: Scorer, depth: float, sites: int) -> float:
    return recipe.windows * recipe.window_tokens * scorer.cost(sites) * depth


def looking_work(recipe: Recipe, scorer: Scorer, depth: float, tokens: int) -> float:
    """What finding the substitutes of all blocks takes, where a method looks ahead to a refit."""
    return tokens * LOOK_PASSES * depth * looks_ahead(recipe, scorer)


def looks_ahead(recipe: Recipe, scorer: Scorer) -> bool:
    """Whether blocks are scored by what a refit could not give back."""
    return recipe.refit and scorer.accounts_for_refit and BLOCKS in recipe.units


def token_work(recipe: Recipe, scorer: Scorer, depth: float) -> float:
    return TOKEN_PAIRS * recipe.windows * recipe.window_tokens * scorer.token_cost() * depth
