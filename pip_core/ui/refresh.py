"""The page's refresh: what changed of a run, and of several, since the last refresh. No gradio."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..checkpoints.packing import Packing
from ..core.errors import UserError
from ..core.public_text import public
from ..planning.estimate import anatomy_for
from ..reporting.run_summary import RunSummary
from ..runs import worker
from ..runs.queue import RunQueue
from ..structure.anatomy import Anatomy
from . import download, status
from .answers import show_errors
from .compared import COMPARISON, show_comparison
from .fields import Changes
from .html import problem
from .parts import PARTS
from .runs_table import menu, runs_table
from .shown import LIVE, Shown

DRAWINGS = tuple(one for part in PARTS for one in part.drawings)
# Components that a refresh changes: those of the page as a whole, and those of its parts.
OUTPUTS = (
    *("status", "timer", "seen", "runs", "chosen", "notice", "table", "zip", *COMPARISON),
    *(name for part in PARTS for name in (*part.drawn, *part.offered)),
)
# Those of parts, whose digests the browser keeps in this order.
HELD = tuple(dict.fromkeys(name for part in PARTS for name in (*part.drawn, *part.offered)))
# Seconds between two refreshes: while something runs, and otherwise, in case another tab starts something.
BUSY_SECONDS, IDLE_SECONDS = 2.0, 10.0


@show_errors
def refresh(
    queue: RunQueue,
    memory: dict,
    run_id: str,
    seen: list,
    picked: Sequence[str],
    read_anatomy: Callable[[str], Anatomy] = anatomy_for,
) -> Changes:
    """What changed since the last refresh; the rest of the page is left alone.

    Args:
        seen: what the last refresh sent, as the browser gives it back. It is kept there and not here: of two
            refreshes under way at once the one that arrives last is what is drawn, and what is known.
        picked: ids of the runs that are compared.
        read_anatomy: see `Shown`.
    """
    owner = (memory or {}).get("owner", "")
    listed = queue.listed(owner)
    changes: Changes = {}
    summary, state = queue.summary(run_id)
    shown = Shown(queue, run_id, owner, summary, state, read_anatomy)
    reason = worker.why_interrupted(shown.folder) if shown.folder and state == "interrupted" else None
    line = status.status(summary, state, reason, queue.place(run_id) if state == "waiting" else None)
    present = [i for i in picked or () if queue.folder(i)]
    packing = None if shown.example else _packing(queue, run_id, summary, state)
    busy = state in LIVE or any(i.state in LIVE for i in listed)
    busy = busy or (packing is not None and not packing.ready and not packing.error)
    choices, thrown = menu(queue, listed, run_id), queue.thrown_away(owner)
    rows = runs_table(listed, run_id, thrown)
    busy = busy or bool(thrown)  # the offer to bring it back goes in time
    packed = download.packing_words(packing) if packing else ""
    drawn_for = [
        run_id,
        summary.steps,
        state,
        [choices, _digest({"rows": rows})],
        _versions(queue, present),
        busy,
        line,
        packed,
    ]
    now = json.loads(json.dumps(drawn_for))
    nothing = ["", -1, "", [], [], None, "", "", [], []]
    *before, digests, versions = seen if len(seen or ()) == len(nothing) else nothing
    drawn = dict(zip(HELD, digests, strict=False))
    if now == before:
        return changes
    if line != before[6]:
        changes["status"] = {"value": line}
    if busy != before[5]:
        changes["timer"] = {"value": BUSY_SECONDS if busy else IDLE_SECONDS}
    if now[3] != before[3] or now[0] != before[0]:
        changes["runs"] = {"choices": [("new run", ""), *choices], "value": run_id}
        changes["chosen"] = {"choices": choices}
        changes["table"] = {"value": rows}
        if len(present) < len(picked or ()):  # deleted meanwhile
            changes["chosen"]["value"] = present
            changes["picked"] = {"value": present}
    if now[:3] != before[:3]:
        offered = {name: change for part in PARTS for name, change in part.offer(shown).items()}
        # All of it in another run or state: of what it was before, something may have been pressed.
        same = now[0] == before[0] and now[2] == before[2]
        held = {name: _digest(change) for name, change in offered.items()}
        changes |= {name: offered[name] for name in held if not same or held[name] != drawn.get(name)}
        drawn = {**drawn, **held}
    if now[:2] != before[:2]:
        # A score changes the heatmap and not the map, a measurement the curves and not the heatmap.
        made_from = [summary.version(one.of) for one in DRAWINGS]
        known = versions if now[0] == before[0] and len(versions) == len(DRAWINGS) else [None] * len(DRAWINGS)
        due = [one for one, new, old in zip(DRAWINGS, made_from, known, strict=True) if new != old]
        charts = {name: change for one in due for name, change in one.draw(shown).items()}
        held = {name: _digest(change) for name, change in charts.items()}
        changes |= {name: charts[name] for name in held if held[name] != drawn.get(name)}
        drawn, versions = {**drawn, **held}, made_from
    if now[:3] != before[:3] or now[7] != before[7]:
        changes["zip"] = _zip(packing)
        if packing is not None and packing.error:
            changes["notice"] = {"value": problem(packing.error, str(time.monotonic()))}
    if now[4] != before[4]:
        changes |= show_comparison(queue, present)
    return {**changes, "seen": {"value": [*now, [drawn.get(name, "") for name in HELD], versions]}}


def _digest(change: dict) -> str:
    # Short, because it goes to and fro with every refresh; by chance alike once in a million million times.
    return hashlib.blake2b(json.dumps(change).encode(), digest_size=5).hexdigest()


def _versions(queue: RunQueue, ids: Sequence[str]) -> tuple:
    """What a comparison depends on; it is drawn again where this changes."""
    found = []
    for run_id in ids:
        summary, state = queue.summary(run_id)
        found.append((run_id, summary.steps, state))
    return tuple(found)


def _packing(queue: RunQueue, run_id: str, summary: RunSummary, state: str) -> Packing | None:
    """How far the download of a finished run is; None where there is none."""
    if state != "finished" or summary.exported is None:
        return None
    try:
        return queue.packing(run_id)
    except UserError as error:  # deleted or exported anew at this moment
        return Packing(Path(), error=public(str(error)))


def _zip(packing: Packing | None) -> dict:
    """The download button of the packed model."""
    if packing is None or packing.error:
        return {"visible": False}
    return {
        "visible": True,
        "interactive": packing.ready,
        "label": download.packing_words(packing),
        "value": str(packing.target) if packing.ready else None,
    }
