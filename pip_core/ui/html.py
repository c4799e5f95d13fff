"""Small pieces of HTML that the page's parts share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from ..core.public_text import public

# A reference or a path that nobody reads to its end.
LONG_WORD = re.compile(r"\S{161,}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, name: str = "") -> str:
    """A table whose first column names the rows.

    Args:
        head: plain texts.
        rows: cells as HTML; a whole `<td ...>` is used unchanged.
        caption: read to screen readers, and shown above the table.
    """
    heads = "".join(f"<th scope='col'>{escape(text)}</th>" for text in head)
    body = "".join(
        f"<tr><th scope='row'>{first}</th>"
        + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(caption, quote=True)}'>"
        f"<table class='{name}'><caption>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def problem(message: str, at: str = "") -> str:
    """An error message, shown beside what caused it.

    Args:
        at: when it came, so that the page can tell it from the same message before.
    """
    return (
        f"<p class='problem' role='alert' data-at='{escape(at, quote=True)}'>{escape(shortened(message))}</p>"
    )


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
