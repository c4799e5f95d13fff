"""The stages of a run, in their order. **A new stage goes here**: one file, one line below.

A stage of another package joins the list by an entry point of the group `pip_studio.stages`, or by the
environment variable `PIP_STUDIO_STAGES` (`module:Class`, separated by commas); it says after which it comes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from ...core.errors import UserError
from ...core.events import Event
from ...core.recipe import Recipe
from ...core.registry import Part, set_source
from ...reporting.description import Description
from ..stage import Stage
from .aim import Aim
from .divide import Divide
from .export import Export
from .load import Load
from .measure import Measure, MeasureFinished
from .prune import Prune
from .prune_vocabulary import PruneVocabulary
from .read_texts import ReadTexts
from .recover import Recover
from .refit import Refit
from .sample import Sample
from .speed import Speed
from .verify import Verify

USUAL: tuple[type[Stage], ...] = (
    Load,
    ReadTexts,
    Measure,
    Aim,
    Divide,
    Prune,
    PruneVocabulary,
    Refit,
    Recover,
    Export,
    MeasureFinished,
    Sample,
    Verify,
    Speed,
)
GROUP = "pip_studio.stages"
VARIABLE = "PIP_STUDIO_STAGES"


def stage_types() -> tuple[type[Stage], ...]:
    """Every stage there is, those of other packages in their places."""
    return _with_added(os.environ.get(VARIABLE, ""))


def stages_for(recipe: Recipe) -> list[Stage]:
    """The stages of a run by this recipe, also those it does not ask for."""
    return [kind(recipe) for kind in stage_types()]


def repeatable() -> list[type[Stage]]:
    """Stages that a run whose removals are made can do, or do anew with other settings."""
    return [kind for kind in stage_types() if kind.switched_on]


def describe(result: Event) -> Description:
    """A stage's result in words."""
    for kind in stage_types():
        if kind.Result is type(result):
            return kind.describe(result)
    return Description(result.sentence())


@cache
def _with_added(named: str) -> tuple[type[Stage], ...]:
    found = list(USUAL)
    for kind in (*_installed(), *_named(named)):
        places = [i for i, other in enumerate(found) if other.name == kind.after]
        if not places:
            raise UserError(f"The stage '{kind.name}' is to follow '{kind.after}', which is no stage.")
        found.insert(places[0] + 1, kind)
    for kind in found:
        if kind.Result is not None:
            kind.Result.result_of = kind.name
            kind.Result.superseded_by_undo = bool(kind.invalidated_by)
    return tuple(found)


def _installed() -> list[type[Stage]]:
    """Stages that installed packages bring."""
    found = []
    for point in entry_points(group=GROUP):
        try:
            found.append(point.load())
        except Exception as error:  # whatever the package's own code raises on import
            raise UserError(
                f"The stage '{point.name}' of the package that brings it ({point.value}) cannot be imported: "
                f"{error}. Upgrade that package, or uninstall it."
            ) from error
    return found


def _named(names: str) -> list[type[Stage]]:
    found = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        module, _, attribute = name.partition(":")
        try:
            found.append(getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as error:
            raise UserError(f"{VARIABLE} names a stage that cannot be imported: {name} ({error}).") from None
    return found


def _parts() -> Sequence[Part]:
    return [Part(kind.name, kind.title, kind.Settings) for kind in stage_types()]


set_source(_parts)
