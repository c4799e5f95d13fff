"""How important every block is: a heatmap of several iterations, sorted bars of a single one."""

from __future__ import annotations

import math
from collections.abc import Collection

from ..core.figures import percent
from ..core.units import BLOCKS, TITLES, WIDTH
from ..reporting.run_summary import RunSummary
from ..reporting.theme import (
    AMBER,
    FAINT,
    IMPORTANCE,
    LOCK,
    SKELETON,
    Figure,
    add_lock,
    add_trace,
    figure,
    hatched,
    lay_rows,
    set_axes,
)
from ..structure.anatomy import Anatomy
from .heatmap import FLOOR, UNKNOWN, importance_heatmap, locked, ranking, removed_blocks
from .shares import Shares, removed_shares

# Blocks whose numbers fit below the bars.
NUMBERED = 40


def importance(summary: RunSummary, keep: Collection[int] = (), anatomy: Anatomy | None = None) -> Figure:
    """The chart of a run's scores.

    Args:
        keep: blocks that the recipe keeps.
        anatomy: of the dense model; without it no share of a block is known.
    """
    if is_one(summary):
        return bars(summary, keep, removed_shares(summary, anatomy))
    return importance_heatmap(summary, keep, anatomy)


def is_one(summary: RunSummary) -> bool:
    """Whether all is removed in one iteration."""
    most = max((i for i, _ in summary.scored), default=0)
    return summary.planned == 1 and len(summary.removals) <= 1 and most <= 1


def bars(summary: RunSummary, keep: Collection[int], shares: Shares) -> Figure:
    """Every block's score, the least important first, a row per kind of units. What is removed is hatched:
    the bar of a block or half, and of heads and channels as much of the bar as is removed of the block."""
    kinds = summary.units
    blocks = summary.blocks or UNKNOWN
    chart = figure()
    lay_rows(chart, (1 / len(kinds),) * len(kinds), gap=0.2)
    chart["layout"] |= {"barmode": "overlay", "bargap": 0.15, "uirevision": "bars"}
    for row, kind in enumerate(kinds, start=1):
        _add_kind(chart, row, summary, kind, keep, shares)
    set_axes(
        chart,
        "x",
        type="category",
        showgrid=False,
        dtick=max(1, math.ceil(blocks / NUMBERED)),
        tickfont={"size": 12 if blocks <= 16 else 9},
        range=[-0.6, blocks - 0.4],
    )
    set_axes(chart, "y", range=[0, 106], gridcolor=FAINT, zeroline=False, nticks=5)
    for row, kind in enumerate(kinds, start=1):
        what = "" if len(kinds) == 1 else f"{TITLES[kind]}, "
        set_axes(chart, "y", row, title={"text": f"{what}% of the highest", "standoff": 6})
    last = {"text": "block, the least important first", "standoff": 6}
    set_axes(chart, "x", len(kinds), title=last)
    return chart


def _add_kind(
    chart: Figure, row: int, summary: RunSummary, kind: str, keep: Collection[int], shares: Shares
) -> None:
    blocks = summary.blocks or UNKNOWN
    event = summary.scored.get((1, kind))
    scores = event.scores if event else (None,) * blocks
    rank = ranking(summary).get((1, kind), {})
    # What was removed without a score comes first, as what the recipe says; what has none otherwise, last.
    gone = {b for k, b in removed_blocks(summary) if k in (kind, BLOCKS)}
    order = sorted(range(blocks), key=lambda b: (rank.get(b, 0 if b in gone else blocks + 1), b))
    top = max((s for s in scores if s is not None), default=0.0) or 1.0
    values = [scores[b] if scores[b] is not None else None for b in order]
    heights = [None if s is None else round(100 * s / top, 2) for s in values]
    logs = [math.log10(max((h or 0) / 100, FLOOR)) for h in heights]
    lowest = min((v for v, h in zip(logs, heights, strict=True) if h is not None), default=-1.0)
    names = [str(b) for b in order]
    removed = shares.get((1, kind), {})
    # Places of bars that are still to come are drawn from the start.
    waiting = 0 if event else 100
    places = {"y": [waiting] * blocks, "marker": {"color": SKELETON}, "hoverinfo": "skip"}
    add_trace(chart, {"type": "bar", "x": names, **places}, row)
    what = f", mean of its {TITLES[kind]}" if kind in WIDTH else "" if kind == BLOCKS else f", {TITLES[kind]}"
    facts = [
        [
            f"{s:.3g}",
            f"{rank[b]} of {len(rank)}",
            f"<br>{percent(removed[b])} removed" if b in removed else "",
        ]
        if s is not None
        else [""] * 3
        for b, s in zip(order, values, strict=True)
    ]
    scored = {
        "type": "bar",
        "x": names,
        "y": heights,
        "marker": {"color": logs, "colorscale": IMPORTANCE, "cmin": lowest, "cmax": 0},
        "customdata": facts,
        "hovertemplate": f"block %{{x}}{what}<br>score %{{customdata[0]}}, %{{y:.1f}} % of the largest<br>"
        "rank %{customdata[1]} (1 = least important)%{customdata[2]}<extra></extra>",
    }
    add_trace(chart, scored, row)
    parts = [
        (h if h is not None else 100) if b in gone else (h or 0) * removed.get(b, 0)
        for b, h in zip(order, heights, strict=True)
    ]
    gone_parts = {
        "type": "bar",
        "x": names,
        "y": parts,
        "marker": {
            "color": "rgba(0,0,0,0)",
            "pattern": {**hatched(AMBER), "fillmode": "replace"},
            "line": {"color": AMBER, "width": [1.5 if p else 0 for p in parts]},
        },
        "hoverinfo": "skip",
    }
    add_trace(chart, gone_parts, row)
    for block in locked(summary, keep):
        add_lock(chart, order.index(block), 0, (0.7, 12), "bottom", row)


def legend(summary: RunSummary, keep: Collection[int] = ()) -> str:
    """What the colours and marks of the chart mean, on one line where there is room."""
    lowest = min(
        (
            max(s / (max((v for v in scored.scores if v is not None), default=0.0) or 1.0), FLOOR)
            for scored in summary.scored.values()
            for s in scored.scores
            if s is not None
        ),
        default=None,
    )
    kinds = summary.units
    least = "least important" if lowest is None else f"{percent(lowest, 0)}"
    items = [
        f"{least}<i class='ramp'></i>100 % of the highest, logarithmic",
        "<i class='hatch now'></i>removed",
    ]
    if not is_one(summary):
        items += ["<i class='hatch'></i>removed before"]
    if any(kind in WIDTH for kind in kinds):
        items += ["hatched part = share of the block"]
    if locked(summary, keep):
        items += [f"<img src=\"{LOCK}\" alt=''>kept"]
    if not is_one(summary):
        items += ["<b>1</b> = lowest score"]
    return f"<ul class='legend marks'>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
