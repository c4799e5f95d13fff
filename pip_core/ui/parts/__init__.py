"""The parts of the page, a file each, in the order in which they stand. A new one is added here."""

from __future__ import annotations

from . import (
    answers,
    chat,
    compare,
    download,
    form,
    gguf,
    head,
    inspect,
    live,
    method,
    outcome,
    push,
    status,
    tokens,
)

HEAD, FORM = head.PART, form.PART
ABOVE = (status.PART, outcome.PART)
TABS = (live.PART, chat.PART, inspect.PART, compare.PART, download.PART)
# Those that stand in a tab of another: the slider above the charts, the removed tokens, and ways to take a
# model along.
PARTS = (HEAD, FORM, *ABOVE, answers.PART, method.PART, *TABS, gguf.PART, push.PART, tokens.PART)
