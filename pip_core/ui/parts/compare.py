"""Several runs side by side, and all of one's runs; what their owner can do with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...scoring import METHODS
from .. import comparison, labels
from ..compared import COMPARISON, show_comparison
from ..fields import fields
from ..handlers import DELETED, SWEPT
from ..layout import (
    LAST,
    Node,
    Part,
    Services,
    Wire,
    button,
    card,
    column,
    control,
    folding,
    html,
    words,
)

# As many as the runs need.
CHARTS = {
    "html_template": "<div class='plots chart'></div>",
    "js_on_load": "pip.charts(element, props, watch)",
}
# What is pressed in a row of the table, as the browser says it.
ASKED = {
    "html_template": "<span></span>",
    "js_on_load": "pip.ask = asked => { props.value = asked; trigger('submit'); };",
}


def layout(_: Services) -> Sequence[Node]:
    return [
        column(
            control("chosen", "CheckboxGroup", choices=[]),
            html("comparison", {"charts": []}, **CHARTS),
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
        card("Your runs", html("table"), html("asked", {}, **ASKED), words(labels.DIALOGS)),
    ]


def wires(page: Services) -> Sequence[Wire]:
    act, mine = page.handlers, ("memory", "run")
    compared = partial(show_comparison, page.queue)
    return [
        Wire(("chosen.input",), compared, ("chosen",), COMPARISON, refreshes=True, options=LAST),
        Wire(("sweep.click",), act.sweep, ("memory", "methods", *fields()), SWEPT, refreshes=True),
        Wire(("asked.submit",), act.act_on, (*mine, "asked"), DELETED, refreshes=True),
    ]


PART = Part("compare", layout, wires)
