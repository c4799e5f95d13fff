"""See the method: what a run's method looked at and what left, as a picture that moves.

Before there is a run it is that of a shipped one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.units import BLOCKS
from ...runs.queue import RunQueue
from ...scoring import get_scorer
from .. import labels
from ..examples import offered
from ..layout import Node, Part, Services, card, drawing, html
from ..method_picture import method_picture
from ..shown import Shown

DRAWN_BY_THE_BROWSER = {
    "html_template": "<div class='method'></div>",
    "js_on_load": "pip.method(element, props, watch)",
}


def layout(page: Services) -> Sequence[Node]:
    return [
        card(
            labels.METHOD,
            html("method_picture", _example(page.queue), **DRAWN_BY_THE_BROWSER),
            name="see_method",
        )
    ]


def _example(queue: RunQueue) -> dict[str, Any]:
    """The picture of a shipped run of whole blocks, by a method that compares two texts."""
    for info in offered(queue):
        summary, recipe = queue.summary(info.id)[0], queue.recipe(info.id)
        if BLOCKS in recipe.units and get_scorer(recipe.method).perturbs:
            return {**method_picture(summary, recipe, None), "of": info.name}
    return {"steps": []}


def _picture(shown: Shown) -> dict[str, Any]:
    if not shown.run_id:
        return _example(shown.queue)
    return {**method_picture(shown.summary, shown.recipe, shown.known_anatomy), "of": ""}


MADE_FROM = ("started", "scored", "removals", "results", "ending")
PART = Part("method", layout, drawings=(drawing("method_picture", MADE_FROM, _picture),))
