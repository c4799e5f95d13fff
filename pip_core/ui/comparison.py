"""Several runs side by side: on one chart, in one table, as CSV; and how their recipes differ."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from ..core.recipe import Recipe
from ..reporting.messages import describe_removal, format_duration
from ..reporting.run_summary import RunSummary
from ..reporting.theme import LINES, say
from .curves import add_run, finish, frame
from .html import empty, table
from .retention_text import kept_share

COLUMNS = (
    *("run", "method", "units", "target", "iteration", "removed", "parameters", "parameters_kept"),
    *("accuracy", "accuracy_se", "perplexity", "perplexity_se", "seconds"),
)


@dataclass(frozen=True)
class Compared:
    """A run that is compared: what it is called, how it was made, what it came to."""

    name: str
    recipe: Recipe
    story: RunSummary
    state: str = "finished"


def chart(found: Sequence[Compared]) -> go.Figure:
    """Accuracy and perplexity of every run against parameters kept, as lines with error bars."""
    shown = [(n, c) for n, c in enumerate(found) if c.story.dense is not None]
    figure = frame(max((c.story.started.planned_share for _, c in shown), default=0.2))
    if not shown:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        none = "Choose runs above: each becomes a line here."
        say(figure, "None of them is measured yet: each becomes a line here." if found else none)
        return figure
    points, error = [], []
    for number, run in shown:
        add_run(figure, run.story.dense, run.story.measured, run.name, LINES[number % len(LINES)], None)
        points += run.story.measured
        error += [100 * p.accuracy_se for p in run.story.measured]
    finish(figure, [c.story.dense for _, c in shown], points, error)
    return figure


def summary(found: Sequence[Compared]) -> str:
    """One row per run, in the colours of the chart."""
    if not found:
        return empty("Choose two or more runs: what each came to will stand here, a row each.")
    rows = []
    for number, run in enumerate(found):
        dense, now = run.story.dense, run.story.latest
        first = [
            f"<i class='swatch' style='background:{LINES[number % len(LINES)]}'></i>{escape(run.name)}",
            _progress(run),
            f"{escape(run.recipe.method)} <small>{escape(', '.join(run.recipe.units))}</small>",
            f"{run.recipe.target:.0%}",
        ]
        if dense is None:
            rows.append(first + ["–"] * 5)
            continue
        rows.append(
            [
                *first,
                f"{1 - now.parameters / dense.parameters:.1%}",
                f"{now.accuracy:.1%} ± {now.accuracy_se:.1%}",
                kept_share(dense, now),
                f"{now.perplexity:.1f} ± {now.perplexity_se:.1f}",
                format_duration(run.story.worked),
            ]
        )
    head = ["run", "state", "method", "target", "smaller", "accuracy", "kept", "perplexity", "time"]
    return table(head, rows, "The runs chosen, as they stand") + differences(found)


def _progress(run: Compared) -> str:
    """How far a run is: its state, and of one that goes on its iterations."""
    done, planned = len(run.story.removals), run.story.planned
    if run.state != "running" or not planned:
        return escape(run.state)
    return (
        f"<progress max='{planned}' value='{done}' aria-label='{escape(run.name, quote=True)}'></progress> "
        f"{done} of {planned}"
    )


def differences(found: Sequence[Compared]) -> str:
    """The settings in which the recipes differ."""
    rows = [
        [escape(s.name), *(escape(_shown(getattr(c.recipe, s.name))) for c in found)]
        for s in Recipe.settings()
        if len({str(getattr(c.recipe, s.name)) for c in found}) > 1
    ]
    if len(found) < 2:
        return ""
    if not rows:
        return "<p class='line'>Their recipes are the same.</p>"
    return table(["setting", *(c.name for c in found)], rows, "Where the recipes differ")


def as_csv(found: Sequence[Compared]) -> str:
    """Every measurement of every run, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in found:
        went = {r.iteration: describe_removal(r) for r in run.story.removals}
        for p in run.story.measured:
            writer.writerow(
                [
                    run.name,
                    run.recipe.method,
                    " ".join(run.recipe.units),
                    run.recipe.target,
                    p.iteration,
                    went.get(p.iteration, ""),
                    p.parameters,
                    round(p.parameters / run.story.dense.parameters, 6),
                    round(p.accuracy, 6),
                    round(p.accuracy_se, 6),
                    round(p.perplexity, 6),
                    round(p.perplexity_se, 6),
                    round(p.seconds, 3),
                ]
            )
    return out.getvalue()


def scores_csv(story: RunSummary) -> str:
    """Every score of a run, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["iteration", "kind", "block", "score"])
    for (iteration, kind), scored in sorted(story.scored.items()):
        writer.writerows([iteration, kind, b, s] for b, s in enumerate(scored.scores) if s is not None)
    return out.getvalue()


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
