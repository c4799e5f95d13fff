"""One glance at a run, and at several: what changed since the last one is sent. No gradio."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from .. import runs
from ..errors import UserError
from ..plan import anatomy_for
from ..story import Story
from ..studio import Studio
from . import comparison, curves, download, form, heatmap, inspection, live
from .html import problem
from .ink import sendable

# A component's name to the properties it gets, such as `{"stop": {"visible": True}}`.
Changes = dict[str, dict]
LIVE = ("waiting", "starting", "running", "stopping")
AGAIN = ("stopped", "paused", "interrupted", "failed")
LONGEST_LABEL = 48


def as_file(text: str, name: str) -> str:
    """The path of a file called `name` that holds `text`; the same text is the same file."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = Path(tempfile.gettempdir()) / "pip-studio-tables" / digest / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(path)


def told(handler: Callable[..., Changes]) -> Callable[..., Changes]:
    """A handler whose refusals are put where the user looks."""

    @functools.wraps(handler)
    def safe(*arguments, **named) -> Changes:
        try:
            return handler(*arguments, **named)
        except UserError as error:
            return {"notice": {"value": problem(str(error))}}

    return safe


def look(studio: Studio, memory: dict, run_id: str, seen: tuple, chosen: list[str]) -> Changes:
    """One glance: what changed since the last is sent, the rest is left alone."""
    listed = studio.listed((memory or {}).get("owner", ""))
    known = {info.id for info in listed}
    changes: Changes = {}
    try:
        story, state = studio.story(run_id)
    except UserError as error:  # a run of another version
        return {"notice": {"value": problem(str(error))}, "timer": {"active": False}}
    folder = studio.folder(run_id)
    reason = runs.why_interrupted(folder) if state == "interrupted" else None
    line = live.status(story, state, reason, studio.place(run_id) if state == "waiting" else None)
    menu = [(_label(i.name, i.state, i.iterations, i.planned), i.id) for i in listed]
    if run_id and run_id not in known and folder is not None:
        menu.insert(0, ("a run that was shared with you", run_id))
    compared = _versions(studio, [i for i in chosen or [] if studio.folder(i)])
    now = (run_id, story.steps, state, tuple(menu), compared)
    before = tuple(seen) if len(seen or ()) == len(now) else ("", -1, "", (), ())
    changes["status"] = {"value": line}
    busy = state in LIVE or any(i.state in LIVE for i in listed)
    changes["timer"] = {"active": busy}
    if now == before:
        return changes
    changes["seen"] = {"value": now}
    if now[3] != before[3] or now[0] != before[0]:
        finished = [(label, i) for label, i in menu]
        changes["runs"] = {"choices": [("new run", ""), *menu], "value": run_id}
        changes["chosen"] = {"choices": finished}
    if now[:3] != before[:3]:
        changes |= _controls(story, state)
    if now[:2] != before[:2]:
        changes |= _charts(studio, run_id, story)
    if now[:3] != before[:3]:
        changes |= _downloads(studio, run_id, story, state)
    if compared != before[4]:
        changes |= compare(studio, chosen)
    return changes


def _versions(studio: Studio, ids: list[str]) -> tuple:
    found = []
    for run_id in ids:
        try:
            found.append((run_id, studio.story(run_id)[0].steps))
        except UserError:
            continue
    return tuple(found)


def _controls(story: Story, state: str) -> Changes:
    live_now, again, some = state in LIVE, state in AGAIN, bool(story.removals)
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


def _charts(studio: Studio, run_id: str, story: Story) -> Changes:
    changes = {
        "heatmap": {"value": sendable(heatmap.importance_heatmap(story))},
        "curves": {"value": sendable(curves.cost_curves(story))},
        "tiles": {"value": live.tiles(story)},
        "log": {"value": live.log(story)},
        "measurements": {"value": curves.measurement_table(story)},
        "scores": {"value": heatmap.score_table(story)},
        "tasks": {"value": inspection.tasks(story)},
    }
    if story.started is not None:
        recipe = runs.recipe_of(studio.folder(run_id))
        drawn = form.checked(lambda: inspection.maps(story, anatomy_for(recipe.model)))
        changes["maps"] = {"value": drawn}
    return changes


def _downloads(studio: Studio, run_id: str, story: Story, state: str) -> Changes:
    folder = studio.folder(run_id)
    if folder is None:
        hidden = {
            name: {"visible": False} for name in ("zip", "recipe", "events", "csv", "scores_csv", "card")
        }
        return {"verdict": {"value": download.verdict(Story())}, "command": {"value": ""}, **hidden}
    changes: Changes = {"verdict": {"value": download.verdict(story)}}
    recipe = runs.recipe_of(folder)
    changes["command"] = {
        "value": download.code("The same run on the command line", download.command_line(recipe))
    }
    changes["recipe"] = {"value": str(folder / runs.RECIPE), "visible": True}
    changes["events"] = {"value": str(folder / runs.EVENTS), "visible": True}
    done = state == "finished" and story.exported is not None
    changes["zip"] = {"visible": done}
    changes["card"] = {"visible": done}
    changes["csv"] = {"visible": story.dense is not None}
    if done:
        size = f"Download the pruned model ({story.exported.bytes / 1e6:.0f} MB, zip)"
        try:
            changes["zip"] |= {"label": size, "value": str(studio.zipped(run_id))}
            changes["card"] |= {"value": str(folder / runs.MODEL / "README.md")}
        except UserError as error:
            changes["zip"] = {"visible": False}
            changes["notice"] = {"value": problem(str(error))}
    if story.dense is not None:
        measured = comparison.as_csv([comparison.Compared(run_id, recipe, story)])
        changes["csv"]["value"] = as_file(measured, "measurements.csv")
        changes["scores_csv"] = {
            "value": as_file(comparison.scores_csv(story), "scores.csv"),
            "visible": bool(story.scored),
        }
    return changes


def compared(studio: Studio, ids: list[str]) -> list[comparison.Compared]:
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
        recipe = runs.recipe_of(studio.folder(run_id))
        found.append(comparison.Compared(called, recipe, studio.story(run_id)[0]))
    return found


@told
def compare(studio: Studio, ids: list[str]) -> Changes:
    """The chosen runs on one chart and in one table."""
    found = compared(studio, ids)
    measured = [c for c in found if c.story.dense is not None]
    changes: Changes = {
        "comparison": {"value": sendable(comparison.chart(found))},
        "summary": {"value": comparison.summary(found)},
        "compare_csv": {"visible": bool(measured)},
    }
    if measured:
        changes["compare_csv"]["value"] = as_file(comparison.as_csv(measured), "compared.csv")
    return changes


def _label(name: str, state: str, iterations: int, planned: int) -> str:
    """A run in the list."""
    short = name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"
    how = f"{iterations}/{planned}" if state in ("running", "stopping") and planned else state
    return f"{short} · {how}"
