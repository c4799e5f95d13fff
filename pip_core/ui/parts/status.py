"""What a run is doing, and the buttons that steer it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .. import labels, status
from ..fields import Changes
from ..layout import Node, Part, Services, Wire, button, drawing, html, row
from ..shown import LIVE, NOTHING, RESUMABLE, Shown

OFFERED = tuple(name for name, _ in labels.ACTIONS)


def layout(_: Services) -> Sequence[Node]:
    actions = [
        button(name, label, variant="primary" if name == "resume" else "secondary", visible=False)
        for name, label in labels.ACTIONS
    ]
    return [
        row(
            html("status", status.status(NOTHING, "none")),
            row(*actions, elem_id="controls"),
            elem_id="status-row",
            equal_height=True,
        ),
        html("notice"),
        html("latest_message"),
    ]


def wires(page: Services) -> Sequence[Wire]:
    changing = ("memory", "run"), ("notice",)
    return [
        Wire((f"{action}.click",), partial(page.handlers.act, action), *changing, refreshes=True)
        for action in OFFERED
    ]


def offer(shown: Shown) -> Changes:
    """The buttons that change a run are shown to whoever may change it, where it can be."""
    summary, state = shown.summary, shown.state
    running, settled = shown.may_change and state in LIVE, state != "stopping"
    done = summary.exported is not None and summary.exported.iterations == len(summary.removals)
    halted = state in (*RESUMABLE, "damaged") or summary.early
    return {
        "stop": {"visible": running, "interactive": settled},
        "pause": {"visible": running, "interactive": settled},
        "resume": {"visible": shown.may_change and shown.changeable and halted},
        "undo": {"visible": shown.steerable and settled},
        "export_now": {"visible": shown.steerable and not done and settled},
    }


LATEST = drawing("latest_message", ("steps",), lambda shown: status.latest_message(shown.summary))
PART = Part("status", layout, wires, (LATEST,), OFFERED, offer)
