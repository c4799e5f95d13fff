"""Before a run, the map and the two texts; of a run, charts and log, and how it is continued or branched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...engine import stages
from .. import cost, curves, examples, importance, labels, stage_curves, status
from ..fields import Changes, fields
from ..handlers import NEW_RUN
from ..layout import (
    FOLDED,
    Drawing,
    Node,
    Part,
    Services,
    Wire,
    button,
    card,
    chart,
    column,
    control,
    drawing,
    folding,
    html,
    row,
    words,
)
from ..shown import NOTHING, RESUMABLE, Shown
from .answers import PART as ANSWERS
from .method import PART as METHOD

RUN, IDLE = ("when-run",), "when-idle"


def layout(page: Services) -> Sequence[Node]:
    scores = chart("heatmap", importance.importance(NOTHING))
    cost_chart = chart("curves", cost.cost_curves(NOTHING))
    on_the_way = chart("stage_curves", stage_curves.stage_curves(NOTHING))
    cards = examples.cards(page.queue)
    finished = [column(words(cards), elem_classes=["card", IDLE])] if cards else []
    return [
        *ANSWERS.layout(page),
        row(
            column(html("map"), min_width=330, elem_classes="card"),
            column(html("views"), min_width=330, elem_classes="card"),
            elem_classes=IDLE,
            equal_height=True,
        ),
        row(
            card(
                labels.IMPORTANCE,
                html("marks", importance.legend(NOTHING)),
                scores,
                name="importance",
                min_width=330,
                scale=3,
            ),
            card(labels.COST, cost_chart, min_width=330, scale=2),
            card(labels.STAGE_CURVES, on_the_way, name="stage_card", visible=False, min_width=330, scale=2),
            name="charts",
            elem_classes=RUN,
            equal_height=True,
        ),
        *METHOD.layout(page),
        *finished,
        card("Log", html("log", status.log(NOTHING)), classes=RUN),
        folding(
            "Charts as numbers",
            html("measurements", curves.measurement_table(NOTHING)),
            words("<p class='line'>The score and rank of every block are under Inspect.</p>"),
            elem_classes=["card", *RUN],
        ),
        _onward(),
    ]


def _onward() -> Node:
    again = [button(f"repeat_{kind.name}", f"{kind.title} this run") for kind in stages.repeatable()]
    return folding(
        "Continue or branch",
        words("<p class='line'>All of these use the settings that the form has now.</p>"),
        row(*again, name="repeats", visible=False),
        row(
            button("extend", "Continue this run to the form's target"),
            control("upto", "Number", value=0, min_width=120),
            button("fork", "Branch: a new run with the form's settings"),
        ),
        name="onward",
        **FOLDED,
    )


def wires(page: Services) -> Sequence[Wire]:
    act, mine, names = page.handlers, ("memory", "run"), fields()
    again = [
        Wire(
            (f"repeat_{kind.name}.click",),
            partial(act.repeat, kind.name),
            (*mine, *names),
            ("notice",),
            refreshes=True,
        )
        for kind in stages.repeatable()
    ]
    return [
        Wire(("extend.click",), act.extend, (*mine, "target"), ("notice",), refreshes=True),
        *again,
        Wire(("fork.click",), act.fork, (*mine, "upto", *names), (*NEW_RUN, *names), refreshes=True),
    ]


def _heatmap(shown: Shown) -> dict:
    return importance.importance(shown.summary, _kept(shown), shown.known_anatomy)


def _numbers(shown: Shown) -> str:
    return curves.measurement_table(shown.summary) + stage_curves.curve_table(shown.summary)


def _stage_curves(shown: Shown) -> Changes:
    chart = stage_curves.stage_curves(shown.summary)
    return {"stage_curves": {"value": chart}, "stage_card": {"visible": bool(shown.summary.curves)}}


def _kept(shown: Shown) -> Sequence[int]:
    return shown.recipe.keep if shown.recipe else ()


SCORES, MEASURED = ("started", "scored", "removals", "undone"), ("started", "evaluated", "finals", "removals")
DRAWINGS = (
    drawing("heatmap", (*SCORES, "forked", "ending"), _heatmap),
    drawing("marks", SCORES, lambda shown: importance.legend(shown.summary, _kept(shown))),
    drawing("curves", MEASURED, lambda shown: cost.cost_curves(shown.summary)),
    Drawing(("stage_curves", "stage_card"), ("curves",), _stage_curves),
    drawing("log", ("steps",), lambda shown: status.log(shown.summary)),
    drawing("measurements", (*MEASURED, "results", "curves"), _numbers),
)


def offer(shown: Shown) -> Changes:
    return {
        "onward": {"visible": shown.state in ("finished", *RESUMABLE)},
        "extend": {"visible": shown.may_change},
        "upto": {"value": len(shown.summary.removals)},
        "repeats": {"visible": shown.steerable and shown.state == "finished"},
    }


PART = Part("live", layout, wires, DRAWINGS, ("onward", "extend", "upto", "repeats"), offer)
