"""The runs that were chosen to compare, as changes of the page. No gradio."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from ..runs.queue import RunQueue
from ..runs.store import TABLES
from . import comparison
from .answers import show_errors
from .fields import Changes
from .shown import as_file, recipe_of

# Components that a choice of runs changes.
COMPARISON = ("picked", "comparison", "summary", "compare_csv")


def compared_runs(queue: RunQueue, ids: Sequence[str]) -> list[comparison.Compared]:
    """The chosen runs as they are now. Those that cannot be read are left out."""
    names = {i.id: i.name for i in queue.named(ids or ())}
    found: list[comparison.Compared] = []
    used: dict[str, int] = {}
    for run_id in ids or []:
        if run_id not in names or (recipe := recipe_of(queue, run_id)) is None:
            continue
        name = names[run_id]
        used[name] = used.get(name, 0) + 1
        # Two runs of one name are numbered.
        unique = name if used[name] == 1 else f"{name} ({used[name]})"
        found.append(comparison.Compared(unique, recipe, *queue.summary(run_id)))
    return found


@show_errors
def show_comparison(queue: RunQueue, ids: Sequence[str]) -> Changes:
    """The chosen runs on one chart and in one table."""
    found = compared_runs(queue, ids)
    measured = [c for c in found if c.summary.dense is not None]
    changes: Changes = {
        "picked": {"value": list(ids or ())},
        "comparison": {"value": {"charts": comparison.charts(found)}},
        "summary": {"value": comparison.summary(found)},
        "compare_csv": {"visible": False},
    }
    if measured:
        table = comparison.as_csv(measured)
        folder = queue.root / TABLES / hashlib.sha256(table.encode()).hexdigest()[:24]
        with suppress(OSError):  # then there is no table to download
            folder.mkdir(parents=True, exist_ok=True)
        changes["compare_csv"] = as_file(folder, table, "compared.csv")
    return changes
