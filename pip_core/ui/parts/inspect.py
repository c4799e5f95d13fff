"""The dense and the pruned model side by side: their shapes, tasks, scores and speed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...core.timed import timed_in
from ...runs.files import MODEL
from .. import form, heatmap, inspection
from ..fields import Changes
from ..layout import Node, Part, Services, Wire, button, card, drawing, html
from ..shown import NOTHING, Shown
from .tokens import ANSWERED
from .tokens import PART as TOKENS

NO_MAPS = "<p class='empty'>The whole model and what is left of it appear here.</p>"


def layout(page: Services) -> Sequence[Node]:
    return [
        card(
            "The network",
            html("maps", NO_MAPS),
        ),
        card("Task by task", html("tasks", inspection.tasks(NOTHING))),
        *TOKENS.layout(page),
        card("Scores", html("scores", heatmap.score_table(NOTHING))),
        card(
            "Speed and memory",
            html("speed", inspection.speed_of_run(None), **ANSWERED),
            button("measure", "Measure both now", visible=False),
        ),
    ]


def wires(page: Services) -> Sequence[Wire]:
    return [Wire(("measure.click",), page.tools.speeds, ("run",), ("speed",), grows=True)]


def _maps(shown: Shown) -> str:
    if shown.summary.started is None:
        return NO_MAPS
    return form.checked(lambda: inspection.maps(shown.summary, shown.anatomy))


def _scores(shown: Shown) -> str:
    return heatmap.score_table(shown.summary, shown.recipe.keep if shown.recipe else ())


def _speed(shown: Shown) -> str:
    # Names its run, see `ANSWERED`.
    found = inspection.speed_of_run(timed_in(shown.summary.results.values()))
    return f"<div data-run='{escape(shown.run_id, quote=True)}'>{found}</div>"


DRAWINGS = (
    drawing("scores", ("started", "scored", "removals", "undone"), _scores),
    drawing("tasks", ("evaluated", "finals", "removals"), lambda shown: inspection.tasks(shown.summary)),
    drawing("speed", ("results",), _speed),
    drawing("maps", ("started", "removals", "results"), _maps),
)


def offer(shown: Shown) -> Changes:
    return {"measure": {"visible": shown.folder is not None and (shown.folder / MODEL).is_dir()}}


PART = Part("inspect", layout, wires, DRAWINGS, ("measure",), offer)
