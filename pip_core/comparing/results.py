"""What the runs of a comparison came to: rows, a table, a file for machines, a chart.

Everything is read from the runs' own directories, so a comparison can be told at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..core import events as ev
from ..core.finite import to_json
from ..core.recipe import EQUAL, Recipe
from ..core.units import WIDTH
from ..data.corpora import title
from ..engine.stages import stages_for
from ..evaluation.statistics import LEVEL, paired_comparison, retained
from ..runs.run_directory import read_events
from .chart import kept_chart
from .sweep import Entry

# Budgets that differ by more than this share of the parameters are pointed out.
ALIKE = 0.005
DENSE = "dense"
JSON, CSV, CHART, TABLE = "comparison.json", "comparison.csv", "comparison.html", "comparison.md"


@dataclass(frozen=True)
class ResultRow:
    """What a run came to; the dense model is a row too.

    Attributes:
        settings: what it was asked to remove, and how.
        lost: what went, in words.
        removed: share of the parameters that went; `target` the share that was asked for.
        tasks: task -> (accuracy, its standard error).
        kept: mean accuracy over that of the dense model, and its standard error.
        difference: mean accuracy minus the dense model's, item by item; its standard error, and how
            often chance alone makes one as large.
        scoring: seconds of all scoring; `seconds` of its worker from beginning to end, everything
            included (of the last one, where the run was interrupted).
        peak_memory: bytes, of the worker; 0 for the dense model, which has none of its own.
    """

    label: str
    curve: str
    method: str
    settings: str
    lost: str
    target: float
    removed: float
    parameters: int
    iterations: int
    perplexity: float
    perplexity_se: float
    tasks: Mapping[str, tuple[float, float]]
    accuracy: float
    accuracy_se: float
    kept: float
    kept_se: float
    difference: float
    difference_se: float
    difference_p: float
    scoring: float
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class SweepResults:
    """The rows that there are, the dense model first, and why the others are not there."""

    recipe: Recipe
    dense: ev.Evaluated | None
    rows: tuple[ResultRow, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def unlike(self) -> tuple[str, ...]:
        """Labels of the runs whose budget is not like the others' of the same target."""
        pruned = [r for r in self.rows if r.label != DENSE]
        found = []
        for target in {r.target for r in pruned}:
            same = sorted((r for r in pruned if r.target == target), key=lambda r: r.removed)
            middle = same[len(same) // 2].removed
            found += [r.label for r in same if abs(r.removed - middle) > ALIKE]
        return tuple(found)


def collect(folder: Path, entries: Sequence[Entry]) -> SweepResults:
    """Read what the runs below `folder` came to so far."""
    rows: list[ResultRow] = []
    missing: dict[str, str] = {}
    first = None
    for entry in entries:
        place = folder / entry.label
        found = read_events(place) if place.exists() else []
        # What was measured last of an iteration is after all that is done at the end.
        measured = {e.iteration: e for e in found if isinstance(e, ev.Evaluated)}
        first = first or measured.get(0)
        finished = next((e for e in reversed(found) if isinstance(e, ev.Finished)), None)
        if finished is None:
            last = found[-1] if found else None
            missing[entry.label] = last.message if isinstance(last, ev.Failed) else "It is not finished."
            continue
        scored = {e.iteration: e.seconds for e in found if isinstance(e, ev.Scored)}
        rows.append(
            ResultRow(
                label=entry.label,
                curve=entry.curve,
                method=entry.recipe.method,
                settings=_settings(entry.recipe),
                lost=finished.removed_description,
                target=entry.recipe.target,
                iterations=finished.iterations,
                scoring=sum(scored.values()),
                seconds=finished.seconds,
                peak_memory=finished.peak_memory,
                **_measured(measured[0], measured[finished.iterations]),
            )
        )
    if first is not None:
        rows.insert(
            0,
            ResultRow(
                label=DENSE,
                curve=DENSE,
                method="",
                settings="",
                lost="nothing",
                target=0.0,
                iterations=0,
                scoring=0.0,
                seconds=first.seconds,
                peak_memory=0,
                **_measured(first, first),
            ),
        )
    return SweepResults(entries[0].recipe, first, tuple(rows), missing)


def write(folder: Path, found: SweepResults) -> None:
    """Write a comparison into `folder`: for machines (JSON, CSV), as a table and as a chart."""
    listed = [{**dataclasses.asdict(row), "tasks": dict(row.tasks)} for row in found.rows]
    whole = {
        "recipe": found.recipe.to_dict(),
        "dense": dataclasses.asdict(found.dense) if found.dense else None,
        "rows": listed,
        "missing": dict(found.missing),
        "unlike": list(found.unlike),
    }
    (folder / JSON).write_text(to_json(whole, indent=1) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(markdown(found), encoding="utf-8")
    pd.DataFrame([_flat(row) for row in found.rows]).to_csv(folder / CSV, index=False)
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for row in found.rows:
        if row.label == DENSE:
            continue
        point = (100 * (1 - row.removed), 100 * row.kept, 100 * row.kept_se)
        curves.setdefault(row.curve, []).append(point)
    figure = kept_chart(curves, found.recipe.model)
    figure.write_html(folder / CHART, include_plotlyjs=True)


def markdown(found: SweepResults) -> str:
    """The comparison as a markdown table, with what one has to know to read it."""
    recipe, dense = found.recipe, found.dense
    if dense is None:
        return "Nothing is measured yet.\n"
    tasks, items = [t.name for t in dense.tasks], sorted({t.items for t in dense.tasks})
    head = ["method", "settings", "what went", "removed", "perplexity", *tasks, "mean", "kept"]
    head += ["difference to dense", "scoring, s", "run, s", "peak, GB"]
    lines = [
        f"{recipe.model}; calibration {title(recipe.calibration)}, {recipe.windows} windows of "
        f"{recipe.window_tokens} tokens; seed {recipe.seed}. Perplexity over {dense.windows} windows of "
        f"{dense.window_tokens} tokens ({title(recipe.heldout)}); tasks of "
        f"{' to '.join(str(n) for n in {items[0]: 0, items[-1]: 0})} items. ± is one standard error; the "
        f"difference is taken item by item, and is noise where chance alone makes it at p >= {LEVEL}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for row in found.rows:
        mark = "*" if row.label in found.unlike else ""
        times = f" in {row.iterations} iteration{'s' * (row.iterations > 1)}" if row.iterations else ""
        cells = [f"{row.label}{mark}", row.settings, row.lost + times, f"{row.removed:.2%}"]
        cells.append(f"{row.perplexity:.2f} ± {row.perplexity_se:.2f}")
        cells += ["{:.1%} ± {:.1%}".format(*row.tasks[t]) if t in row.tasks else "-" for t in tasks]
        cells.append(f"{row.accuracy:.1%} ± {row.accuracy_se:.1%}")
        cells.append("100 %" if row.label == DENSE else f"{row.kept:.0%} ± {row.kept_se:.1%}")
        if row.label == DENSE:
            cells += ["-"] * 4
        else:
            noise = " (noise)" if row.difference_p >= LEVEL else ""
            cells.append(f"{row.difference:+.1%} ± {row.difference_se:.1%}{noise}")
            cells += [f"{row.scoring:.1f}", f"{row.seconds:.0f}", f"{row.peak_memory / 1e9:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if found.unlike:
        lines += ["", f"\\* removes over {ALIKE:.1%} of the parameters more or less than the others."]
    lines += ["", *(f"{label} has no result: {why}" for label, why in found.missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def _measured(dense: ev.Evaluated, now: ev.Evaluated) -> dict:
    kept, difference = retained(dense, now), paired_comparison(dense, now).mean
    return {
        "parameters": now.parameters,
        "removed": 1 - now.parameters / dense.parameters,
        "perplexity": now.perplexity,
        "perplexity_se": now.perplexity_se,
        "tasks": {t.name: (t.accuracy, t.se) for t in now.tasks},
        "accuracy": now.accuracy,
        "accuracy_se": now.accuracy_se,
        "kept": kept.share,
        "kept_se": kept.se,
        "difference": difference.difference,
        "difference_se": difference.se,
        "difference_p": difference.p,
    }


def _settings(recipe: Recipe) -> str:
    """What tells this run's recipe from another's, in a few words."""
    words = ", ".join(recipe.units)
    if set(recipe.units) & set(WIDTH):
        words += "; equal" if recipe.allocation == EQUAL else "; global"
    extra = [stage.name for stage in stages_for(recipe) if stage.changes_model and stage.enabled]
    return "; ".join([words, *extra])


def _flat(row: ResultRow) -> dict:
    """A row with a column for every number."""
    flat = dataclasses.asdict(row)
    for name, (accuracy, se) in flat.pop("tasks").items():
        flat[name], flat[f"{name}_se"] = accuracy, se
    return flat
