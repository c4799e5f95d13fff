"""The finished examples, offered where nothing was run yet."""

from __future__ import annotations

from html import escape

from ..core.figures import percent
from ..evaluation.statistics import retained
from ..runs.gallery import examples
from ..runs.index import RunInfo
from ..runs.queue import RunQueue
from .difference_text import above_guessing


def offered(queue: RunQueue) -> list[RunInfo]:
    """The examples that there are."""
    return sorted(queue.named(examples()), key=lambda info: info.name)


def cards(queue: RunQueue) -> str:
    """A link to each, with what came out of it; empty where there is none."""
    items = [_card(queue, info) for info in offered(queue)]
    if not items:
        return ""
    return (
        "<h2 class='title'>Look at a finished run <small>drag through a model as it shrinks</small></h2>"
        f"<div class='examples'>{''.join(items)}</div>"
    )


def _card(queue: RunQueue, info: RunInfo) -> str:
    summary, _ = queue.summary(info.id)
    dense, now = summary.dense, summary.latest
    words = ""
    if dense and now and summary.started:
        kept = retained(dense, now)
        smaller = percent(1 - (summary.parameters or now.parameters) / dense.parameters, 0)
        words = f"{smaller} smaller · keeps {above_guessing(kept)} above guessing"
    model = summary.started.model.rsplit("/", 1)[-1] if summary.started else ""
    return (
        f"<a href='?run={info.id}'><b>{escape(info.name)}</b><span>{escape(model)}</span>"
        f"<span>{escape(words)}</span></a>"
    )
