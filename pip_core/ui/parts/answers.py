"""The slider: how the model answers, what is left of it and what it can do, from 0 % to the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...engine.stages import describe
from .. import labels
from ..layout import Node, Part, Services, card, drawing, html
from ..shown import Shown
from ..slider import slider

DRAWN_BY_THE_BROWSER = {
    "html_template": "<div class='slider waiting'></div>",
    "js_on_load": "pip.slider(element, props, watch)",
}


def layout(_: Services) -> Sequence[Node]:
    return [card(labels.SLIDER, html("slider", {"points": []}, **DRAWN_BY_THE_BROWSER), classes=["when-run"])]


def _slider(shown: Shown) -> dict[str, Any]:
    summary = shown.summary
    notes = [words for found in summary.results.values() if (words := describe(found).headline)]
    drawn = slider(summary, shown.known_anatomy)
    return {**drawn, "run": shown.run_id, "notes": notes}


MADE_FROM = ("started", "evaluated", "finals", "removals", "samples", "results")
PART = Part("answers", layout, drawings=(drawing("slider", MADE_FROM, _slider),))
