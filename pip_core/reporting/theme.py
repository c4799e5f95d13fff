"""Colours of the charts, the empty figure that every chart starts from, and what several charts add to one.

A figure is a dictionary of plain values ("data", "layout") as Plotly's schema has them, for Plotly in the
browser. Plotly's own classes check every value when it is set, which takes thirty times as long as working
out what is drawn; the tests let them check each chart.

The greys are readable on a light and on a dark page. Colours have a meaning: amber marks what is removed, the
accent what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Figure: TypeAlias = dict[str, Any]

ACCENT = "#2f6fde"
AMBER = "#e8930c"
GREY = "#80868f"
FAINT = "rgba(128,134,143,0.22)"
SKELETON = "rgba(128,134,143,0.13)"
# From unimportant to important. Transparent, so that a light and a dark page show through, and numbers in the
# page's own ink can be read on all of it.
IMPORTANCE = [[0.0, "rgba(47,111,222,0.05)"], [1.0, "rgba(47,111,222,0.72)"]]
# Lines of several runs; they differ in lightness too, for readers who do not see colours.
LINES = ("#2f6fde", "#d97706", "#0f9d77", "#8b5cf6", "#db2777", "#475569", "#84a30b", "#0891b2")
HEIGHT = 340
# A picture of a lock.
LOCK = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='none' "
    "stroke='%232f6fde' stroke-width='1.8' d='M5 7V5a3 3 0 0 1 6 0v2'/%3E%3Crect x='3' y='7' width='10' "
    "height='7' rx='1.5' fill='%232f6fde'/%3E%3C/svg%3E"
)

_FONT = "Inter, system-ui, sans-serif"


def figure(height: int = HEIGHT) -> Figure:
    """An empty transparent figure of one row."""
    chart: Figure = {
        "data": [],
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": _FONT, "size": 12, "color": GREY},
            "margin": {"l": 56, "r": 12, "t": 10, "b": 42},
            "showlegend": False,
            "height": height,
            "hoverlabel": {
                "font": {"family": _FONT, "size": 12, "color": "#fff"},
                "bgcolor": "#20242c",
                "bordercolor": "#20242c",
                "align": "left",
            },
            # A zoom of the reader is kept while the chart grows.
            "uirevision": "keep",
            "shapes": [],
            "images": [],
            "annotations": [],
        },
    }
    lay_rows(chart, (1.0,))
    return chart


def lay_rows(chart: Figure, heights: Sequence[float], gap: float = 0.0) -> None:
    """Give a figure rows, each with axes of its own; the first is at the top.

    Args:
        heights: shares of what the gaps leave, which sum to one.
        gap: share of the whole height between two rows.
    """
    left, top = 1.0 - gap * (len(heights) - 1), 1.0
    for row, height in enumerate(heights, start=1):
        bottom = top - height * left
        chart["layout"][axis("x", row, "axis")] = {"anchor": axis("y", row), "domain": [0.0, 1.0]}
        domain = [max(0.0, round(bottom, 4)), round(top, 4)]
        chart["layout"][axis("y", row, "axis")] = {"anchor": axis("x", row), "domain": domain}
        top = bottom - gap


def axis(letter: str, row: int = 1, kind: str = "") -> str:
    """What Plotly calls an axis of a row: "x2" in traces, with kind "axis" "xaxis2" in the layout."""
    return f"{letter}{kind}{row if row > 1 else ''}"


def set_axes(chart: Figure, letter: str, row: int | None = None, **values: Any) -> None:
    """Set properties of the "x" or "y" axis of a row, or of all rows."""
    name = f"{letter}axis"
    every = [key for key in chart["layout"] if key.rstrip("0123456789") == name]
    for key in every if row is None else [axis(letter, row, "axis")]:
        chart["layout"][key] |= values


def add_trace(chart: Figure, trace: Mapping[str, Any], row: int = 1) -> None:
    """Add a trace to a row."""
    chart["data"].append({**trace, "xaxis": axis("x", row), "yaxis": axis("y", row)})


def add_level(chart: Figure, y: float, line: Mapping[str, Any], row: int = 1) -> None:
    """Draw a horizontal line across a row."""
    place = {"x0": 0, "x1": 1, "xref": f"{axis('x', row)} domain", "y0": y, "y1": y, "yref": axis("y", row)}
    chart["layout"]["shapes"].append({"type": "line", "line": dict(line), **place})


def add_lock(
    chart: Figure, x: float, y: float, size: tuple[float, float], yanchor: str, row: int = 1
) -> None:
    """Draw a lock of a width and a height at a point of a row; `yanchor` says which height of it is there."""
    lock = {"source": LOCK, "x": x, "y": y, "layer": "above", "sizex": size[0], "sizey": size[1]}
    place = {"xref": axis("x", row), "yref": axis("y", row), "xanchor": "center", "yanchor": yanchor}
    chart["layout"]["images"].append({**lock, **place})


def faint(color: str) -> str:
    """A colour "#rrggbb" as a band that what lies behind it shows through."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def hatched(color: str) -> dict:
    """The pattern of what is removed."""
    return {"shape": "/", "size": 6, "solidity": 0.22, "fgcolor": color, "bgcolor": "rgba(0,0,0,0)"}


def name_line(chart: Figure, y: float, text: str, anchor: str = "bottom") -> None:
    """Label a horizontal line of the first row at its left end.

    Args:
        anchor: the edge of the text that lies on the line ("bottom", "top").
    """
    place = {"x": 0, "xref": "x domain", "xanchor": "left", "y": y, "yref": "y", "yanchor": anchor}
    chart["layout"]["annotations"].append({"text": text, "showarrow": False, "font": {"size": 11}, **place})


def name_row(chart: Figure, row: int, text: str) -> None:
    """Write above a row, at its left end, what its y axis shows."""
    top = chart["layout"][axis("y", row, "axis")]["domain"][1]
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom"}
    chart["layout"]["annotations"].append({"text": text, "showarrow": False, "font": {"size": 12}, **place})


def say(chart: Figure, text: str) -> None:
    """Write into an empty chart, whose axes then go, what will appear in it."""
    for letter in "xy":  # Plotly leaves the titles of axes that it hides where they were drawn before
        set_axes(chart, letter, visible=False, title={"text": ""})
    place = {"x": 0.5, "xref": "paper", "y": 0.5, "yref": "paper"}
    chart["layout"]["annotations"].append({"text": text, "showarrow": False, "font": {"size": 13}, **place})
