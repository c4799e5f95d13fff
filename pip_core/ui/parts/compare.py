"""Several runs side by side, and all of one's runs; how one is renamed or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...reporting.theme import sendable
from ...scoring import METHODS
from .. import comparison
from ..compared import COMPARISON, show_comparison
from ..fields import Changes, fields
from ..handlers import DELETED, SWEPT
from ..layout import (
    FOLDED,
    LAST,
    Node,
    Part,
    Services,
    Wire,
    button,
    card,
    chart,
    column,
    control,
    folding,
    html,
    row,
)
from ..shown import Shown


def layout(_: Services) -> Sequence[Node]:
    sure = row(
        html("sure_words"),
        button("delete_it", "Delete it", variant="stop"),
        button("keep_it", "Keep it"),
        name="sure",
        visible=False,
    )
    return [
        column(
            control("chosen", "CheckboxGroup", choices=[]),
            chart("comparison", sendable(comparison.chart([]))),
            html("summary", comparison.summary([])),
            button("compare_csv", "Download as CSV", "DownloadButton", visible=False),
            elem_classes="card",
        ),
        folding(
            "Try several methods at once",
            control("methods", "CheckboxGroup", choices=[(m.title, m.name) for m in METHODS]),
            button("sweep", "Run them all"),
            elem_classes="card",
        ),
        card("Your runs", html("table")),
        folding(
            "Rename or delete the shown run",
            row(
                control("name", "Textbox", scale=4),
                button("rename", "Rename"),
                button("delete", "Delete …"),
            ),
            sure,
            name="own",
            **FOLDED,
        ),
    ]


def wires(page: Services) -> Sequence[Wire]:
    act, mine = page.handlers, ("memory", "run")
    compared = partial(show_comparison, page.queue)
    return [
        Wire(("chosen.input",), compared, ("chosen",), COMPARISON, refreshes=True, options=LAST),
        Wire(("sweep.click",), act.sweep, ("memory", "methods", *fields()), SWEPT, refreshes=True),
        Wire(("rename.click",), act.rename, (*mine, "name"), ("seen", "notice"), refreshes=True),
        Wire(("delete.click",), act.ask_delete, mine, ("sure", "sure_words", "notice")),
        Wire(("keep_it.click",), partial(dict, sure={"visible": False}), (), ("sure",)),
        Wire(("delete_it.click",), act.delete, mine, DELETED, refreshes=True),
    ]


def offer(shown: Shown) -> Changes:
    return {"own": {"visible": shown.owns}, "sure": {"visible": False}}


PART = Part("compare", layout, wires, offered=("own", "sure"), offer=offer)
