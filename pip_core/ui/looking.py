"""Looking at what a visitor names, before a run: what the form's values mean, and whether a run may begin.

Models, texts and tasks that are not shipped are looked at by another process, within limits of time and
memory. No gradio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from ..checkpoints import bundled
from ..checkpoints.load import refuse_unusable
from ..checkpoints.reference import cached_by_checkpoint
from ..core.aside import Aside
from ..core.errors import UserError
from ..core.fork_server import ForkServer
from ..core.limits import GB, limits
from ..core.network import asked_with, asking, asking_token, without_downloads, working_for
from ..core.recipe import DEMO, HELDOUT, MIXED, STORIES_HELDOUT, Recipe
from ..core.settings import AUTO
from ..data.corpora import SHIPPED
from ..engine.run import check_without_downloads
from ..evaluation.tasks import SHIPPED as TASKS_SHIPPED
from ..planning.admission import admitted
from ..planning.estimate import anatomy_for, plan_of, resolve_auto_units
from ..planning.fitting import fitting
from ..runs.operations import Look
from ..structure.anatomy import Anatomy
from . import form
from .fields import Changes, fields, from_form
from .html import empty, problem

Value = TypeVar("Value")
# What is shipped with this program: looking at it takes no time, and holds no surprise.
KNOWN_MODELS = (DEMO, bundled.NAME)
KNOWN_TEXTS = frozenset((AUTO, MIXED, HELDOUT, STORIES_HELDOUT, *SHIPPED, *TASKS_SHIPPED))


class Looks:
    """Looks at recipes for the page: here where all of it is shipped, and in another process otherwise.

    Args:
        server: returns what forks that process, see `Aside`.
    """

    def __init__(self, server: Callable[[], ForkServer | None] = lambda: None) -> None:
        set_ = limits()
        self._aside = Aside(set_.look_seconds, set_.look_gb * GB, (__name__,), server)
        self._anatomy = cached_by_checkpoint(maxsize=32)(self._read_anatomy)

    def preview(self, values: tuple, ranks: Mapping[tuple[str, str], dict[int, int] | None]) -> Changes:
        """What the form's values mean, see `preview`."""
        try:
            recipe = from_form(*values)
        except UserError as error:
            return {"plan": {"value": problem(error)}}
        try:
            return self._looked(recipe, preview, values, ranks)
        except UserError as error:
            return {"model_line": {"value": problem(error)}, "plan": {"value": ""}}

    def importance(self, values: tuple, ranks: Mapping[tuple[str, str], dict[int, int] | None]) -> Changes:
        """What is known of the importance of the blocks to keep and to drop, see `preview`; nothing where
        there are none, or where the form says already what is wrong."""
        try:
            recipe = from_form(*values)
            named = recipe.keep or recipe.drop
            return self._looked(recipe, _importance, recipe, ranks) if named else {}
        except UserError:
            return {}

    def admitted(self, recipe: Recipe, resolve: bool = True) -> Recipe:
        """The recipe of a run that may begin, see `planning.admission.admitted`."""
        return self._looked(recipe, admitted, recipe, resolve)

    def fitting(self, model: str) -> str:
        """Whether a model can be pruned and where it fits, see `planning.fitting`."""
        return self._looked(Recipe(model=model), fitting, model)

    def anatomy(self, model: str) -> Anatomy:
        """See `planning.estimate.anatomy_for`. It is remembered until the checkpoint changes."""
        return self._anatomy(model, asking_token())

    def _read_anatomy(self, model: str, _: str) -> Anatomy:
        return self._looked(Recipe(model=model), anatomy_for, model)

    def at(self, *recipes: Recipe) -> Look:
        """Calls functions that read what these recipes name."""
        unknown = next((recipe for recipe in recipes if not is_known(recipe)), recipes[0])
        return partial(self._looked, unknown)

    def close(self) -> None:
        """End the other process."""
        self._aside.close()

    def _looked(self, recipe: Recipe, look: Callable[..., Value], *arguments: object) -> Value:
        if is_known(recipe):
            return look(*arguments)
        return self._aside.call(_for_visitor, asking(), look, *arguments)


def _for_visitor(token: str | None, look: Callable[..., Value], *arguments: object) -> Value:
    """Look at something with a visitor's token and limits, and keep nothing of what it opens."""
    with asked_with(token), working_for(token or ""):
        return look(*arguments)


def is_known(recipe: Recipe) -> bool:
    """Whether all that a recipe names is shipped with this program."""
    texts = {recipe.calibration, recipe.heldout, *recipe.tasks}
    return recipe.model.partition("@")[0] in KNOWN_MODELS and texts <= KNOWN_TEXTS


def preview(values: tuple, ranks: Mapping[tuple[str, str], dict[int, int] | None]) -> Changes:
    """What the form's values mean, in words and pictures.

    Args:
        ranks: (model, method) of the run that is shown -> the blocks' ranks in its first iteration.
    """
    with without_downloads():
        return _preview(values, ranks)


def _importance(recipe: Recipe, ranks: Mapping[tuple[str, str], dict[int, int] | None]) -> Changes:
    with without_downloads():
        return {"locks": {"value": form.locks_line(recipe, ranks.get((recipe.model, recipe.method)))}}


def _preview(values: tuple, ranks: Mapping[tuple[str, str], dict[int, int] | None]) -> Changes:
    changes: Changes = {}
    recipe, given = from_form(*values), dict(zip(fields(), values, strict=True))
    changes["method_note"] = {"value": form.method_note(recipe.method)}
    try:
        views, unfit = form.two_views(recipe)
    except UserError as error:
        views, unfit = empty("Both texts are shown here as soon as the text can be read."), str(error)
    changes["views"] = {"value": views}
    changes["views_small"] = {"value": views + (problem(unfit) if unfit else "")}
    try:
        refuse_unusable(recipe.model)
        recipe = resolve_auto_units(recipe)
        changes["model_line"] = {"value": form.model_line(recipe)}
        changes["map"] = {"value": form.model_card_part(recipe)}
        choices = form.unit_choices(recipe)
        changes["units"] = {"choices": choices}
        # Where a method or model cannot do what was chosen, the first that it can is chosen.
        if choices and given["units"] not in {value for _, value in choices}:
            changes["units"]["value"] = AUTO
        blocks = [(str(n), str(n)) for n in range(len(anatomy_for(recipe.model).blocks))]
        changes["keep"] = changes["drop"] = {"choices": blocks}
        shown = ranks.get((recipe.model, recipe.method))
        changes["locks"] = {"value": form.locks_line(recipe, shown)}
    except UserError as error:
        changes["model_line"] = {"value": problem(error)}
        changes["plan"] = {"value": "<div class='plan'>&nbsp;</div>"}
        changes["map"] = {"value": empty("The model is drawn here as soon as it is found.")}
        return changes
    try:
        # Nothing is promised of what a run will refuse.
        if unfit:
            raise UserError(unfit)
        context = check_without_downloads(recipe, anatomy=anatomy_for(recipe.model))
        changes["plan"] = {"value": form.plan_line(plan_of(context), recipe)}
    except UserError as error:
        changes["plan"] = {"value": problem(error)}
    return changes
