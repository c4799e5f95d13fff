"""The removed tokens of the shown run, to look through and search, and a visitor's text without them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

from ...core.errors import UserError
from ...core.token_removal import TokensRemoved, removal_in
from ..fields import Changes
from ..layout import (
    LAST,
    Drawing,
    Node,
    Part,
    Services,
    Wire,
    asking,
    button,
    card,
    column,
    control,
    html,
    row,
)
from ..removed_tokens import list_tokens, measure_text
from ..shown import Shown

# Places of answers, which no late refresh takes away.
ANSWERED = {
    "html_template": "<div class='answered'></div>",
    "js_on_load": "pip.answers(element, props, watch)",
}


def layout(_: Services) -> Sequence[Node]:
    wanted = control("wanted", "Textbox", value="", scale=4, max_lines=1)
    page = control("token_page", "Number", value=1, precision=0, minimum=1, scale=1, min_width=90)
    text = control("lengthened", "Textbox", value="", scale=6, lines=2, max_lines=6)
    return [
        column(
            card(
                "Removed tokens",
                row(
                    wanted,
                    page,
                    button("look", "List tokens", scale=1),
                    equal_height=True,
                    elem_classes="asking",
                ),
                html("token_list", **ANSWERED),
                asking(text, button("lengthen", "How much longer is it now?", scale=1)),
                html("longer", **ANSWERED),
            ),
            name="removed_tokens",
            visible=False,
        )
    ]


def wires(page: Services) -> Sequence[Wire]:
    services, shown = (page.queue, page.handlers.looks), ("token_list", "token_page")
    look = partial(list_tokens, *services)

    def search(run_id: str, wanted: str) -> Changes:
        return look(run_id, wanted, 1)

    return [
        Wire(("look.click", "token_page.submit"), look, ("run", "wanted", "token_page"), shown),
        # Not `input`, which a text field of gradio sends for keys that write a letter, and for no paste.
        Wire(("wanted.change", "wanted.submit"), search, ("run", "wanted"), shown, options=LAST),
        Wire(("lengthen.click",), partial(measure_text, *services), ("run", "lengthened"), ("longer",)),
    ]


def _removal(shown: Shown) -> TokensRemoved | None:
    try:
        return removal_in(shown.summary.results.values())
    except UserError:
        return None


def _before_asking(shown: Shown) -> Changes:
    """What is there before anything was asked. It comes again with another run, and where two refreshes were
    on their way at once; then the browser leaves what was answered meanwhile."""
    removal = _removal(shown)
    line = f"{removal.tokens:,} of {removal.rows:,} tokens were removed." if removal else ""
    run = f"data-run='{escape(shown.run_id, quote=True)}'"
    return {
        "token_list": {"value": f"<p class='line' {run}>{line}</p>"},
        "longer": {"value": f"<p class='line' {run}></p>"},
    }


def offer(shown: Shown) -> Changes:
    return {"removed_tokens": {"visible": _removal(shown) is not None}}


DRAWING = Drawing(("token_list", "longer"), ("results",), _before_asking)
PART = Part("tokens", layout, wires, (DRAWING,), ("removed_tokens",), offer)
