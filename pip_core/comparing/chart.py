"""The chart of a comparison: what each method keeps against what it removes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ..reporting.theme import FAINT, LINES, figure


def kept_chart(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], model: str, counted: str
) -> go.Figure:
    """Accuracy kept against parameters kept, a curve or a point for each method; on white, to be shown
    anywhere.

    Args:
        curves: label -> (parameters kept, accuracy kept, its standard error), each in % of the dense
            model's.
        counted: what of the accuracy, in words.
    """
    chart = go.Figure(figure(height=520))
    for label, points in curves.items():
        x, y, error = zip((100.0, 100.0, 0.0), *sorted(points, reverse=True), strict=True)
        chart.add_trace(
            go.Scatter(
                x=x,
                y=y,
                error_y={"type": "data", "array": error, "thickness": 1.2, "width": 4},
                name=label,
                mode="lines+markers",
                line={"width": 1.5},
                marker={"size": 8},
                hovertemplate="%{fullData.name}<br>%{y:.1f} ± %{error_y.array:.1f} % of the accuracy<br>"
                "%{x:.1f} % of the parameters<extra></extra>",
            )
        )
    chart.update_layout(
        template="none",
        showlegend=True,
        paper_bgcolor="white",
        plot_bgcolor="white",
        colorway=LINES,
        margin={"t": 48},
        title={"text": f"{model}: what each method keeps (± one standard error)", "x": 0},
    )
    chart.update_xaxes(title="parameters kept, %", gridcolor=FAINT, zeroline=False)
    chart.update_yaxes(title=f"accuracy kept, {counted}, %", gridcolor=FAINT, zeroline=False)
    return chart
