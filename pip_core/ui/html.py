"""Small pieces of HTML that the page's parts share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from ..core.errors import UserError
from ..core.public_text import public
from .fields import field_of

# A reference or a path that nobody reads to its end.
LONG_WORD = re.compile(r"\S{161,}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, name: str = "") -> str:
    """A table whose first column names the rows.

    Args:
        head: plain texts.
        rows: cells as HTML; a whole `<td ...>` may be given.
        caption: read to screen readers, and shown above the table.
        name: classes. Rows of "cards" are cards where there is no room for the table: each cell then says
            what it is.
    """
    heads = "".join(f"<th scope='col'>{escape(text)}</th>" if text else "<td></td>" for text in head)
    body = "".join(
        f"<tr><th scope='row'>{first}</th>{_cells(rest, head[1:] if 'cards' in name else ())}</tr>"
        for first, *rest in rows
    )
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(caption, quote=True)}'>"
        f"<table class='{name}'><caption>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(cells: Sequence[str], labels: Sequence[str]) -> str:
    whole = [cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells]
    named = [f" data-label='{escape(label, quote=True)}'" for label in labels] or [""] * len(whole)
    return "".join(f"<td{name}{cell[3:]}" for name, cell in zip(named, whole, strict=True))


def problem(error: UserError | str, at: str = "", field: str = "") -> str:
    """An error message, shown beside what caused it.

    Args:
        at: when it came, so that the page can tell it from the same message before.
        field: the component that is to be put right, which the page marks; the one of the error's setting
            where it is left out.
    """
    field = field or field_of(getattr(error, "setting", ""))
    about = f"data-at='{escape(at, quote=True)}' data-field='{escape(field, quote=True)}'"
    return f"<p class='problem' role='alert' {about}>{escape(shortened(str(error)))}</p>"


def shortened(message: str) -> str:
    """A message as it is shown: without the middle of what somebody entered as one very long word, and for
    strangers without this machine's folders."""
    return LONG_WORD.sub(lambda word: f"{word.group()[:40]} … {word.group()[-20:]}", public(message))


def empty(text: str) -> str:
    """What a place that is still empty is for."""
    return f"<p class='empty'>{escape(text)}</p>"


def millions(count: float) -> str:
    """A count of parameters in words: 135.0M."""
    if count >= 1e9:
        return f"{count / 1e9:.2f}B"
    return f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count / 1e3:.1f}K"


def duration(seconds: float) -> str:
    """A rough time, in words."""
    if seconds < 50:
        return "under a minute"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def press(act: str, run_id: str, words: str, label: str, more: str = "") -> str:
    """A button whose press the browser answers, see `pip.rows` in `assets/courtesies.js`."""
    return (
        f"<button type='button' class='ghost small' data-act='{act}' data-run='{run_id}' "
        f"aria-label='{escape(label, quote=True)}'{more}>{words}</button>"
    )
