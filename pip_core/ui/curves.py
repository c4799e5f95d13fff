"""Accuracy and perplexity of several runs against what is removed, drawn; and those of one run as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core import events as ev
from ..core.figures import percent
from ..engine.stages import describe
from ..reporting.messages import describe_perplexity, describe_removal
from ..reporting.run_summary import RunSummary
from ..reporting.theme import GREY, Figure, add_level, add_trace, name_line, set_axes
from .cost import name_of, removed
from .html import empty, millions, table


def add_run(
    chart: Figure,
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
    line = {
        "type": "scatter",
        "x": x,
        "mode": "lines+markers",
        "line": {"color": color, "width": 2},
        "marker": {"size": 7},
    }
    accuracies = {
        "y": accuracy,
        "name": name,
        "error_y": {"array": error, "thickness": 1, "width": 0},
        "customdata": list(zip(names, error, strict=True)),
        "hovertemplate": "%{customdata[0]}<br>%{y:.1f} ± %{customdata[1]:.1f} % right<br>"
        "%{x:.1f} % removed<extra></extra>",
    }
    perplexities = {
        "y": [round(p.perplexity, 3) for p in points],
        "showlegend": False,
        "customdata": [[n, round(p.perplexity_se, 2)] for n, p in zip(names, points, strict=True)],
        "hovertemplate": "%{customdata[0]}<br>perplexity %{y:.2f} ± %{customdata[1]:.2f}<extra></extra>",
    }
    add_trace(chart, {**line, **accuracies})
    add_trace(chart, {**line, **perplexities}, row=2)


def finish(
    chart: Figure, dense: Sequence[ev.Evaluated], points: Sequence[ev.Evaluated], error: Sequence[float]
) -> None:
    """Choose ranges that show all points, and the line of guessing where it is near."""
    chance = 100 * sum(t.chance for t in dense[0].tasks) / len(dense[0].tasks)
    low = min(100 * p.accuracy - e for p, e in zip(points, error, strict=True))
    high = max(100 * p.accuracy + e for p, e in zip(points, error, strict=True))
    if low < chance + 15:
        add_level(chart, chance, {"color": GREY, "dash": "dot", "width": 1})
        name_line(chart, chance, "guessing", "top")
        low = min(low, chance)
    set_axes(chart, "y", 1, range=[max(0, low - 4), min(102, high + 4)])
    perplexities = [p.perplexity for p in points]
    if max(perplexities) > 4 * min(perplexities):
        # Over many decades their own numbers are enough; those between would be written over each other.
        decades = math.log10(max(perplexities) / min(perplexities))
        title = {"text": "perplexity (log)", "standoff": 8}
        set_axes(
            chart, "y", 2, type="log", title=title, dtick="D2" if decades < 1.5 else math.ceil(decades / 4)
        )
    else:
        set_axes(chart, "y", 2, range=[0, 1.15 * max(perplexities)])


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
                describe_perplexity(found),
            ]
        )
    return table(
        ["iteration", "removed", "score, of the largest", "parameters", "kept", "accuracy", "perplexity"],
        rows,
        "Measurements after every removal",
        "removals cards",
    )
