"""The whole page as plain data: where its parts stand, and what keeps them up to date. No gradio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..core.recipe import Recipe
from . import fields, parts, refresh
from .layout import Node, Services, Wire, box, column, row

REFRESH_INPUTS = ("memory", "run", "seen", "picked")
# What the browser does after a refresh, with what it keeps as `m`.
ADDRESS_JS = "m => pip.address(m.run)"
# Before and after the page is opened.
BEGIN_JS = "m => { pip.begin(); pip.arrived(false); return m; }"
OPENED_JS = "m => { if (m.run) pip.fold(); pip.back(); pip.arrived(true); }"


def usual(page: Services) -> dict[str, dict]:
    """Component -> what it is made with for the usual recipe, beside what its part says.

    It is there from the start: a slow preview that came later could replace that of what was entered
    meanwhile. A session makes components anew from what their constructors were given.
    """
    values = fields.to_form(Recipe())
    preview = page.handlers.preview_form("", *(values[name]["value"] for name in fields.fields()))
    return {name: {**values.get(name, {}), **preview.get(name, {})} for name in {**values, **preview}}


def layout(page: Services) -> Sequence[Node]:
    """Every component: first what is kept for a visitor, then what is seen."""

    def nodes(*some) -> list[Node]:
        return [node for part in some for node in part.layout(page)]

    tabs = [
        box("Tab", *nodes(part), label=part.title or part.name.capitalize(), id=part.name)
        for part in parts.TABS
    ]
    return [
        Node("State", "run", (), {"value": ""}),
        Node("State", "picked", (), {"value": ()}),
        Node("JSON", "seen", (), {"value": [], "visible": "hidden"}),
        # The browser keeps the id of its last run, and its secret token.
        Node(
            "BrowserState",
            "memory",
            (),
            {"default_value": {}, "storage_key": "pip-studio", "secret": "pip-studio"},
        ),
        Node("Timer", "timer", (), {"value": refresh.IDLE_SECONDS}),
        *nodes(parts.HEAD),
        row(
            column(*nodes(parts.FORM), scale=0, min_width=360, elem_id="left"),
            column(
                *nodes(*parts.ABOVE),
                box("Tabs", *tabs, name="tabs"),
                scale=9,
                min_width=340,
                elem_id="right",
            ),
            equal_height=False,
            elem_id="columns",
        ),
    ]


def refreshing(page: Services) -> Wire:
    """The refresh of all that changed."""
    # Answered at once, by one request, where gradio's queue needs a request and a stream.
    handler = partial(refresh.refresh, page.queue, read_anatomy=page.handlers.looks.anatomy)
    return Wire(("timer.tick",), handler, REFRESH_INPUTS, refresh.OUTPUTS, options={"queue": False})


def wires(page: Services) -> Sequence[Wire]:
    """Every event but the opening of the page."""
    return [refreshing(page), *(wire for part in parts.PARTS for wire in part.wires(page))]
