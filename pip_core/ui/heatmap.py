"""The heatmap of a run: iteration by block, pale where unimportant. And its numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ..core.figures import percent
from ..core.units import BLOCKS, DEPTH, TITLES, WIDTH
from ..reporting.run_summary import RunSummary
from ..reporting.theme import (
    ACCENT,
    AMBER,
    GREY,
    IMPORTANCE,
    SKELETON,
    Figure,
    add_level,
    add_lock,
    add_trace,
    figure,
    hatched,
    set_axes,
)
from ..structure.anatomy import Anatomy
from .html import table
from .shares import Shares, removed_shares

# Blocks that are drawn where their number is not known yet.
UNKNOWN = 30
# The colour scale spans two decades at most: below a hundredth of the largest all is alike.
FLOOR = 0.01
# What a block is where it has no score: state -> words.
REMOVED, KEPT, UNSCORED = "removed", "kept", "not scored"
WHY = {
    REMOVED: "removed before",
    KEPT: "kept: you locked it, or put it back",
    UNSCORED: "nothing of it can be removed by this method",
}


def ranking(summary: RunSummary) -> dict[tuple[int, str], dict[int, int]]:
    """(iteration, kind) -> block -> rank, 1 being the lowest score."""
    return {
        key: {
            block: place
            for place, (_, block) in enumerate(
                sorted((s, b) for b, s in enumerate(scored.scores) if s is not None), start=1
            )
        }
        for key, scored in summary.scored.items()
    }


def removed_blocks(summary: RunSummary) -> dict[tuple[str, int], int]:
    """(depth kind, block) -> the iteration in which it was removed."""
    return {
        (unit.kind, unit.block): removal.iteration
        for removal in summary.removals
        for unit in removal.units
        if unit.kind in DEPTH
    }


def unscored(summary: RunSummary, key: tuple[int, str], block: int, keep: Collection[int]) -> str:
    """Why a block has no score for an (iteration, kind): it was removed, is kept, or is not scored at all."""
    iteration, kind = key
    removed = removed_blocks(summary)
    for gone in (kind, BLOCKS):
        if removed.get((gone, block), iteration) < iteration:
            return REMOVED
    return KEPT if block in keep or (kind, block) in summary.pinned else UNSCORED


def likely_next(summary: RunSummary) -> tuple[str, int] | None:
    """(kind, block) with the lowest score of those left; None where heads or channels are removed, or nothing
    more will be."""
    if not summary.scored or summary.ending is not None or summary.started is None:
        return None
    last, removed = max(i for i, _ in summary.scored), removed_blocks(summary)
    if any(i == last and kind in WIDTH for i, kind in summary.scored):
        return None
    left = [
        (score, kind, block)
        for (iteration, kind), scored in summary.scored.items()
        if iteration == last and kind in DEPTH
        for block, score in enumerate(scored.scores)
        if score is not None and (kind, block) not in removed
    ]
    if len(summary.removals) >= summary.planned or not left:
        return None
    return min(left)[1:]


def locked(summary: RunSummary, keep: Collection[int] = ()) -> list[int]:
    """Blocks that stay: the recipe keeps them, or they were put back."""
    blocks = summary.blocks
    return sorted(b for b in {*keep, *(b for _, b in summary.pinned)} if b < blocks)


def importance_heatmap(
    summary: RunSummary, keep: Collection[int] = (), anatomy: Anatomy | None = None
) -> Figure:
    """Iteration by block: score over the row's largest, on a log scale that spans what occurs.

    One row per kind of units where there are several. Of blocks and halves, those removed are hatched from
    the row of their removal on, the likely next one is outlined dotted, and those that stay have a lock. Of
    heads and channels, as much of a cell is hatched as was removed of the block.

    Args:
        keep: blocks that the recipe keeps.
        anatomy: of the dense model; without it no share of a block is known.
    """
    blocks = summary.blocks or UNKNOWN
    kinds = summary.units
    rows = max(summary.planned or 8, len(summary.removals), max((i for i, _ in summary.scored), default=0))
    rows *= len(kinds)
    place = {kind: n + 1 - len(kinds) for n, kind in enumerate(kinds)}
    removed = removed_blocks(summary)
    chart = figure()
    shares = removed_shares(summary, anatomy)
    values, facts = _rows(summary, blocks, shares)
    ranks = ranking(summary)
    # A removal that the recipe forced has no scores, so a row may be missing.
    scored = [(i - 1) * len(kinds) + kinds.index(k) + 1 for i, k in in_order(summary)]
    lowest = min((v for row in values for v in row if v is not None), default=-1.0)
    # Cells still to come are drawn from the start, so that nothing moves when a row fills.
    waiting = [y for y in range(1, rows + 1) if y not in scored]
    cells = {"type": "heatmap", "x": list(range(blocks)), "showscale": False, "xgap": 1, "ygap": 1}
    to_come = {
        "z": [
            [
                0 if removed.get((kinds[(y - 1) % len(kinds)], b), rows) * len(kinds) >= y else None
                for b in range(blocks)
            ]
            for y in waiting
        ],
        "y": waiting,
        "colorscale": [[0, SKELETON], [1, SKELETON]],
        "hoverinfo": "skip",
    }
    add_trace(chart, {**cells, **to_come})
    found = {
        "z": values,
        "y": scored,
        "customdata": facts,
        "hovertemplate": "block %{x}%{customdata[0]}<br>score %{customdata[1]}, %{customdata[2]} of the "
        "largest<br>rank %{customdata[3]} (1 = least important)%{customdata[4]}<extra></extra>",
        # Ranks; the browser leaves them out where cells are too narrow for a number.
        "text": [[ranks[key].get(b, "") for b in range(blocks)] for key in in_order(summary)],
        "texttemplate": "%{text}",
        "textfont": {"size": 10},
        "colorscale": IMPORTANCE,
        "zmin": lowest,
        "zmax": 0,
        "hoverongaps": False,
    }
    add_trace(chart, {**cells, **found})
    now, before = [], []
    for (kind, block), iteration in removed.items():
        now.append((block, iteration * len(kinds) + place[kind], 0.0, 1.0))
        later = range((iteration + 1) * len(kinds) + place[kind], rows + 1, len(kinds))
        before += [(block, y, 0.0, 1.0) for y in later]
    for (iteration, kind), of_blocks in shares.items():
        y = iteration * len(kinds) + place[kind]
        earlier = shares.get((iteration - 1, kind), {})
        for block, share in of_blocks.items():
            before.append((block, y, 0.0, earlier.get(block, 0.0)))
            now.append((block, y, earlier.get(block, 0.0), share))
    _hatch(chart, now, AMBER)
    _hatch(chart, before, GREY)
    for block in locked(summary, keep):
        # Where it has no score any more: what was put back had some.
        last = max((y for y, row in zip(scored, values, strict=True) if row[block] is not None), default=0)
        add_lock(chart, block, min(last + 1, rows), (0.7, 0.6), "middle")
    for (kind, block), iteration in removed.items():
        _outline(chart, block, iteration * len(kinds) + place[kind], "solid")
    branch = summary.forked
    if branch and summary.started and branch.iterations and "method" in branch.changed:
        y = branch.iterations * len(kinds) + 0.5
        add_level(chart, y, {"color": ACCENT, "width": 2})
        corner = {"x": 1, "xref": "x domain", "xanchor": "right", "y": y, "yref": "y", "yanchor": "top"}
        said = {"text": f"from here on by {summary.started.method}", "font": {"size": 11, "color": ACCENT}}
        chart["layout"]["annotations"].append({"showarrow": False, **said, **corner})
    if (following := likely_next(summary)) is not None and values:
        kind, block = following
        last = max(i for i, _ in summary.scored)
        _outline(chart, block, last * len(kinds) + place[kind], "dot")
    every = len(kinds) * max(1, math.ceil(rows / len(kinds) / 12))
    ticks = list(range(1, rows + 1, every))
    set_axes(
        chart,
        "x",
        title={"text": "block of the whole model", "standoff": 6},
        range=[-0.6, blocks - 0.4],
        showgrid=False,
        zeroline=False,
        dtick=1 if blocks <= 8 else 2 if blocks <= 16 else 5 if blocks <= 60 else 10,
        tickangle=0,
    )
    order = "" if len(kinds) == 1 else f" ({', then '.join(TITLES[k] for k in kinds)})"
    set_axes(
        chart,
        "y",
        title={"text": f"iteration{order}"},
        range=[rows + 0.5, 0.5],
        showgrid=False,
        zeroline=False,
        tickvals=ticks,
        ticktext=[str((y - 1) // len(kinds) + 1) for y in ticks],
    )
    return chart


def score_table(summary: RunSummary, keep: Collection[int] = ()) -> str:
    """Every block's score (share of the iteration's largest) and rank, a column per iteration; where there is
    none, why.

    Args:
        keep: blocks that the recipe keeps.
    """
    if summary.started is None or not summary.scored:
        return "<p class='empty'>The score of every block appears here, iteration by iteration.</p>"
    ranks, removed = ranking(summary), removed_blocks(summary)
    order = summary.started.units
    keys = in_order(summary)
    head = ["block"] + [f"{i}" if len(order) == 1 else f"{i} · {TITLES[k]}" for i, k in keys]
    tops = {key: max(s for s in summary.scored[key].scores if s is not None) or 1.0 for key in keys}
    rows = []
    for block in range(summary.started.blocks):
        cells = []
        for key in keys:
            score = summary.scored[key].scores[block]
            if score is None:
                state = unscored(summary, key, block, keep)
                cells.append(f"<td class='absent' title='{WHY[state]}'>{state}</td>")
                continue
            now = removed.get((key[1], block)) == key[0]
            cells.append(
                f"<td{' class=removed' if now else ''} title='score {score:.4g}'>"
                f"{percent(score / tops[key])} <small>#{ranks[key][block]}</small></td>"
            )
        rows.append([str(block), *cells])
    means = "".join(f", of {TITLES[kind]} the mean," for kind in order if kind in WIDTH)
    return table(
        head,
        rows,
        f"Score of every block{means} as a share of its iteration's largest, with its rank (1 = least "
        "important)",
    )


def in_order(summary: RunSummary) -> list[tuple[int, str]]:
    """What was scored, iteration by iteration, kinds as the recipe names them."""
    order = summary.units
    return sorted(summary.scored, key=lambda k: (k[0], order.index(k[1])))


def _outline(chart: Figure, block: int, y: int, dash: str) -> None:
    corners = {"x0": block - 0.5, "x1": block + 0.5, "y0": y - 0.5, "y1": y + 0.5}
    line = {"color": AMBER, "width": 2.5 if dash == "solid" else 2, "dash": dash}
    chart["layout"]["shapes"].append({"type": "rect", "line": line, **corners})


def _hatch(chart: Figure, parts: Sequence[tuple[int, int, float, float]], color: str) -> None:
    """Hatch parts of cells, each (block, row, from, to), shares of the cell's height from its bottom. Equal
    parts side by side are drawn as one."""
    x: list[float | None] = []
    y: list[float | None] = []
    runs: list[tuple[int, int, int, float, float]] = []  # first block, last block, and what they share
    for block, row, low, high in sorted(parts, key=lambda part: (part[1], part[0])):
        if runs and runs[-1][1:] == (block - 1, row, low, high):
            runs[-1] = (runs[-1][0], block, row, low, high)
        else:
            runs.append((block, block, row, low, high))
    for first, last, row, low, high in runs:
        if high > low:
            x += [first - 0.5, last + 0.5, last + 0.5, first - 0.5, first - 0.5, None]
            bottom, top = round(row + 0.5 - low, 4), round(row + 0.5 - high, 4)
            y += [bottom, bottom, top, top, bottom, None]
    if not x:
        return
    areas = {"x": x, "y": y, "mode": "none", "fill": "toself", "fillpattern": hatched(color)}
    add_trace(chart, {"type": "scatter", "hoverinfo": "skip", **areas})


def _rows(
    summary: RunSummary, blocks: int, shares: Shares
) -> tuple[list[list[float | None]], list[list[list[str]]]]:
    """Values (log10 of score over the largest of the row) and the texts shown on hovering over each cell, a
    row per iteration and kind."""
    values, facts = [], []
    ranks, before = ranking(summary), {}  # kind -> ranks of the iteration before
    for key in in_order(summary):
        kind, scores, rank = key[1], summary.scored[key].scores, ranks[key]
        top = max((s for s in scores if s is not None), default=0.0) or 1.0
        what = (
            ""
            if kind == BLOCKS
            else f", {TITLES[kind]}"
            if kind in DEPTH
            else f", mean of its {TITLES[kind]}"
        )
        values.append([None if s is None else round(math.log10(max(s / top, FLOOR)), 3) for s in scores])
        facts.append(
            [
                [""] * 5
                if b not in rank
                else [
                    what,
                    f"{scores[b]:.3g}",
                    percent(scores[b] / top),
                    f"{rank[b]} of {len(rank)}{_moved(before.get(kind, {}).get(b), rank[b])}",
                    _gone(shares, key, b),
                ]
                for b in range(blocks)
            ]
        )
        before[kind] = rank
    return values, facts


def _gone(shares: Shares, key: tuple[int, str], block: int) -> str:
    """How much of a block's heads or channels is removed after an iteration, in words."""
    share = shares.get(key, {}).get(block)
    return "" if share is None else f"<br>{percent(share)} of its {TITLES[key[1]]} removed by then"


def _moved(before: int | None, now: int) -> str:
    return "" if before is None or before == now else f", was {before}"
