"""What pruning costs, drawn as the change from the dense model: accuracy in points, times the perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..core.events import Evaluated
from ..core.figures import percent
from ..evaluation.statistics import Change, changes
from ..reporting.run_summary import RunSummary
from ..reporting.theme import ACCENT, FAINT, GREY, LINES, faint, figure, name_line, say

MEAN = "mean"
# Perplexities that are further apart than this are drawn on a logarithmic axis.
WIDE = 4.0
# The least span of that axis: what is smaller is noise, and is not to look like news.
SPAN = 0.05
# Guessing is drawn where an accuracy comes this near to it, in points.
NEAR = 15.0


def cost_curves(summary: RunSummary) -> go.Figure:
    """Change of the accuracy, with a band of its paired standard error, and multiple of the perplexity,
    against the share of parameters removed. The mean over tasks and every task are groups of traces that the
    reader shows and hides (`layout.meta.groups`: name, words, colour); at first the mean alone is shown. The
    chart is not to be changed: it is the same one until something else is measured."""
    points = tuple(summary.measured) if summary.dense else ()
    return _drawn(summary.started.planned_share if summary.started else 0.2, points)


# Plotly takes longer to make this chart than all else of a refresh, and most events change nothing of it.
@lru_cache(maxsize=16)
def _drawn(share: float, points: tuple[Evaluated, ...]) -> go.Figure:
    chart = frame(share, "accuracy, points", "perplexity, ×")
    chart.update_layout(meta={"groups": [], "slides": True})
    if not points:
        chart.update_xaxes(visible=False)
        chart.update_yaxes(visible=False)
        say(chart, "The whole model is measured first;<br>then the model after every removal.")
        return chart
    dense = points[0]
    found = [changes(dense, point) for point in points]
    groups = [[MEAN, "mean", ACCENT]]
    _add(chart, points, [mean for mean, _ in found], dense, (MEAN, "mean", ACCENT))
    if len(dense.tasks) > 1:
        # Such as "stories-", which tells none of them from another.
        families = {"".join(task.name.rpartition("-")[:2]) for task in dense.tasks}
        family = families.pop() if len(families) == 1 else ""
        for number, task in enumerate(dense.tasks):
            color = LINES[1:][number % (len(LINES) - 1)]
            groups.append([f"{number}", task.name.removeprefix(family), color])
            of_task = [tasks[number] for _, tasks in found]
            _add(chart, points, of_task, dense, (f"{number}", task.name, color))
    _guessing(chart, dense, [mean for mean, _ in found])
    chart.add_hline(y=0, line={"color": GREY, "dash": "dash", "width": 1}, row=1, col=1)
    name_line(chart, 0, "whole model", "bottom")
    chart.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1}, row=2, col=1)
    _perplexities(chart, dense, points)
    chart.update_layout(meta={"groups": groups, "slides": True})
    return chart


def removed(dense: Evaluated, point: Evaluated) -> float:
    """Share of the parameters that is removed, in %."""
    return round(100 * (1 - point.parameters / dense.parameters), 2)


def frame(share: float, accuracy: str, perplexity: str) -> go.Figure:
    """Two empty rows, accuracy above perplexity, down to `share` of the parameters removed.

    Args:
        accuracy, perplexity: titles of their axes.
    """
    chart = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.6, 0.4],
        vertical_spacing=0.08,
        figure=figure(),
    )
    # Every run begins with the whole model, on the left.
    chart.update_xaxes(range=[-1, 100 * share + 1.5], gridcolor=FAINT, zeroline=False)
    chart.update_xaxes(title={"text": "parameters removed, %", "standoff": 6}, row=2, col=1)
    chart.update_yaxes(gridcolor=FAINT, zeroline=False, nticks=5)
    chart.update_yaxes(title={"text": accuracy, "standoff": 8}, row=1, col=1)
    chart.update_yaxes(title={"text": perplexity, "standoff": 8}, row=2, col=1)
    return chart


def _add(
    chart: go.Figure,
    points: Sequence[Evaluated],
    found: Sequence[Change],
    dense: Evaluated,
    look: tuple[str, str, str],
) -> None:
    """The line and the band of a group, see `cost_curves`; `look` is its name, words and colour."""
    group, words, color = look
    x = [removed(dense, point) for point in points]
    y = [round(100 * one.difference, 2) for one in found]
    error = [round(100 * one.se, 2) for one in found]
    shown = {"legendgroup": group, "visible": group == MEAN}
    chart.add_trace(
        go.Scatter(
            x=x + x[::-1],
            y=[a + e for a, e in zip(y, error, strict=True)]
            + [a - e for a, e in reversed(list(zip(y, error, strict=True)))],
            mode="lines",
            fill="toself",
            fillcolor=faint(color),
            line_width=0,
            hoverinfo="skip",
            **shown,
        ),
        1,
        1,
    )
    facts = [
        [name_of(p), e, f"{percent(one.before)} → {percent(one.after)}"]
        for p, e, one in zip(points, error, found, strict=True)
    ]
    chart.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name=words,
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 7},
            customdata=facts,
            hovertemplate=f"%{{customdata[0]}}, {words}<br>%{{y:+.1f}} ± %{{customdata[1]:.1f}} points<br>"
            "%{customdata[2]}<br>%{x:.1f} % removed<extra></extra>",
            **shown,
        ),
        1,
        1,
    )


def _guessing(chart: go.Figure, dense: Evaluated, found: Sequence[Change]) -> None:
    """Where guessing would be, if the mean comes near to it."""
    chance = 100 * (sum(t.chance for t in dense.tasks) / len(dense.tasks) - dense.accuracy)
    if min(100 * (one.difference - one.se) for one in found) > chance + NEAR:
        return
    chart.add_trace(
        go.Scatter(
            x=[-1, 100],
            y=[chance, chance],
            mode="lines+text",
            text=["guessing", ""],
            textposition="top right",
            line={"color": GREY, "dash": "dot", "width": 1},
            hoverinfo="skip",
            legendgroup=MEAN,
        ),
        1,
        1,
    )


def _perplexities(chart: go.Figure, dense: Evaluated, points: Sequence[Evaluated]) -> None:
    ratios = [round(p.perplexity / dense.perplexity, 4) for p in points]
    facts = [[name_of(p), f"{p.perplexity:.2f} ± {p.perplexity_se:.2f}"] for p in points]
    chart.add_trace(
        go.Scatter(
            x=[removed(dense, p) for p in points],
            y=ratios,
            mode="lines+markers",
            line={"color": ACCENT, "width": 2},
            marker={"size": 7},
            customdata=facts,
            hovertemplate="%{customdata[0]}<br>perplexity %{customdata[1]}<br>%{y:.2f} times the whole "
            "model's<extra></extra>",
        ),
        2,
        1,
    )
    if max(ratios) > WIDE * min(ratios):
        title = {"text": "perplexity, × (log)", "standoff": 8}
        chart.update_yaxes(type="log", title=title, nticks=4, row=2, col=1)
    else:
        low, span = min(ratios), max(max(ratios) - min(ratios), SPAN)
        middle = (low + max(ratios)) / 2
        chart.update_yaxes(range=[middle - 0.6 * span, middle + 0.6 * span], row=2, col=1)


def name_of(point: Evaluated) -> str:
    """Which model a measurement is of."""
    if point.of_dense:
        return "whole model"
    words = [f"iteration {point.iteration}"] * bool(point.iteration) + ["finished model"] * point.final
    return ", ".join(words)
