"""The runs of a browser: each in a few words for the menu, and all of them as a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from ..budget.aims import stated_target
from ..core.figures import percent
from ..runs.gallery import examples
from ..runs.index import RunInfo
from ..runs.queue import RunQueue
from .html import empty, millions, press, table

LONGEST_LABEL = 48
COLUMNS = ("run", "started", "model", "method", "target", "state", "kept above guessing", "size")
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


def runs_table(listed: Sequence[RunInfo], shown: str = "", thrown: Sequence[tuple[str, str]] = ()) -> str:
    """Every run as a row whose name opens it, with what its owner can do with it.

    Args:
        shown: id of the run that the page shows.
        thrown: (id, name) of runs that were deleted a moment ago.
    """
    back = "".join(
        f"<p class='line thrown' role='status'>“{escape(name)}” is deleted. "
        f"{press('restore', run_id, 'Undo', f'Undo deleting {name}')}</p>"
        for run_id, name in thrown
    )
    if not listed:
        return back + empty("Your runs appear here. Press Prune to start the first.")
    rows = [_row(info, shown) for info in listed]
    return back + table([*COLUMNS, "actions"], rows, "Runs of this browser", "runs-table cards")


def _row(info: RunInfo, shown: str) -> list[str]:
    recipe = info.recipe
    current = " aria-current='true'" if info.id == shown else ""
    note = f"<small class='note'>{escape(info.note)}</small>" if info.note else ""
    size = (
        f"{millions(info.dense_parameters)} → {millions(info.parameters)}" if info.dense_parameters else "–"
    )
    cells = [
        when(info.created),
        escape(recipe.model.rstrip("/").rsplit("/", 1)[-1]) if recipe else "–",
        escape(recipe.method) if recipe else "–",
        escape(stated_target(recipe)) if recipe else "–",
        escape(state_words(info)),
        "–" if info.kept is None else percent(info.kept, 0),
        size,
    ]
    name = escape(info.name)
    return [
        f"<a href='?run={info.id}'{current}>{name}</a>{note}",
        *cells,
        f"<td class='acts'>{_presses(info)}</td>",
    ]


def _presses(info: RunInfo) -> str:
    made = [press("share", info.id, "Share", f"Share {info.name}")]
    if info.state != "newer":
        texts = f" data-name='{escape(info.name, quote=True)}' data-note='{escape(info.note, quote=True)}'"
        made.append(press("edit", info.id, "Edit", f"Edit {info.name}", texts))
    if info.state not in ("starting", "running", "stopping"):
        texts = f" data-name='{escape(info.name, quote=True)}'"
        made.append(press("delete", info.id, "Delete", f"Delete {info.name}", texts))
    return "".join(made)


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
