"""What pruning costs, drawn as the change from the dense model: accuracy in points, times the perplexity."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.events import Evaluated
from ..core.figures import percent
from ..evaluation.statistics import Change, changes
from ..reporting.messages import describe_perplexity
from ..reporting.run_summary import RunSummary
from ..reporting.theme import (
    ACCENT,
    FAINT,
    GREY,
    LINES,
    Figure,
    add_level,
    add_trace,
    faint,
    figure,
    lay_rows,
    name_line,
    say,
    set_axes,
)

MEAN = "mean"
# Perplexities that are further apart than this are drawn on a logarithmic axis.
WIDE = 4.0
# The least span of that axis: what is smaller is noise, and is not to look like news.
SPAN = 0.05
# Guessing is drawn where an accuracy comes this near to it, in points.
NEAR = 15.0
# Of the span of the accuracies, the room that a line of text takes.
ROOM = 0.1


def cost_curves(summary: RunSummary) -> Figure:
    """Change of the accuracy, with a band of its paired standard error, and multiple of the perplexity,
    against the share of parameters removed. The mean over tasks and every task are groups of traces that the
    reader shows and hides (`layout.meta.groups`: name, words, colour); at first the mean alone is shown."""
    points = summary.measured if summary.dense else []
    share = summary.started.planned_share if summary.started else 0.2
    chart = frame(share, "accuracy, points", "perplexity, ×")
    chart["layout"]["meta"] = {"groups": [], "slides": True}
    if not points:
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
    add_level(chart, 0, {"color": GREY, "dash": "dash", "width": 1})
    name_line(chart, 0, "whole model", "bottom" if _chance(dense) <= 0 else "top")
    add_level(chart, 1, {"color": GREY, "dash": "dash", "width": 1}, row=2)
    _perplexities(chart, dense, points)
    chart["layout"]["meta"] = {"groups": groups, "slides": True}
    return chart


def removed(dense: Evaluated, point: Evaluated) -> float:
    """Share of the parameters that is removed, in %."""
    return round(100 * (1 - point.parameters / dense.parameters), 2)


def frame(share: float, accuracy: str, perplexity: str) -> Figure:
    """Two empty rows, accuracy above perplexity, down to `share` of the parameters removed.

    Args:
        accuracy, perplexity: titles of their axes.
    """
    chart = figure()
    lay_rows(chart, (0.6, 0.4), gap=0.08)
    # Every run begins with the whole model, on the left.
    set_axes(chart, "x", range=[-1, 100 * share + 1.5], gridcolor=FAINT, zeroline=False)
    set_axes(chart, "x", 1, matches="x2", showticklabels=False)
    set_axes(chart, "x", 2, title={"text": "parameters removed, %", "standoff": 6})
    set_axes(chart, "y", gridcolor=FAINT, zeroline=False, nticks=5)
    set_axes(chart, "y", 1, title={"text": accuracy, "standoff": 8})
    set_axes(chart, "y", 2, title={"text": perplexity, "standoff": 8})
    return chart


def _add(
    chart: Figure,
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
    upper = [a + e for a, e in zip(y, error, strict=True)]
    lower = [a - e for a, e in zip(y, error, strict=True)]
    band = {
        "type": "scatter",
        "x": x + x[::-1],
        "y": upper + lower[::-1],
        "mode": "lines",
        "fill": "toself",
        "fillcolor": faint(color),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    add_trace(chart, {**band, **shown})
    facts = [
        [name_of(p), e, f"{percent(one.before)} → {percent(one.after)}"]
        for p, e, one in zip(points, error, found, strict=True)
    ]
    line = {
        "type": "scatter",
        "x": x,
        "y": y,
        "name": words,
        "mode": "lines+markers",
        "line": {"color": color, "width": 2},
        "marker": {"size": 7},
        "customdata": facts,
        "hovertemplate": f"%{{customdata[0]}}, {words}<br>%{{y:+.1f}} ± %{{customdata[1]:.1f}} points<br>"
        "%{customdata[2]}<br>%{x:.1f} % removed<extra></extra>",
    }
    add_trace(chart, {**line, **shown})


def _guessing(chart: Figure, dense: Evaluated, found: Sequence[Change]) -> None:
    """Where guessing would be, if the mean comes near to it."""
    chance = _chance(dense)
    low = min(100 * (one.difference - one.se) for one in found)
    if low > chance + NEAR:
        return
    # The name stands on the side of its line on which that of the whole model's, at 0, is not. Below the
    # lowest line there is no room for it, unless something is drawn there.
    side = -1 if chance <= 0 else 1
    high = max(100 * (one.difference + one.se) for one in found)
    room = ROOM * (max(high, chance, 0.0) - min(low, chance))
    level = {
        "type": "scatter",
        "x": [-1, 100],
        "y": [chance, chance],
        "mode": "lines+text",
        "text": ["guessing", ""],
        "textposition": "bottom right" if side < 0 else "top right",
        "line": {"color": GREY, "dash": "dot", "width": 1},
        "hoverinfo": "skip",
        "legendgroup": MEAN,
    }
    add_trace(chart, level)
    nothing = {"type": "scatter", "x": [0], "y": [chance + side * room], "mode": "markers", "opacity": 0}
    add_trace(chart, {**nothing, "hoverinfo": "skip", "legendgroup": MEAN})


def _chance(dense: Evaluated) -> float:
    """Accuracy of guessing, in points from the whole model's."""
    return 100 * (sum(t.chance for t in dense.tasks) / len(dense.tasks) - dense.accuracy)


def _perplexities(chart: Figure, dense: Evaluated, points: Sequence[Evaluated]) -> None:
    ratios = [round(p.perplexity / dense.perplexity, 4) for p in points]
    facts = [[name_of(p), describe_perplexity(p)] for p in points]
    line = {
        "type": "scatter",
        "x": [removed(dense, p) for p in points],
        "y": ratios,
        "mode": "lines+markers",
        "line": {"color": ACCENT, "width": 2},
        "marker": {"size": 7},
        "customdata": facts,
        "hovertemplate": "%{customdata[0]}<br>perplexity %{customdata[1]}<br>%{y:.2f} times the whole "
        "model's<extra></extra>",
    }
    add_trace(chart, line, row=2)
    if max(ratios) > WIDE * min(ratios):
        title = {"text": "perplexity, × (log)", "standoff": 8}
        set_axes(chart, "y", 2, type="log", title=title, nticks=4)
    else:
        low, span = min(ratios), max(max(ratios) - min(ratios), SPAN)
        middle = (low + max(ratios)) / 2
        set_axes(chart, "y", 2, range=[middle - 0.6 * span, middle + 0.6 * span])


def name_of(point: Evaluated) -> str:
    """Which model a measurement is of."""
    if point.of_dense:
        return "whole model"
    words = [f"iteration {point.iteration}"] * bool(point.iteration) + ["finished model"] * point.final
    return ", ".join(words)
