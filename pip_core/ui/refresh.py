"""One glance at a run, and at several: what changed since the last one is sent. No gradio."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.errors import UserError
from ..planning.estimate import anatomy_for
from ..reporting.run_summary import RunSummary
from ..reporting.theme import sendable
from ..runs import run_directory
from ..runs.index import RunInfo
from ..runs.queue import TABLES, RunQueue
from ..ui import comparison, curves, download, form, heatmap, inspection, status
from .html import problem

# A component's name to the properties it gets, such as `{"stop": {"visible": True}}`.
Changes = dict[str, dict]
LIVE = ("waiting", "starting", "running", "stopping")
AGAIN = ("stopped", "paused", "interrupted", "failed")
LONGEST_LABEL = 48
# Seconds between two glances: while something goes on, and in case another tab starts something.
BUSY_SECONDS, IDLE_SECONDS = 2.0, 10.0


def as_file(folder: Path, text: str, name: str) -> str:
    """The path of a file that holds `text`, in a folder that lives and goes with what it tells of."""
    path = folder / name
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        run_directory.write(path, text)
    return str(path)


def show_errors(handler: Callable[..., Changes]) -> Callable[..., Changes]:
    """A handler whose refusals are put where the user looks."""

    @functools.wraps(handler)
    def safe(*arguments, **named) -> Changes:
        try:
            return handler(*arguments, **named)
        except UserError as error:
            return {"notice": {"value": problem(str(error))}}

    return safe


def menu(studio: RunQueue, listed: Sequence[RunInfo], run_id: str) -> list[tuple[str, str]]:
    """(label, id) of the runs there are to look at: `listed`, and `run_id` where somebody shared it."""
    found = [(_label(i.name, i.state, i.iterations, i.planned), i.id) for i in listed]
    if run_id and run_id not in {i.id for i in listed} and studio.folder(run_id) is not None:
        found.insert(0, ("a run that was shared with you", run_id))
    return found


def refresh(studio: RunQueue, memory: dict, run_id: str, seen: list, picked: Sequence[str]) -> Changes:
    """One glance: what changed since the last is sent, the rest is left alone.

    Args:
        seen: what the last glance sent, as the browser gives it back. It is kept there and not here: of two
            glances under way at once the one that arrives last is what is drawn, and what is known.
        picked: ids of the runs that are compared.
    """
    listed = studio.listed((memory or {}).get("owner", ""))
    changes: Changes = {}
    try:
        story, state = studio.story(run_id)
    except UserError as error:  # a run of another version
        return {"notice": {"value": problem(str(error))}, "timer": {"value": IDLE_SECONDS}}
    folder = studio.folder(run_id)
    reason = run_directory.why_interrupted(folder) if state == "interrupted" else None
    line = status.status(story, state, reason, studio.place(run_id) if state == "waiting" else None)
    there = [i for i in picked or () if studio.folder(i)]
    busy = state in LIVE or any(i.state in LIVE for i in listed)
    choices = menu(studio, listed, run_id)
    now = json.loads(json.dumps([run_id, story.steps, state, choices, _versions(studio, there), busy, line]))
    *before, drawn = seen or ["", -1, "", [], [], None, "", {}]
    if now == before:
        return changes
    if line != before[6]:
        changes["status"] = {"value": line}
    if busy != before[5]:
        changes["timer"] = {"value": BUSY_SECONDS if busy else IDLE_SECONDS}
    if now[3] != before[3] or now[0] != before[0]:
        changes["runs"] = {"choices": [("new run", ""), *choices], "value": run_id}
        changes["chosen"] = {"choices": choices}
        if len(there) < len(picked or ()):  # thrown away meanwhile
            changes["chosen"]["value"] = there
            changes["picked"] = {"value": there}
    if now[:3] != before[:3]:
        changes |= _controls(story, state, studio.steers(run_id, (memory or {}).get("owner", "")))
    if now[:2] != before[:2]:
        # A score changes the heatmap and not the map, a measurement the curves and not the heatmap.
        charts = _charts(studio, run_id, story)
        held = {name: _digest(change) for name, change in charts.items()}
        changes |= {name: change for name, change in charts.items() if held[name] != drawn.get(name)}
        drawn = {**drawn, **held}
    if now[:3] != before[:3]:
        changes |= _downloads(studio, run_id, story, state)
    if now[4] != before[4]:
        changes |= show_comparison(studio, there)
    return {**changes, "seen": {"value": [*now, drawn]}}


def _digest(change: dict) -> str:
    return hashlib.sha256(json.dumps(change, sort_keys=True).encode()).hexdigest()[:16]


def _versions(studio: RunQueue, ids: Sequence[str]) -> tuple:
    """What comparisons are redrawn for."""
    found = []
    for run_id in ids:
        try:
            story, state = studio.story(run_id)
            found.append((run_id, story.steps, state))
        except UserError:
            continue
    return tuple(found)


def _controls(story: RunSummary, state: str, steered: bool) -> Changes:
    """The buttons; who may only look at a run gets those that change nothing of it."""
    live_now, again = steered and state in LIVE, steered and state in AGAIN
    some = steered and bool(story.removals)
    done = story.exported is not None and story.exported.iterations == len(story.removals)
    return {
        "stop": {"visible": live_now, "interactive": state != "stopping"},
        "pause": {"visible": live_now, "interactive": state != "stopping"},
        "resume": {"visible": again},
        "undo": {"visible": some and state != "stopping"},
        "export_now": {"visible": some and not done and state != "stopping"},
        "get": {"visible": state == "finished"},
        "onward": {"visible": state in ("finished", *AGAIN)},
        "upto": {"value": len(story.removals)},
    }


def _charts(studio: RunQueue, run_id: str, story: RunSummary) -> Changes:
    changes = {
        "heatmap": {"value": sendable(heatmap.importance_heatmap(story))},
        "curves": {"value": sendable(curves.cost_curves(story))},
        "tiles": {"value": status.tiles(story)},
        "log": {"value": status.log(story)},
        "said": {"value": status.said(story)},
        "measurements": {"value": curves.measurement_table(story)},
        "scores": {"value": heatmap.score_table(story)},
        "tasks": {"value": inspection.tasks(story)},
    }
    if story.started is not None:
        recipe = run_directory.recipe_of(studio.folder(run_id))
        drawn = form.checked(lambda: inspection.maps(story, anatomy_for(recipe.model)))
        changes["maps"] = {"value": drawn}
    return changes


def _downloads(studio: RunQueue, run_id: str, story: RunSummary, state: str) -> Changes:
    folder = studio.folder(run_id)
    if folder is None:
        hidden = {
            name: {"visible": False} for name in ("zip", "recipe", "events", "csv", "scores_csv", "card")
        }
        nothing = {"load": {"value": ""}, "command": {"value": ""}}
        return {"verdict": {"value": download.verdict(RunSummary())}, **nothing, **hidden}
    changes: Changes = {
        "verdict": {"value": download.verdict(story)},
        "load": {"value": download.snippet(story)},
    }
    recipe = run_directory.recipe_of(folder)
    changes["command"] = {
        "value": download.code("The same run on the command line", download.command_line(recipe))
    }
    changes["recipe"] = {"value": str(folder / run_directory.RECIPE), "visible": True}
    changes["events"] = {"value": str(folder / run_directory.EVENTS), "visible": True}
    done = state == "finished" and story.exported is not None
    changes["zip"] = {"visible": done}
    changes["card"] = {"visible": done}
    changes["csv"] = {"visible": story.dense is not None}
    if done:
        size = f"Download the pruned model ({story.exported.bytes / 1e6:.0f} MB, zip)"
        try:
            changes["zip"] |= {"label": size, "value": str(studio.zipped(run_id))}
            changes["card"] |= {"value": str(folder / run_directory.MODEL / "README.md")}
        except UserError as error:
            changes["zip"] = {"visible": False}
            changes["notice"] = {"value": problem(str(error))}
    if story.dense is not None:
        measured = comparison.as_csv([comparison.Compared(run_id, recipe, story, state)])
        changes["csv"]["value"] = as_file(folder, measured, "measurements.csv")
        changes["scores_csv"] = {
            "value": as_file(folder, comparison.scores_csv(story), "scores.csv"),
            "visible": bool(story.scored),
        }
    return changes


def compared_runs(studio: RunQueue, ids: Sequence[str]) -> list[comparison.Compared]:
    """The chosen runs, as they stand."""
    names = {i.id: i.name for i in studio.listed(None) if i.id in (ids or ())}
    found, used = [], {}
    for run_id in ids or []:
        if run_id not in names:
            continue
        name = names[run_id]
        used[name] = used.get(name, 0) + 1
        # Two runs of one name are told apart.
        called = name if used[name] == 1 else f"{name} ({used[name]})"
        recipe = run_directory.recipe_of(studio.folder(run_id))
        found.append(comparison.Compared(called, recipe, *studio.story(run_id)))
    return found


@show_errors
def show_comparison(studio: RunQueue, ids: Sequence[str]) -> Changes:
    """The chosen runs on one chart and in one table."""
    found = compared_runs(studio, ids)
    measured = [c for c in found if c.story.dense is not None]
    changes: Changes = {
        "picked": {"value": list(ids or ())},
        "comparison": {"value": sendable(comparison.chart(found))},
        "summary": {"value": comparison.summary(found)},
        "compare_csv": {"visible": bool(measured)},
    }
    if measured:
        table = comparison.as_csv(measured)
        folder = studio.root / TABLES / hashlib.sha256(table.encode()).hexdigest()[:24]
        changes["compare_csv"]["value"] = as_file(folder, table, "compared.csv")
    return changes


def _label(name: str, state: str, iterations: int, planned: int) -> str:
    """A run in the list."""
    short = name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"
    how = f"{iterations}/{planned}" if state in ("running", "stopping") and planned else state
    return f"{short} · {how}"
