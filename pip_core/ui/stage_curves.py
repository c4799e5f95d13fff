"""Curves that stages draw while they work, such as what is learnt and on how much text. And as a table."""

from __future__ import annotations

from ..reporting.run_summary import RunSummary
from ..reporting.theme import FAINT, LINES, Figure, add_trace, axis, figure, lay_rows, say, set_axes
from .html import table


def stage_curves(summary: RunSummary) -> Figure:
    """The curves of the chart that was drawn last, one line for each."""
    chart = figure()
    if not summary.curves:
        say(chart, "Steps that learn or measure draw here how far they are.")
        return chart
    title, points = list(summary.curves.items())[-1]
    names = list(dict.fromkeys(name for point in points for name, _ in point.values))
    quantities = list(dict.fromkeys(map(quantity, names)))
    lay_rows(chart, [1 / len(quantities)] * len(quantities), gap=0.09)
    for name, color in zip(names, LINES * len(names), strict=False):
        found = [(p.x, dict(p.values)[name], p.note) for p in points if name in dict(p.values)]
        line = {
            "type": "scatter",
            "x": [x for x, _, _ in found],
            "y": [round(y, 4) for _, y, _ in found],
            "customdata": [note for _, _, note in found],
            "name": name,
            "mode": "lines+markers",
            "line": {"color": color, "width": 2},
            "hovertemplate": f"{title}: {name} %{{y:.3f}}<br>%{{x:,.0f}} {points[-1].x_name}<br>"
            "%{customdata}<extra></extra>",
        }
        add_trace(chart, line, quantities.index(quantity(name)) + 1)
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    chart["layout"] |= {"showlegend": True, "legend": legend}
    look = {"gridcolor": FAINT, "zeroline": False}
    set_axes(chart, "x", rangemode="tozero", **look)
    set_axes(chart, "y", nticks=5 if len(quantities) == 1 else 4, **look)
    for row, what in enumerate(quantities, start=1):
        words = ", ".join(filter(None, (what, points[-1].y_name)))
        set_axes(chart, "y", row, title={"text": words, "standoff": 8})
        if row < len(quantities):
            set_axes(chart, "x", row, matches=axis("x", len(quantities)), showticklabels=False)
    set_axes(chart, "x", len(quantities), title={"text": points[-1].x_name, "standoff": 6})
    return chart


def quantity(name: str) -> str:
    """What a curve is of, see `CurvePoint`: curves of one quantity share an axis."""
    what, comma, _ = name.partition(", ")
    return what if comma else ""


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
        tables.append(table([points[-1].x_name, *names, "note"], rows, title))
    return "".join(tables)
