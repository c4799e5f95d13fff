"""What a run came to: the verdict, and figures. Above all charts, in a place that is kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .. import labels, status, verdict
from ..fields import Changes
from ..layout import Node, Part, Services, Wire, button, drawing, html, row
from ..pushing import can_push
from ..shown import NOTHING, Shown


def layout(_: Services) -> Sequence[Node]:
    return [
        row(
            html("banner", verdict.banner(NOTHING, "none")),
            row(
                *(button(name, label, visible=False, variant=_loud(name)) for name, label in labels.TAKE),
                elem_id="take",
            ),
            elem_id="outcome",
            elem_classes=["when-run", "outcome"],
            equal_height=True,
        ),
        html("tiles", status.tiles(NOTHING), elem_classes="when-run"),
    ]


def _loud(name: str) -> str:
    return "primary" if name == "again" else "secondary"


def wires(_: Services) -> Sequence[Wire]:
    return [
        Wire((f"{name}.click",), partial(dict, tabs={"selected": tab}), (), ("tabs",))
        for name, tab in labels.LEADS.items()
    ]


def offer(shown: Shown) -> Changes:
    finished = shown.state == "finished"
    # What is lost is not offered in the brightest colour.
    loud = "secondary" if verdict.tone(shown.summary) == "bad" else "primary"
    return {
        "banner": {"value": verdict.banner(shown.summary, shown.state, shown.run_id)},
        "get": {"visible": finished and not shown.example, "variant": loud},
        "try_it": {"visible": finished and not shown.example},
        "push_it": {"visible": can_push(shown)},
        "again": {"visible": finished and shown.example},
    }


OFFERED = ("banner", *(name for name, _ in labels.TAKE))
MADE_FROM = ("started", "evaluated", "finals", "removals", "results")
TILES = drawing("tiles", MADE_FROM, lambda shown: status.tiles(shown.summary))
PART = Part("outcome", layout, wires, (TILES,), OFFERED, offer)
