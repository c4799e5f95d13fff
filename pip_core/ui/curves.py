"""Accuracy and perplexity of several runs against what is removed, drawn; and those of one run as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from ..core import events as ev
from ..core.figures import percent
from ..engine.stages import describe
from ..reporting.messages import describe_removal
from ..reporting.run_summary import RunSummary
from ..reporting.theme import GREY, name_line
from .cost import name_of, removed
from .html import empty, millions, table


def add_run(
    chart: go.Figure,
    dense: ev.Evaluated,
    points: Sequence[ev.Evaluated],
    name: str,
    color: str,
) -> None:
    """Draw the measurements of one run into both rows of a frame.

    Args:
        name: begins the text that appears on hovering.
    """
    x = [removed(dense, p) for p in points]
    accuracy = [round(100 * p.accuracy, 2) for p in points]
    error = [round(100 * p.accuracy_se, 2) for p in points]
    names = [f"{name}, {name_of(p)}" for p in points]
    line = {"color": color, "width": 2}
    chart.add_trace(
        go.Scatter(
            x=x,
            y=accuracy,
            name=name,
            mode="lines+markers",
            line=line,
            marker={"size": 7},
            error_y={"array": error, "thickness": 1, "width": 0},
            customdata=list(zip(names, error, strict=True)),
            hovertemplate="%{customdata[0]}<br>%{y:.1f} ± %{customdata[1]:.1f} % right<br>"
            "%{x:.1f} % removed<extra></extra>",
        ),
        1,
        1,
    )
    chart.add_trace(
        go.Scatter(
            x=x,
            y=[round(p.perplexity, 3) for p in points],
            mode="lines+markers",
            showlegend=False,
            line=line,
            marker={"size": 7},
            customdata=[[n, round(p.perplexity_se, 2)] for n, p in zip(names, points, strict=True)],
            hovertemplate="%{customdata[0]}<br>perplexity %{y:.2f} ± %{customdata[1]:.2f}<extra></extra>",
        ),
        2,
        1,
    )


def finish(
    chart: go.Figure, dense: Sequence[ev.Evaluated], points: Sequence[ev.Evaluated], error: Sequence[float]
) -> None:
    """Choose ranges that show all points, and the line of guessing where it is near."""
    chance = 100 * sum(t.chance for t in dense[0].tasks) / len(dense[0].tasks)
    low = min(100 * p.accuracy - e for p, e in zip(points, error, strict=True))
    high = max(100 * p.accuracy + e for p, e in zip(points, error, strict=True))
    if low < chance + 15:
        chart.add_hline(y=chance, line={"color": GREY, "dash": "dot", "width": 1}, row=1, col=1)
        name_line(chart, chance, "guessing", "top")
        low = min(low, chance)
    chart.update_yaxes(range=[max(0, low - 4), min(102, high + 4)], row=1, col=1)
    perplexities = [p.perplexity for p in points]
    if max(perplexities) > 4 * min(perplexities):
        # Over many decades their own numbers are enough; those between would be written over each other.
        decades = math.log10(max(perplexities) / min(perplexities))
        title = {"text": "perplexity (log)", "standoff": 8}
        chart.update_yaxes(
            type="log", title=title, dtick="D2" if decades < 1.5 else math.ceil(decades / 4), row=2, col=1
        )
    else:
        chart.update_yaxes(range=[0, 1.15 * max(perplexities)], row=2, col=1)


def measurement_table(summary: RunSummary) -> str:
    """One row per measurement: what was removed before it, and what was measured."""
    if summary.dense is None:
        return empty("Every measurement appears here, with what was removed before it.")
    removals = {r.iteration: r for r in summary.removals}
    rows = []
    for found in summary.measured:
        removal = None if found.final else removals.get(found.iteration)
        done = [words for result in summary.results.values() if (words := describe(result).summary)]
        other = ("; ".join(done) or "rounded to its number format") if found.final else "the whole model"
        rows.append(
            [
                str(found.iteration),
                other if removal is None else describe_removal(removal),
                "" if removal is None else percent(removal.relative),
                millions(found.parameters),
                percent(found.parameters / summary.dense.parameters),
                f"{percent(found.accuracy)} ± {percent(found.accuracy_se)}",
                f"{found.perplexity:.2f} ± {found.perplexity_se:.2f}",
            ]
        )
    return table(
        ["iteration", "removed", "score, of the largest", "parameters", "kept", "accuracy", "perplexity"],
        rows,
        "Measurements after every removal",
        "removals",
    )
