"""Both models in use: they answer one prompt, and predict one text."""

from __future__ import annotations

from collections.abc import Sequence

from .. import chatting, inspection, labels
from ..fields import Changes
from ..html import empty
from ..layout import LAST, Node, Part, Services, Wire, asking, button, card, column, control, html, row
from ..model_tools import prompts_for
from ..shown import Shown

NONE_YET = "Chat with the whole and the pruned model here, as soon as a run has finished."
NOT_SHIPPED = "The weights of this example are not shipped. Press Prune it yourself to make them."
ANSWERS = ("dense-answer", "pruned-answer", "chat-note")


def layout(_: Services) -> Sequence[Node]:
    question = control("prompt", "Textbox", scale=6, value="", max_lines=4)
    text = control("text", "Textbox", scale=6, value=labels.SAMPLE, max_lines=6)
    sides = zip(ANSWERS, chatting.nothing_said(), strict=False)
    return [
        html("no-chat", f"<div class='card'>{empty(NONE_YET)}</div>"),
        column(
            card(
                "Chat with both",
                asking(question, button("ask", "Ask both", variant="primary", scale=1)),
                row(
                    control("suggested", "Radio", choices=[], scale=3, min_width=300),
                    control(
                        "longest", "Radio", choices=list(chatting.LENGTHS), value="64", scale=1, min_width=300
                    ),
                ),
                row(*(html(name, shown) for name, shown in sides), elem_id="both-answers"),
                html("chat-note"),
            ),
            card(
                "Where their predictions differ",
                asking(text, button("differ", "Compare predictions", scale=1)),
                html("places", inspection.disagreements([])),
            ),
            name="chatting",
            visible=False,
        ),
    ]


def wires(page: Services) -> Sequence[Wire]:
    tools = page.tools
    asked, changed = ("run", "prompt", "longest"), ANSWERS

    def offered(shown: str) -> Changes:
        return {"prompt": {"value": shown}} if shown else {}

    return [
        Wire(("ask.click", "prompt.submit"), tools.chat, asked, changed, grows=True),
        Wire(("suggested.input",), offered, ("suggested",), ("prompt",), options=LAST),
        Wire(("differ.click",), tools.predictions, ("run", "text"), ("places",), grows=True),
    ]


def offer(shown: Shown) -> Changes:
    prompts = prompts_for(shown.queue, shown.run_id)
    why = NOT_SHIPPED if shown.example else NONE_YET
    changes: Changes = {
        "no-chat": {"visible": not prompts, "value": f"<div class='card'>{empty(why)}</div>"},
        "chatting": {"visible": bool(prompts)},
    }
    if prompts:
        changes["suggested"] = {"choices": list(prompts), "value": None}
        changes["prompt"] = {"placeholder": prompts[0]}
    return changes


OFFERED = ("no-chat", "chatting", "suggested", "prompt")
PART = Part("chat", layout, wires, offered=OFFERED, offer=offer)
