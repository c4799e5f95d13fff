"""The head: the name, the menu of runs, light and dark, help."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.limits import can_sign_in
from .. import labels
from ..fields import fields
from ..layout import LAST, Node, Part, Services, Wire, row, words


def layout(_: Services) -> Sequence[Node]:
    options = {"choices": [("new run", "")], "value": "", "label": "Runs", "show_label": False, "scale": 0}
    signing = {"value": labels.SIGN_IN, "logout_value": "Sign out ({})", "size": "sm", "scale": 0}
    return [
        row(
            words(labels.HEAD, elem_id="brand"),
            Node("Dropdown", "runs", (), options),
            *([Node("LoginButton", "sign_in", (), signing)] if can_sign_in() else []),
            words(labels.DARK + labels.HELP, elem_id="tools"),
            elem_id="head",
            equal_height=True,
        )
    ]


def wires(page: Services) -> Sequence[Wire]:
    chosen = ("memory", "run", "notice", *fields())
    return [
        Wire(("runs.input",), page.handlers.choose, ("memory", "runs"), chosen, refreshes=True, options=LAST)
    ]


PART = Part("head", layout, wires)
