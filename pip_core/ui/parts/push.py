"""The shown run's model to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.limits import on_space
from .. import pushing
from ..fields import Changes
from ..layout import FOLDED, Node, Part, Services, Wire, button, control, folding, html, row, words
from ..shown import Shown

ABOUT = (
    "<p class='line'>A new repository is private. What is pushed is loaded back from the Hub and compared "
    "before it counts as done; a push that fails takes back what it made.</p>"
)
FIELDS = ("push_repo", "push_token", "push_public", "push_overwrite")


def layout(_: Services) -> Sequence[Node]:
    # Nobody types a token into another's page: there one signs in.
    typed = {"type": "password", "visible": not on_space()}
    return [
        folding(
            "Push to the Hugging Face Hub",
            words(ABOUT),
            control("push_repo", "Textbox", value="", max_lines=1, placeholder="OWNER/NAME"),
            control("push_token", "Textbox", value="", max_lines=1, **typed),
            control("push_public", "Checkbox", value=False),
            control("push_overwrite", "Checkbox", value=False),
            row(
                button("push", "Push", variant="primary"),
                button("push_stop", "Stop pushing"),
            ),
            html("push_state"),
            name="pushing",
            **FOLDED,
        )
    ]


def wires(page: Services) -> Sequence[Wire]:
    push, stop = partial(pushing.push, page.queue), partial(pushing.stop, page.queue)
    shown = ("memory", "run")
    return [
        Wire(("push.click",), push, (*shown, *FIELDS), ("push_state", "push_token"), grows=True),
        Wire(("push_stop.click",), stop, shown, ("push_state",)),
        # Beside the verdict; it leads to the Download tab, see `outcome`.
        Wire(("push_it.click",), partial(dict, pushing={"open": True}), (), ("pushing",)),
    ]


def offer(shown: Shown) -> Changes:
    state = shown.queue.pushes.state((shown.run_id, shown.owner))
    return {
        "pushing": {"visible": pushing.can_push(shown)},
        "push_state": {"value": pushing.words(state) if state else ""},
    }


PART = Part("push", layout, wires, offered=("pushing", "push_state"), offer=offer)
