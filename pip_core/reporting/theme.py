"""Colours of the charts, and the empty figure that every chart starts from.

The greys are readable on a light and on a dark page. Colours have a meaning: amber marks what is removed, the
accent what is measured.
"""

from __future__ import annotations

import json

import plotly.graph_objects as go

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


def figure(height: int = HEIGHT) -> go.Figure:
    """An empty transparent figure, without Plotly's own template."""
    return go.Figure(
        layout={
            "template": "none",
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
        }
    )


def faint(color: str) -> str:
    """A colour "#rrggbb" as a band that what lies behind it shows through."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def hatched(color: str) -> dict:
    """The pattern of what is removed."""
    return {"shape": "/", "size": 6, "solidity": 0.22, "fgcolor": color, "bgcolor": "rgba(0,0,0,0)"}


def sendable(chart: go.Figure) -> dict:
    """A figure as plain JSON values, for Plotly in the browser."""
    return json.loads(chart.to_json())


def name_line(chart: go.Figure, y: float, text: str, anchor: str = "bottom") -> None:
    """Label a horizontal line of the first row at its left end.

    Args:
        anchor: the edge of the text that lies on the line ("bottom", "top").
    """
    chart.add_annotation(
        x=0,
        xref="x domain",
        y=y,
        yref="y",
        text=text,
        showarrow=False,
        yanchor=anchor,
        xanchor="left",
        font={"size": 11},
    )


def say(chart: go.Figure, text: str) -> None:
    """Write into an empty chart what will appear in it."""
    chart.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 13}
    )
