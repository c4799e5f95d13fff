"""The runs of a browser: each in a few words for the menu, and all of them as a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from ..reporting.messages import percent
from ..runs.gallery import examples
from ..runs.index import RunInfo
from ..runs.queue import RunQueue
from .html import empty, millions, table

LONGEST_LABEL = 48
# States whose words on the page are not their names.
WORDS = {"waiting": "queued", "newer": "newer version", "interrupted": "ended unexpectedly"}


def when(seconds: float) -> str:
    """A time in seconds since 1970, as "26 Nov 14:05"."""
    return time.strftime("%-d %b %H:%M", time.localtime(seconds))


def state_words(info: RunInfo) -> str:
    """The state of a run in a word or two: how far it is while it is running."""
    if info.state in ("running", "stopping") and info.planned:
        return f"{info.iterations}/{info.planned}"
    if info.state == "finished" and info.early:
        return f"exported at {info.iterations}/{info.planned}"
    return WORDS.get(info.state, info.state)


def runs_table(listed: Sequence[RunInfo], shown: str = "") -> str:
    """Every run as a row whose name opens it.

    Args:
        shown: id of the run that the page shows.
    """
    if not listed:
        return empty("Your runs appear here. Press Prune to start the first.")
    head = ["run", "started", "model", "method", "target", "state", "kept above chance", "size"]
    return table(head, [_row(info, shown) for info in listed], "Runs of this browser", "runs-table")


def _row(info: RunInfo, shown: str) -> list[str]:
    recipe = info.recipe
    current = " aria-current='true'" if info.id == shown else ""
    size = (
        f"{millions(info.dense_parameters)} → {millions(info.parameters)}" if info.dense_parameters else "–"
    )
    model = recipe.model.rstrip("/").rsplit("/", 1)[-1] if recipe else "–"
    return [
        f"<a href='?run={info.id}'{current}>{escape(info.name)}</a>",
        when(info.created),
        escape(model),
        escape(recipe.method) if recipe else "–",
        percent(recipe.target, 0) if recipe else "–",
        escape(state_words(info)),
        "–" if info.kept is None else percent(info.kept, 0),
        size,
    ]


def menu(queue: RunQueue, listed: Sequence[RunInfo], run_id: str) -> list[tuple[str, str]]:
    """(label, id) of the runs to choose from: `listed`, and `run_id` where somebody shared it."""
    found = [(_label(info), info.id) for info in listed]
    found += [(f"Example: {info.name}", info.id) for info in queue.named(examples())]
    if run_id and run_id not in {known for _, known in found} and queue.folder(run_id) is not None:
        found.insert(0, ("a run that was shared with you", run_id))
    return found


def _label(info: RunInfo) -> str:
    """A run in the list: its name, when it was made, and how far it is."""
    name = info.name if len(info.name) <= LONGEST_LABEL else info.name[: LONGEST_LABEL - 1] + "…"
    return f"{name} · {when(info.created)} · {state_words(info)}"
