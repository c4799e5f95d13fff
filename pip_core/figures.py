"""A run's story as Plotly figures and a table. No gradio, no torch.

Colours: the heatmap's map is perceptually even and readable without colour vision; amber marks the
block about to go; everything else is one accent and greys that read on light and dark alike.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .narrate import removed_words
from .story import Story
from .units import BLOCKS, DEPTH, TITLES

ACCENT = "#2f6fde"
AMBER = "#f59e0b"
GREY = "#80868f"
FAINT = "rgba(128,134,143,0.22)"
BAND = "rgba(47,111,222,0.16)"
SKELETON = "rgba(128,134,143,0.13)"
FLOOR = 0.01
HEATMAP_HEIGHT = 380
CURVES_HEIGHT = 380

_LAYOUT = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "Inter, system-ui, sans-serif", "size": 12, "color": GREY},
    "margin": {"l": 52, "r": 14, "t": 30, "b": 44},
    "showlegend": False,
    "hoverlabel": {"font": {"family": "Inter, system-ui, sans-serif", "size": 12}},
}


def importance_heatmap(story: Story) -> go.Figure:
    """Iteration by block: score over the row's largest, on a log scale that spans what occurs.

    One row per kind of units where there are several. Where blocks or halves go, a removed one's
    cells are empty and struck out, and what goes next is outlined.
    """
    blocks = story.started.blocks if story.started else 30
    kinds = story.started.units if story.started else (BLOCKS,)
    rows = (story.planned or 8) * len(kinds)
    place = {kind: n + 1 - len(kinds) for n, kind in enumerate(kinds)}
    gone = {
        (unit.kind, unit.block): removal.iteration
        for removal in story.removals
        for unit in removal.units
        if unit.kind in DEPTH
    }
    figure = go.Figure()
    values, hover = _rows(story, blocks)
    shown = [v for row in values for v in row if v is not None]
    lowest = min(shown, default=-1.0)
    # Cells still to come stand there from the start, so that nothing moves when a row fills.
    waiting = list(range(len(values) + 1, rows + 1))
    figure.add_trace(
        go.Heatmap(
            z=[
                [0 if (kinds[(y - 1) % len(kinds)], b) not in gone else None for b in range(blocks)]
                for y in waiting
            ],
            x=list(range(blocks)),
            y=waiting,
            colorscale=[[0, SKELETON], [1, SKELETON]],
            showscale=False,
            xgap=1,
            ygap=1,
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=list(range(blocks)),
            y=list(range(1, len(values) + 1)),
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale="Cividis",
            zmin=lowest,
            zmax=0,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={
                "thickness": 8,
                "len": 0.9,
                "outlinewidth": 0,
                "tickvals": [0, lowest / 2, lowest],
                "ticktext": ["largest", f"{10 ** (lowest / 2):.0%}", f"{10**lowest:.0%}"],
                "tickfont": {"size": 10},
            },
        )
    )
    struck = [
        (block, y)
        for (kind, block), iteration in gone.items()
        for y in range((iteration + 1) * len(kinds) + place[kind], rows + 1, len(kinds))
    ]
    figure.add_trace(
        go.Scatter(
            x=[b for b, _ in struck],
            y=[y for _, y in struck],
            mode="markers",
            marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.2, "color": GREY}},
            hovertemplate="block %{x} is gone<extra></extra>",
        )
    )
    for (kind, block), iteration in gone.items():
        y = iteration * len(kinds) + place[kind]
        figure.add_shape(
            type="rect",
            x0=block - 0.5,
            x1=block + 0.5,
            y0=y - 0.5,
            y1=y + 0.5,
            line={"color": AMBER, "width": 2.5},
        )
    named = " and ".join(TITLES[k] for k in kinds)
    ticks = list(range(1, rows + 1, len(kinds) * (1 if rows <= 24 else 5)))
    figure.update_layout(
        **_LAYOUT,
        height=HEATMAP_HEIGHT,
        title=_title("Importance of every block" if kinds == (BLOCKS,) else f"Importance of the {named}"),
    )
    figure.update_xaxes(
        title="block of the dense model",
        range=[-0.6, blocks - 0.4],
        showgrid=False,
        zeroline=False,
        dtick=1 if blocks <= 16 else 5,
    )
    figure.update_yaxes(
        title="iteration" if len(kinds) == 1 else f"iteration ({', then '.join(TITLES[k] for k in kinds)})",
        range=[rows + 0.5, 0.5],
        showgrid=False,
        zeroline=False,
        tickvals=ticks,
        ticktext=[str((y - 1) // len(kinds) + 1) for y in ticks],
    )
    if not values:
        _say(
            figure,
            "Each row will be one iteration,<br>each column a block.<br>Dark blocks matter least;<br>"
            "the one outlined in amber goes.",
        )
    return figure


def cost_curves(story: Story) -> go.Figure:
    """Accuracy (with a band of one standard error) and perplexity against parameters kept."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.1)
    share = story.started.planned_share if story.started else 0.2
    figure.update_layout(**_LAYOUT, height=CURVES_HEIGHT, title=_title("What it costs"))
    figure.update_xaxes(range=[100 * (1 - share) - 1.5, 101], gridcolor=FAINT, zeroline=False)
    figure.update_xaxes(title="parameters kept, %", row=2, col=1)
    figure.update_yaxes(gridcolor=FAINT, zeroline=False, nticks=5)
    figure.update_yaxes(title="accuracy, %", row=1, col=1)
    figure.update_yaxes(title="perplexity", row=2, col=1)
    if story.dense is None:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        _say(figure, "Accuracy and perplexity will be drawn here<br>after every removal.")
        return figure
    dense, points = story.dense, [story.evaluated[i] for i in sorted(story.evaluated)]
    x = [round(100 * p.parameters / dense.parameters, 2) for p in points]
    accuracy = [100 * p.accuracy for p in points]
    error = [100 * p.accuracy_se for p in points]
    band = [a + e for a, e in zip(accuracy, error, strict=True)]
    band += [a - e for a, e in reversed(list(zip(accuracy, error, strict=True)))]
    chance = 100 * sum(t.chance for t in dense.tasks) / len(dense.tasks)
    names = ["dense model" if p.iteration == 0 else f"iteration {p.iteration}" for p in points]
    figure.add_trace(
        go.Scatter(
            x=x + x[::-1],
            y=band,
            mode="lines",
            fill="toself",
            fillcolor=BAND,
            line_width=0,
            hoverinfo="skip",
        ),
        1,
        1,
    )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=accuracy,
            mode="lines+markers",
            line={"color": ACCENT, "width": 2},
            marker={"size": 7},
            customdata=list(zip(names, error, strict=True)),
            hovertemplate="%{customdata[0]}<br>%{y:.1f} ± %{customdata[1]:.1f} % right<br>"
            "%{x:.1f} % of the parameters<extra></extra>",
        ),
        1,
        1,
    )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=[p.perplexity for p in points],
            mode="lines+markers",
            line={"color": ACCENT, "width": 2},
            marker={"size": 7},
            customdata=list(zip(names, [p.perplexity_se for p in points], strict=True)),
            hovertemplate="%{customdata[0]}<br>perplexity %{y:.2f} ± %{customdata[1]:.2f}<extra></extra>",
        ),
        2,
        1,
    )
    for row, level in ((1, accuracy[0]), (2, dense.perplexity)):
        figure.add_hline(y=level, line={"color": GREY, "dash": "dash", "width": 1}, row=row, col=1)
    _name_line(figure, accuracy[0], "dense")
    low, high = min(a - e for a, e in zip(accuracy, error, strict=True)), max(band)
    if low < chance + 15:
        figure.add_hline(y=chance, line={"color": GREY, "dash": "dot", "width": 1}, row=1, col=1)
        _name_line(figure, chance, "guessing")
        low = min(low, chance)
    figure.update_yaxes(range=[max(0, low - 4), min(100, high + 4)], row=1, col=1)
    perplexities = [p.perplexity for p in points]
    if max(perplexities) > 4 * min(perplexities):
        figure.update_yaxes(type="log", row=2, col=1)
    else:
        figure.update_yaxes(range=[0, 1.15 * max(perplexities)], row=2, col=1)
    return figure


def removal_table(story: Story) -> pd.DataFrame:
    """One row per removal: what went, how little it mattered, and what the model was worth then."""
    rows = []
    for removal in story.removals:
        measured = story.evaluated.get(removal.iteration)
        rows.append(
            {
                "iteration": removal.iteration,
                "removed": removed_words(removal),
                "score": f"{removal.score:.4g}",
                "of the largest": f"{removal.relative:.1%}",
                "parameters left": f"{removal.parameters / 1e6:.1f}M",
                "accuracy": f"{measured.accuracy:.1%} ± {measured.accuracy_se:.1%}" if measured else "...",
                "perplexity": f"{measured.perplexity:.2f}" if measured else "...",
            }
        )
    return pd.DataFrame(rows)


def _rows(story: Story, blocks: int) -> tuple[list[list[float | None]], list[list[str]]]:
    """Heatmap values (log10 of score over the row's largest) and hover texts, a row per iteration
    and kind."""
    values, hover = [], []
    ranks: dict[str, dict[int, int]] = {}
    order = story.started.units if story.started else (BLOCKS,)
    for iteration, kind in sorted(story.scored, key=lambda s: (s[0], order.index(s[1]))):
        scores, previous = story.scored[iteration, kind].scores, ranks.get(kind, {})
        present = [s for s in scores if s is not None]
        top = max(present) or 1.0
        ranked = sorted((s, b) for b, s in enumerate(scores) if s is not None)
        rank = {b: i + 1 for i, (_, b) in enumerate(ranked)}
        what = "" if kind == BLOCKS else f", {TITLES[kind]}"
        score = "score" if kind in DEPTH else "mean score"
        values.append([None if s is None else round(math.log10(max(s / top, FLOOR)), 3) for s in scores])
        hover.append(
            [
                ""
                if b not in rank
                else f"block {b}{what}, iteration {iteration}<br>{score} {scores[b]:.4g} "
                f"({scores[b] / top:.1%} of the largest)<br>rank {rank[b]} of {len(present)}"
                f"{_moved(previous.get(b), rank[b])} (1 matters least)"
                for b in range(blocks)
            ]
        )
        ranks[kind] = rank
    return values, hover


def _moved(before: int | None, now: int) -> str:
    return "" if before is None or before == now else f", was {before}"


def _title(text: str) -> dict:
    return {"text": text, "x": 0, "xref": "paper", "font": {"size": 14}, "y": 0.985, "yanchor": "top"}


def _name_line(figure: go.Figure, y: float, text: str) -> None:
    """Write `text` on a horizontal line of the accuracy chart, at its left end."""
    figure.add_annotation(
        x=0,
        xref="x domain",
        y=y,
        yref="y",
        text=text,
        showarrow=False,
        yanchor="bottom",
        xanchor="left",
        font={"size": 11},
    )


def _say(figure: go.Figure, text: str) -> None:
    """Say in an empty chart what will appear."""
    figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 13}
    )
