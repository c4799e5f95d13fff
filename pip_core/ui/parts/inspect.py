"""The dense and the pruned model side by side: their shapes, tasks, scores and speed."""

from __future__ import annotations

from collections.abc import Sequence

from ...runs.files import MODEL
from .. import form, heatmap, inspection
from ..fields import Changes
from ..layout import Node, Part, Services, Wire, button, card, html
from ..shown import NOTHING, Shown
from .tokens import PART as TOKENS


def layout(page: Services) -> Sequence[Node]:
    return [
        card(
            "The network",
            html("maps", "<p class='empty'>The whole model and what is left of it appear here.</p>"),
        ),
        card("Task by task", html("tasks", inspection.tasks(NOTHING))),
        *TOKENS.layout(page),
        card("Scores", html("scores", heatmap.score_table(NOTHING))),
        card(
            "Speed and memory",
            html("speed", inspection.speed(None)),
            button("measure", "Measure both now", visible=False),
        ),
    ]


def wires(page: Services) -> Sequence[Wire]:
    return [Wire(("measure.click",), page.tools.speeds, ("run",), ("speed",), grows=True)]


def draw(shown: Shown) -> Changes:
    summary, recipe = shown.summary, shown.recipe
    changes: Changes = {
        "scores": {"value": heatmap.score_table(summary, recipe.keep if recipe else ())},
        "tasks": {"value": inspection.tasks(summary)},
    }
    if summary.started is not None:
        changes["maps"] = {"value": form.checked(lambda: inspection.maps(summary, shown.anatomy))}
    return changes


def offer(shown: Shown) -> Changes:
    return {"measure": {"visible": shown.folder is not None and (shown.folder / MODEL).is_dir()}}


PART = Part("inspect", layout, wires, ("scores", "tasks", "maps"), draw, ("measure",), offer)
