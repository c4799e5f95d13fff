"""Several runs side by side: on one chart, in one table, as CSV, and the settings in which they differ."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from ..budget.targets import kinds_of
from ..core.csv_cells import cell
from ..core.recipe import Recipe
from ..core.settings import SettingInfo
from ..reporting.messages import describe_removal, format_duration, percent
from ..reporting.run_summary import RunSummary
from ..reporting.theme import LINES, say
from .cost import frame
from .curves import add_run, finish
from .difference_text import kept_share
from .fields import UNASKED, label_of
from .html import empty, table

COLUMNS = (
    *("run", "method", "units", "target", "iteration", "removed", "parameters", "parameters_kept"),
    *("accuracy", "accuracy_se", "perplexity", "perplexity_se", "seconds"),
)


@dataclass(frozen=True)
class Compared:
    """A run that is compared: its name, its recipe, its summary and its state."""

    name: str
    recipe: Recipe
    summary: RunSummary
    state: str = "finished"


def chart(found: Sequence[Compared]) -> go.Figure:
    """Accuracy and perplexity of every run against parameters removed, as lines with error bars."""
    shown = [(n, c) for n, c in enumerate(found) if c.summary.dense is not None]
    share = max((c.summary.started.planned_share for _, c in shown), default=0.2)
    figure = frame(share, "accuracy, %", "perplexity")
    if not shown:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        none = "Choose runs above. Each becomes a line here."
        say(figure, "None of them is measured yet. Each becomes a line here." if found else none)
        return figure
    points, error = [], []
    for number, run in shown:
        add_run(figure, run.summary.dense, run.summary.measured, run.name, LINES[number % len(LINES)])
        points += run.summary.measured
        error += [100 * p.accuracy_se for p in run.summary.measured]
    finish(figure, [c.summary.dense for _, c in shown], points, error)
    return figure


def summary(found: Sequence[Compared]) -> str:
    """One row per run, in the colours of the chart."""
    if not found:
        return empty("Pick two or more runs to compare.")
    rows = []
    for number, run in enumerate(found):
        dense, now = run.summary.dense, run.summary.latest
        first = [
            f"<i class='swatch' style='background:{LINES[number % len(LINES)]}'></i>{escape(run.name)}",
            _progress(run),
            f"{escape(run.recipe.method)} <small>{escape(_removes(run))}</small>",
            percent(run.recipe.target, 0),
        ]
        if dense is None:
            rows.append(first + ["–"] * 5)
            continue
        rows.append(
            [
                *first,
                percent(1 - now.parameters / dense.parameters),
                f"{percent(now.accuracy)} ± {percent(now.accuracy_se)}",
                kept_share(dense, now),
                f"{now.perplexity:.1f} ± {now.perplexity_se:.1f}",
                format_duration(run.summary.worked),
            ]
        )
    head = ["run", "state", "method", "target", "removed", "accuracy", "accuracy kept", "perplexity", "time"]
    return unlike(found) + table(head, rows, "The chosen runs, as of now") + differences(found)


def _progress(run: Compared) -> str:
    """How far a run is: its state, and its iterations while it is running."""
    done, planned = len(run.summary.removals), run.summary.planned
    if run.state != "running" or not planned:
        return escape(run.state)
    return (
        f"<progress max='{planned}' value='{done}' aria-label='{escape(run.name, quote=True)}'></progress> "
        f"{done} of {planned}"
    )


def differences(found: Sequence[Compared]) -> str:
    """The settings in which the recipes differ."""
    rows = [
        [escape(label_of(s)), *(escape(_shown(s, getattr(c.recipe, s.name))) for c in found)]
        for s in Recipe.settings()
        if s.name not in UNASKED and len({str(getattr(c.recipe, s.name)) for c in found}) > 1
    ]
    if len(found) < 2:
        return ""
    if not rows:
        return "<p class='line'>Their recipes are the same.</p>"
    return table(["setting", *(c.name for c in found)], rows, "Settings in which the recipes differ")


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
    if info.share and isinstance(value, int | float):
        return f"{100 * value:g}"
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def unlike(found: Sequence[Compared]) -> str:
    """What has to be said where runs stand on one axis that are not measured alike; empty where they are."""
    ways = {
        "models": {c.recipe.model for c in found},
        "tasks": {c.recipe.tasks for c in found},
        "held-out texts": {c.recipe.heldout for c in found},
    }
    differ = [name for name, values in ways.items() if len(values) > 1]
    if not differ:
        return ""
    words = f"Measured on different {' and '.join(differ)}: compare a line only with lines of its own kind."
    return f"<p class='line unlike' role='note'><b>Not one scale.</b> {escape(words)}</p>"


def _removes(run: Compared) -> str:
    """What a run removed, or is asked to remove where it has removed nothing yet."""
    return run.summary.removed_description or ", ".join(kinds_of(run.recipe))
