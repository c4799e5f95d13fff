"""From what a recipe aims at to a share of the parameters, as far as its model's config says it."""

from __future__ import annotations

from contextlib import suppress

from ..budget.aims import bytes_of, speedup_of, time_saved
from ..budget.budget import budget_for
from ..checkpoints.load import config_of
from ..core.errors import UserError
from ..core.recipe import Recipe
from ..scoring import get_scorer
from ..structure.anatomy import anatomy_of
from .sizes import sizes_of

# Parts of a guess that are tried where it is out of reach.
SMALLER = (0.5, 0.25, 0.125)


def aimed(recipe: Recipe) -> Recipe:
    """A recipe with the target that its aim comes to. Bytes are a share of the parameters, which takes their
    place. For a speed-up it is a guess, as if all parameters took the same time: the run measures it.

    Raises:
        UserError: the weights take no more than that already, or these bytes hold nothing of them; or as
            `checkpoints.load.config_of` and `structure.anatomy.anatomy_of`.
    """
    if recipe.target_bytes:
        parameters = anatomy_of(config_of(recipe.model)).parameters
        dense = parameters * sizes_of(recipe.model, recipe.dtype).itemsize
        wanted = bytes_of(recipe.target_bytes)
        if wanted >= dense:
            raise UserError(
                f"The weights of this model take {dense / 1e6:,.0f} MB, which is no more than "
                f"{recipe.target_bytes}: enter fewer bytes (target_bytes).",
                "target_bytes",
            )
        if (target := round(1 - wanted / dense, 8)) >= 1:
            raise UserError(
                f"The weights of this model take {dense / 1e6:,.0f} MB, and nothing would be left of it in "
                f"{recipe.target_bytes}: enter more bytes (target_bytes), such as {dense / 2e6:,.0f}MB.",
                "target_bytes",
            )
        return recipe.replace(target=target, target_bytes="")
    if recipe.target_speedup:
        return _guessed(recipe, time_saved(speedup_of(recipe.target_speedup)[1]))
    return recipe


def by_share(recipe: Recipe, target: float) -> Recipe:
    """A recipe whose target is a share of the parameters, and neither bytes nor a speed-up any more."""
    return recipe.replace(target=target, target_bytes="", target_speedup="")


def _guessed(recipe: Recipe, target: float) -> Recipe:
    """A recipe with a target to begin with; a smaller one where that is out of reach, since another kind may
    gain more than its parameters say."""
    anatomy, scorer = anatomy_of(config_of(recipe.model)), get_scorer(recipe.method)
    for part in (1.0, *SMALLER):
        guessed = recipe.replace(target=round(target * part, 8))
        with suppress(UserError):
            budget_for(guessed, anatomy, scorer)
            return guessed
    return recipe.replace(target=round(target, 8))
