"""The dense and the pruned model side by side: their shapes, scores, answers, predictions and speed."""

from __future__ import annotations

from collections.abc import Sequence

from .. import form, heatmap, inspection, labels, model_tools
from ..fields import Changes
from ..layout import Node, Part, Services, Wire, button, card, control, html, row
from ..shown import NOTHING, Shown


def layout(_: Services) -> Sequence[Node]:
    question = {"scale": 6, "value": labels.PROMPT, "max_lines": 4}
    text = {"scale": 6, "value": labels.SAMPLE, "max_lines": 6}
    return [
        card("The network", html("maps", "<p class='empty'>The dense and the pruned model appear here.</p>")),
        card("Task by task", html("tasks", inspection.tasks(NOTHING))),
        card("Scores", html("scores", heatmap.score_table(NOTHING))),
        card(
            "Chat with both",
            row(
                control("prompt", "Textbox", **question),
                button("ask", "Ask both", scale=1),
                equal_height=True,
            ),
            row(*(html(name, shown) for name, shown in model_tools.no_answers().items())),
        ),
        card(
            "Where their predictions differ",
            row(
                control("text", "Textbox", **text),
                button("differ", "Compare predictions", scale=1),
                equal_height=True,
            ),
            html("places", inspection.disagreements([])),
        ),
        card(
            "Speed and memory", html("speed", inspection.speed(None)), button("measure", "Measure both now")
        ),
    ]


def wires(page: Services) -> Sequence[Wire]:
    tools, answers = page.tools, tuple(model_tools.no_answers())
    return [
        Wire(("ask.click", "prompt.submit"), tools.chat, ("run", "prompt"), answers, grows=True),
        Wire(("differ.click",), tools.predictions, ("run", "text"), ("places",), grows=True),
        Wire(("measure.click",), tools.speeds, ("run",), ("speed",), grows=True),
    ]


def draw(shown: Shown) -> Changes:
    summary, recipe = shown.summary, shown.recipe
    changes: Changes = {
        "scores": {"value": heatmap.score_table(summary, recipe.keep if recipe else ())},
        "tasks": {"value": inspection.tasks(summary)},
    }
    if summary.started is not None:
        changes["maps"] = {"value": form.checked(lambda: inspection.maps(summary, shown.anatomy))}
    return changes


PART = Part("inspect", layout, wires, ("scores", "tasks", "maps"), draw)
