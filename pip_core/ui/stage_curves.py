"""Curves that stages draw while they work, such as what is learnt and on how much text. And as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..reporting.run_summary import RunSummary
from ..reporting.theme import FAINT, LINES, Figure, add_trace, axis, figure, lay_rows, name_row, say, set_axes
from .html import table

# Of the height, what lies between two rows: the title of the lower one. Pixels above the first, for its
# title, which a legend pushes down by as many lines as it has; where it ends, in heights of all rows.
ROW_GAP, TITLE, LEGEND = 0.15, 26, 1.08


def stage_curves(summary: RunSummary) -> Figure:
    """The curves of the chart that was drawn last, one line for each."""
    chart = figure()
    if not summary.curves:
        say(chart, "Steps that learn or measure draw here how far they are.")
        return chart
    title, points = list(summary.curves.items())[-1]
    names = list(dict.fromkeys(name for point in points for name, _ in point.values))
    quantities = list(dict.fromkeys(map(quantity, names)))
    alike = {what: [name for name in names if quantity(name) == what] for what in quantities}
    rows = len(quantities)
    lay_rows(chart, [1 / rows] * rows, gap=ROW_GAP)
    colors = dict(zip(dict.fromkeys(map(marked, names)), LINES * len(names), strict=False))
    for name in names:
        found = [(p.x, dict(p.values)[name], p.note) for p in points if name in dict(p.values)]
        what = quantity(name)
        line = {
            "type": "scatter",
            "x": [x for x, _, _ in found],
            "y": [float(f"{y:.4g}") for _, y, _ in found],
            "customdata": [note for _, _, note in found],
            # Above a row stands what its curves share.
            "name": name.removeprefix(f"{what}, "),
            "showlegend": len(alike[what]) > 1,
            **_look(name, names, colors[marked(name)]),
            "cliponaxis": False,
            "hovertemplate": f"{title}: {name} %{{y:.3f}}<br>%{{x:,.0f}} {points[-1].x_name}<br>"
            "%{customdata}<extra></extra>",
        }
        add_trace(chart, line, quantities.index(what) + 1)
    legend = {"orientation": "h", "y": LEGEND, "yanchor": "bottom", "x": 0}
    chart["layout"] |= {"showlegend": len(names) > rows, "legend": legend}
    chart["layout"]["margin"] |= {"t": TITLE}
    look = {"gridcolor": FAINT, "zeroline": False}
    set_axes(chart, "x", rangemode="tozero", **look)
    set_axes(chart, "y", nticks=5 if rows == 1 else 4, **look)
    for row, what in enumerate(quantities, start=1):
        shared = what if len(alike[what]) > 1 else alike[what][0]
        name_row(chart, row, ", ".join(filter(None, (shared, points[-1].y_name))))
        if row < rows:
            set_axes(chart, "x", row, matches=axis("x", rows), showticklabels=False)
    set_axes(chart, "x", rows, title={"text": points[-1].x_name, "standoff": 6})
    return chart


def quantity(name: str) -> str:
    """What a curve is of, see `CurvePoint`: curves of one quantity share an axis."""
    what, comma, _ = name.partition(", ")
    return what if comma else ""


def marked(name: str) -> str:
    """The curve that a name is of: "channels: chosen" marks a point of "channels"."""
    return name.partition(": ")[0]


def _look(name: str, names: Sequence[str], color: str) -> dict[str, Any]:
    """A line with its points; for what marks points of another line a ring around each, in its colour."""
    if marked(name) == name or marked(name) not in names:
        return {"mode": "lines+markers", "line": {"color": color, "width": 2}}
    ring = {"symbol": "circle-open", "size": 15, "color": color, "line": {"width": 3}}
    return {"mode": "markers", "marker": ring}


def curve_table(summary: RunSummary) -> str:
    """The points of every chart, a row each; empty before the first."""
    tables = []
    for title, points in summary.curves.items():
        names = list(dict.fromkeys(name for point in points for name, _ in point.values))
        rows = [
            [
                f"{p.x:,.0f}",
                *(f"{dict(p.values)[n]:.4f}" if n in dict(p.values) else "" for n in names),
                p.note,
            ]
            for p in points
        ]
        tables.append(table([points[-1].x_name, *names, "note"], rows, title, "cards"))
    return "".join(tables)
