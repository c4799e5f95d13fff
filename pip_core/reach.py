"""What a method can do of what a recipe asks, as far as that is known before anything is scored."""

from __future__ import annotations

import math
from collections.abc import Set

from .allocate import Goal, Loose, goal_of, offered
from .anatomy import Anatomy
from .errors import UserError
from .recipe import Recipe
from .scorers import Scorer, needs_domains
from .shape import Shape
from .sites import sites_of
from .texts import parts
from .views import window_counts


def goal_for(recipe: Recipe, anatomy: Anatomy, scorer: Scorer, undone: Set[Loose] = frozenset()) -> Goal:
    """What `recipe` will remove by a method; arguments as for `goal_of`.

    Raises:
        UserError: as `goal_of`; or units the method is not defined for, too few calibration domains,
            or a target that cannot be met without the blocks it never touches.
    """
    strange = [kind for kind in recipe.units if kind not in scorer.kinds]
    if strange:
        raise UserError(
            f"The method '{scorer.name}' is not defined for {', '.join(strange)}: choose "
            f"{', '.join(scorer.kinds)}, or another method."
        )
    counts = window_counts([share for _, share in parts(recipe.calibration)], recipe.windows)
    if sum(count > 0 for count in counts) < scorer.domains:
        raise UserError(needs_domains(scorer))
    goal = goal_of(recipe, anatomy, undone)
    protected = scorer.protects(len(anatomy.blocks))
    sites = offered(recipe, sites_of(anatomy, Shape.dense(anatomy), recipe.units), undone)
    free = sum(s.cost * s.size for s in sites if s.block not in protected or s.block in recipe.drop)
    if protected and goal.share * anatomy.parameters > free + 0.5:
        raise UserError(
            f"A target of {recipe.target * 100:g} % is out of reach: the method '{scorer.name}' never takes "
            f"anything from blocks {', '.join(map(str, sorted(protected)))}. Choose at most "
            f"{math.floor(free / anatomy.parameters * 100)} %, or another method."
        )
    return goal
