"""Which stages there are, as far as recipe and events need to know: their settings and their events.

`engine.stages` fills this from its list of stages, and with those of plugins. Nothing else writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .settings import Settings


class Part(NamedTuple):
    """What a stage adds to the recipe."""

    stage: str
    title: str
    settings: type[Settings]


_source: list[Callable[[], Sequence[Part]]] = []


def set_source(parts: Callable[[], Sequence[Part]]) -> None:
    """Say where the parts of a recipe are to be asked for."""
    _source[:] = [parts]


def recipe_parts() -> Sequence[Part]:
    """The parts of a recipe, in the order of the stages."""
    if not _source:
        raise RuntimeError("import pip_core.engine before making a recipe: the stages own its settings")
    return _source[0]()
