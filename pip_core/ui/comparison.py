"""Several runs side by side: on one chart, in one table, as CSV, and the settings in which they differ."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..budget.aims import stated_target
from ..budget.targets import kinds_of
from ..core.csv_cells import cell
from ..core.figures import percent
from ..core.recipe import Recipe
from ..core.settings import SettingInfo
from ..data.corpora import PASTED
from ..engine.stages import stages_for
from ..reporting.messages import describe_removal, format_duration
from ..reporting.run_summary import RunSummary
from ..reporting.theme import LINES, Figure, say
from .cost import frame
from .curves import add_run, finish
from .difference_text import kept_share
from .fields import UNASKED, label_of
from .html import empty, shortened, table
from .runs_table import WORDS

COLUMNS = (
    *("run", "method", "units", "target", "iteration", "removed", "parameters", "parameters_kept"),
    *("accuracy", "accuracy_se", "perplexity", "perplexity_se", "seconds"),
)
# What the table says of a run, beside its name.
FIGURES = ("state", "method", "target", "removed", "accuracy", "kept above guessing", "perplexity", "time")


@dataclass(frozen=True)
class Compared:
    """A run that is compared: its name, its recipe, its summary and its state."""

    name: str
    recipe: Recipe
    summary: RunSummary
    state: str = "finished"


def charts(found: Sequence[Compared]) -> list[tuple[str, Figure]]:
    """A chart for every way in which the runs were measured, with what tells it from the others: models,
    tasks and texts that differ share no axis. Runs have the colours of the table."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, run in enumerate(found):
        groups.setdefault(tuple(_called(what, run.recipe) for what in _differ(found)), []).append(number)
    # Where models tell them apart, tasks and texts need not be named.
    words = next((n for n in range(4) if len({key[:n] for key in groups}) == len(groups)), 3)
    return [(" · ".join(key[:words]), _chart({n: found[n] for n in runs})) for key, runs in groups.items()]


def _chart(found: Mapping[int, Compared]) -> Figure:
    """Accuracy and perplexity of every run against parameters removed, as lines with error bars.

    Args:
        found: the place of each run in the table -> the run.
    """
    shown = {n: c for n, c in found.items() if c.summary.dense is not None}
    # A branch is measured before its model is loaded: what it begins with.
    begun = [c.summary.started for c in shown.values() if c.summary.started]
    share = max((started.planned_share for started in begun), default=0.2)
    figure = frame(share, "accuracy, %", "perplexity")
    if not shown:
        say(figure, "Nothing is measured yet.<br>Each run becomes a line here.")
        return figure
    points, error = [], []
    for number, run in shown.items():
        add_run(figure, run.summary.dense, run.summary.measured, run.name, LINES[number % len(LINES)])
        points += run.summary.measured
        error += [100 * p.accuracy_se for p in run.summary.measured]
    finish(figure, [c.summary.dense for c in shown.values()], points, error)
    return figure


def summary(found: Sequence[Compared]) -> str:
    """One row per run, in the colours of the chart."""
    if not found:
        return empty("Pick two or more runs to compare.")
    rows = []
    for number, run in enumerate(found):
        dense, now = run.summary.dense, run.summary.latest
        first = [
            _progress(run),
            f"<td class='prose'>{escape(run.recipe.method)} <small>{escape(_removes(run))}</small></td>",
            escape(stated_target(run.recipe)),
        ]
        measured = ["–"] * 5
        if dense is not None and now is not None:
            measured = [
                percent(1 - now.parameters / dense.parameters),
                f"{percent(now.accuracy)} ± {percent(now.accuracy_se)}",
                kept_share(dense, now),
                f"{now.perplexity:,.1f} ± {now.perplexity_se:,.1f}",
                format_duration(run.summary.worked),
            ]
        swatch = f"<i class='swatch' style='background:{LINES[number % len(LINES)]}'></i>"
        rows.append([f"{swatch}{escape(run.name)}", *first, *measured])
    chosen = table(["run", *FIGURES], rows, "The chosen runs, as of now", "cards")
    return unlike(found) + chosen + differences(found)


def _progress(run: Compared) -> str:
    """How far a run is: its state, and its iterations while it is running."""
    done, planned = len(run.summary.removals), run.summary.planned
    if run.state != "running" or not planned:
        return escape(WORDS.get(run.state, run.state))
    return (
        f"<progress max='{planned}' value='{done}' aria-label='{escape(run.name, quote=True)}'></progress> "
        f"{done} of {planned}"
    )


def differences(found: Sequence[Compared]) -> str:
    """The settings in which the recipes differ; a dash where one makes no difference to a run."""
    if len(found) < 2:
        return ""
    idle = [{name for stage in stages_for(c.recipe) for name in stage.idle} for c in found]
    rows = []
    for info in Recipe.settings():
        values = [
            None if info.name in without else getattr(c.recipe, info.name)
            for c, without in zip(found, idle, strict=True)
        ]
        # The usual value of one that plays no part elsewhere says nothing new.
        told = {str(info.default if value is None else value) for value in values}
        if info.name not in UNASKED and len(told) > 1:
            cells = ["–" if value is None else escape(_shown(info, value)) for value in values]
            rows.append([escape(label_of(info)), *(f"<td class='prose'>{cell}</td>" for cell in cells)])
    if not rows:
        return "<p class='line'>Their recipes are the same.</p>"
    head = ["setting", *(c.name for c in found)]
    return table(head, rows, "Settings in which the recipes differ", "settings cards")


def as_csv(found: Sequence[Compared]) -> str:
    """Every measurement of every run, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in found:
        removed = {r.iteration: describe_removal(r) for r in run.summary.removals}
        for p in run.summary.measured:
            writer.writerow(
                [
                    cell(run.name),
                    run.recipe.method,
                    " ".join(run.recipe.units),
                    run.recipe.target,
                    p.iteration,
                    removed.get(p.iteration, ""),
                    p.parameters,
                    round(p.parameters / run.summary.dense.parameters, 6),
                    round(p.accuracy, 6),
                    round(p.accuracy_se, 6),
                    round(p.perplexity, 6),
                    round(p.perplexity_se, 6),
                    round(p.seconds, 3),
                ]
            )
    return out.getvalue()


def scores_csv(summary: RunSummary) -> str:
    """Every score of a run, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["iteration", "kind", "block", "score"])
    for (iteration, kind), scored in sorted(summary.scored.items()):
        writer.writerows([iteration, kind, b, s] for b, s in enumerate(scored.scores) if s is not None)
    return out.getvalue()


def _shown(info: SettingInfo, value: object) -> str:
    """A setting's value as the form has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{100 * value if info.share else value:g}"
    if isinstance(value, tuple):
        return shortened(", ".join(_own(str(one), info.name) or str(one) for one in value)) or "none"
    return _own(str(value), info.name) or shortened(dict(info.called).get(str(value), str(value)))


def unlike(found: Sequence[Compared]) -> str:
    """What has to be said of runs that are not measured alike; empty where they are."""
    differ = _differ(found)
    if not differ:
        return ""
    what = " and ".join(part for part in (", ".join(differ[:-1]), differ[-1]) if part)
    words = f"Measured on different {what}: each has a chart of its own."
    return f"<p class='line unlike' role='note'><b>Not one scale.</b> {escape(words)}</p>"


def _measured_on(recipe: Recipe) -> dict[str, Sequence[str]]:
    """What a run's figures depend on, beside what was removed."""
    return {"models": (recipe.model,), "tasks": recipe.tasks, "held-out texts": (recipe.heldout,)}


def _differ(found: Sequence[Compared]) -> list[str]:
    """In which of these the runs differ."""
    ways = [_measured_on(run.recipe) for run in found]
    return [what for what in (ways[0] if ways else ()) if len({way[what] for way in ways}) > 1]


def _called(what: str, recipe: Recipe) -> str:
    """What one run was measured on, as the title of a chart."""
    names = [_own(name, what) or name.rstrip("/").rsplit("/", 1)[-1] for name in _measured_on(recipe)[what]]
    return shortened(", ".join(names) or "no tasks")


def _own(value: str, what: str) -> str:
    """What is said in place of a text that was pasted; empty for anything else."""
    words = "your own questions" if what == "tasks" else "your own text"
    return words if value.startswith(PASTED) else ""


def _removes(run: Compared) -> str:
    """What a run removed, or is asked to remove where it has removed nothing yet."""
    return run.summary.removed_description or ", ".join(kinds_of(run.recipe))
