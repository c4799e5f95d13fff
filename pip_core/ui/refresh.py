"""The page's refresh: what changed of a run, and of several, since the last refresh. No gradio."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..checkpoints.packing import Packing
from ..core.errors import UserError
from ..core.limits import local_files
from ..core.recipe import Recipe
from ..planning.estimate import anatomy_for
from ..reporting.run_summary import RunSummary
from ..reporting.theme import sendable
from ..runs import worker
from ..runs.files import EVENTS, MODEL, RECIPE, write
from ..runs.index import RunInfo
from ..runs.queue import RunQueue
from ..runs.store import TABLES
from ..runs.worker import UNREADABLE
from . import comparison, curves, download, form, heatmap, inspection, stage_curves, status, verdict
from .fields import Changes
from .html import problem
from .runs_table import runs_table, state_words, when

LIVE = ("waiting", "starting", "running", "stopping")
RESUMABLE = ("stopped", "paused", "interrupted", "failed")
# Components that a refresh changes.
OUTPUTS = (
    *("status", "timer", "seen", "runs", "chosen", "picked", "onward", "upto", "notice"),
    *("stop", "pause", "resume", "undo", "export_now", "get", "try_it", "repeats", "extend"),
    *("banner", "table", "own", "sure"),
    *(
        "heatmap",
        "curves",
        "stage_curves",
        "stage_card",
        "tiles",
        "log",
        "latest_message",
        "measurements",
        "scores",
        "tasks",
        "maps",
    ),
    *("verdict", "load", "command", "zip", "recipe", "events", "csv", "scores_csv", "card"),
    *("comparison", "summary", "compare_csv"),
)
# Those that a choice of runs to compare changes.
COMPARISON = ("picked", "comparison", "summary", "compare_csv")
LONGEST_LABEL = 48
# Seconds between two refreshes: while something runs, and otherwise, in case another tab starts something.
BUSY_SECONDS, IDLE_SECONDS = 2.0, 10.0
# Downloads that a run may offer.
FILES = ("zip", "recipe", "events", "csv", "scores_csv", "card")


def as_file(folder: Path, text: str, name: str) -> str:
    """The path of a file that holds `text`, in a folder that is deleted together with what it is about."""
    path = folder / name
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, text)
    return str(path)


def show_errors(handler: Callable[..., Changes]) -> Callable[..., Changes]:
    """A handler whose errors for the user are shown on the page."""

    @functools.wraps(handler)
    def safe(*arguments, **named) -> Changes:
        try:
            return handler(*arguments, **named)
        except UserError as error:
            return {"notice": {"value": problem(str(error), str(time.monotonic()))}}

    return safe


def menu(queue: RunQueue, listed: Sequence[RunInfo], run_id: str) -> list[tuple[str, str]]:
    """(label, id) of the runs to choose from: `listed`, and `run_id` where somebody shared it."""
    found = [(_label(info), info.id) for info in listed]
    if run_id and run_id not in {i.id for i in listed} and queue.folder(run_id) is not None:
        found.insert(0, ("a run that was shared with you", run_id))
    return found


@show_errors
def refresh(queue: RunQueue, memory: dict, run_id: str, seen: list, picked: Sequence[str]) -> Changes:
    """What changed since the last refresh; the rest of the page is left alone.

    Args:
        seen: what the last refresh sent, as the browser gives it back. It is kept there and not here: of two
            refreshes under way at once the one that arrives last is what is drawn, and what is known.
        picked: ids of the runs that are compared.
    """
    owner = (memory or {}).get("owner", "")
    listed = queue.listed(owner)
    changes: Changes = {}
    summary, state = queue.summary(run_id)
    folder = queue.folder(run_id)
    reason = worker.why_interrupted(folder) if folder and state == "interrupted" else None
    line = status.status(summary, state, reason, queue.place(run_id) if state == "waiting" else None)
    present = [i for i in picked or () if queue.folder(i)]
    packing = _packing(queue, run_id, summary, state)
    busy = state in LIVE or any(i.state in LIVE for i in listed)
    busy = busy or (packing is not None and not packing.ready and not packing.error)
    choices = menu(queue, listed, run_id)
    packed = download.packing_words(packing) if packing else ""
    drawn_for = [run_id, summary.steps, state, choices, _versions(queue, present), busy, line, packed]
    now = json.loads(json.dumps(drawn_for))
    nothing = ["", -1, "", [], [], None, "", "", {}]
    *before, drawn = seen if len(seen or ()) == len(nothing) else nothing
    if now == before:
        return changes
    if line != before[6]:
        changes["status"] = {"value": line}
    if busy != before[5]:
        changes["timer"] = {"value": BUSY_SECONDS if busy else IDLE_SECONDS}
    if now[3] != before[3] or now[0] != before[0]:
        changes["runs"] = {"choices": [("new run", ""), *choices], "value": run_id}
        changes["chosen"] = {"choices": choices}
        changes["table"] = {"value": runs_table(listed, run_id)}
        if len(present) < len(picked or ()):  # deleted meanwhile
            changes["chosen"]["value"] = present
            changes["picked"] = {"value": present}
    if now[:3] != before[:3]:
        may = queue.may_change(run_id, owner), queue.owns(run_id, owner)
        changes |= _controls(summary, state, *may, queue.is_changeable(run_id))
        changes["banner"] = {"value": verdict.banner(summary, state)}
        changes |= _files(queue, run_id, summary, state)
    if now[:2] != before[:2]:
        # A score changes the heatmap and not the map, a measurement the curves and not the heatmap.
        charts = _charts(queue, run_id, summary)
        held = {name: _digest(change) for name, change in charts.items()}
        changes |= {name: change for name, change in charts.items() if held[name] != drawn.get(name)}
        drawn = {**drawn, **held}
    if now[:3] != before[:3] or now[7] != before[7]:
        changes["zip"] = _zip(packing)
        if packing is not None and packing.error:
            changes["notice"] = {"value": problem(packing.error)}
    if now[4] != before[4]:
        changes |= show_comparison(queue, present)
    return {**changes, "seen": {"value": [*now, drawn]}}


def _digest(change: dict) -> str:
    return hashlib.sha256(json.dumps(change, sort_keys=True).encode()).hexdigest()[:16]


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
        return Packing(Path(), error=str(error))


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


def _controls(summary: RunSummary, state: str, may_change: bool, owns: bool, changeable: bool) -> Changes:
    """The buttons. Those that change a run are shown to whoever may change it, where it can be."""
    running = may_change and state in LIVE
    some = may_change and changeable and bool(summary.removals)
    done = summary.exported is not None and summary.exported.iterations == len(summary.removals)
    return {
        "stop": {"visible": running, "interactive": state != "stopping"},
        "pause": {"visible": running, "interactive": state != "stopping"},
        "resume": {
            "visible": may_change and changeable and (state in (*RESUMABLE, "damaged") or summary.early)
        },
        "undo": {"visible": some and state != "stopping"},
        "export_now": {"visible": some and not done and state != "stopping"},
        # What is lost is not offered in the brightest colour.
        "get": {
            "visible": state == "finished",
            "variant": "secondary" if verdict.tone(summary) == "bad" else "primary",
        },
        "try_it": {"visible": state == "finished"},
        "extend": {"visible": may_change},
        "own": {"visible": owns},
        "sure": {"visible": False},
        "onward": {"visible": state in ("finished", *RESUMABLE)},
        "upto": {"value": len(summary.removals)},
        "repeats": {"visible": some and state == "finished"},
    }


def _charts(queue: RunQueue, run_id: str, summary: RunSummary) -> Changes:
    recipe = _recipe(queue, run_id)
    keep = recipe.keep if recipe else ()
    changes = {
        "heatmap": {"value": sendable(heatmap.importance_heatmap(summary, keep))},
        "curves": {"value": sendable(curves.cost_curves(summary))},
        "stage_curves": {"value": sendable(stage_curves.stage_curves(summary))},
        "stage_card": {"visible": bool(summary.curves)},
        "tiles": {"value": status.tiles(summary)},
        "log": {"value": status.log(summary)},
        "latest_message": {"value": status.latest_message(summary)},
        "measurements": {"value": curves.measurement_table(summary) + stage_curves.curve_table(summary)},
        "scores": {"value": heatmap.score_table(summary, keep)},
        "tasks": {"value": inspection.tasks(summary)},
    }
    if summary.started is not None:

        def maps() -> str:
            return inspection.maps(summary, anatomy_for(queue.recipe(run_id).model))

        changes["maps"] = {"value": form.checked(maps)}
    return changes


def _files(queue: RunQueue, run_id: str, summary: RunSummary, state: str) -> Changes:
    """The Download tab, but for the packed model."""
    folder = queue.folder(run_id)
    changes: Changes = {name: {"visible": False} for name in FILES if name != "zip"}
    changes |= {"load": {"value": ""}, "command": {"value": ""}}
    changes["verdict"] = {"value": download.verdict(summary)}
    if folder is None:
        return changes
    for name, file in (("recipe", RECIPE), ("events", EVENTS)):
        if (folder / file).is_file():
            changes[name] = {"value": str(folder / file), "visible": True}
    recipe = _recipe(queue, run_id)
    if recipe is None:
        return changes
    changes["verdict"] = {"value": download.verdict(summary, recipe)}
    changes["load"] = {"value": download.snippet(summary)}
    command = download.code("The same run on the command line", download.command_line(recipe))
    if summary.exported is not None and local_files():
        # Elsewhere the folder is none of a visitor's, and a page has no token of theirs to push with.
        command += download.code("Its model to the Hugging Face Hub", download.push_line(folder))
    changes["command"] = {"value": command}
    card = folder / MODEL / "README.md"
    if state == "finished" and card.is_file():
        changes["card"] = {"value": str(card), "visible": True}
    if summary.dense is not None and state not in UNREADABLE:
        measured = comparison.as_csv([comparison.Compared(run_id, recipe, summary, state)])
        scores = as_file(folder, comparison.scores_csv(summary), "scores.csv")
        changes["csv"] = {"value": as_file(folder, measured, "measurements.csv"), "visible": True}
        changes["scores_csv"] = {"value": scores, "visible": bool(summary.scored)}
    return changes


def _recipe(queue: RunQueue, run_id: str) -> Recipe | None:
    """The recipe of a run; None where it cannot be read."""
    try:
        return queue.recipe(run_id)
    except UserError:
        return None


def compared_runs(queue: RunQueue, ids: Sequence[str]) -> list[comparison.Compared]:
    """The chosen runs as they are now. Those that cannot be read are left out."""
    names = {i.id: i.name for i in queue.named(ids or ())}
    found: list[comparison.Compared] = []
    used: dict[str, int] = {}
    for run_id in ids or []:
        if run_id not in names or (recipe := _recipe(queue, run_id)) is None:
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
        "comparison": {"value": sendable(comparison.chart(found))},
        "summary": {"value": comparison.summary(found)},
        "compare_csv": {"visible": bool(measured)},
    }
    if measured:
        table = comparison.as_csv(measured)
        folder = queue.root / TABLES / hashlib.sha256(table.encode()).hexdigest()[:24]
        changes["compare_csv"]["value"] = as_file(folder, table, "compared.csv")
    return changes


def _label(info: RunInfo) -> str:
    """A run in the list: its name, when it was made, and how far it is."""
    name = info.name if len(info.name) <= LONGEST_LABEL else info.name[: LONGEST_LABEL - 1] + "…"
    return f"{name} · {when(info.created)} · {state_words(info)}"
