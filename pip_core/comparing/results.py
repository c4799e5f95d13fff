"""Results of a comparison: rows, a table, files for programs, a chart.

Everything is read from the directories of the runs, so results can be collected at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..budget.targets import kinds_of
from ..core import events as ev
from ..core.csv_cells import cell
from ..core.errors import UserError
from ..core.figures import percent
from ..core.finite import to_json
from ..core.recipe import EQUAL, Recipe
from ..core.units import WIDTH
from ..data.corpora import title
from ..engine.stages import stages_for
from ..evaluation.statistics import LEVEL, paired_comparison, retained
from ..reporting.messages import describe_perplexity, plus_minus
from ..runs.recorded import read_events
from .chart import kept_chart
from .sweep import Entry

# Runs whose removed shares of the parameters differ by more than this are marked.
BUDGET_TOLERANCE = 0.005
DENSE = "dense"
JSON, CSV, CHART, TABLE = "comparison.json", "comparison.csv", "comparison.html", "comparison.md"


@dataclass(frozen=True)
class ResultRow:
    """Result of one run; the dense model has a row too.

    Attributes:
        curve: name shared by the runs of one method to several targets.
        settings: what the recipe removes and how, in a few words.
        removed_description: what was removed, in words.
        removed: share of all parameters that was removed; `target` is the share that the recipe asks for.
        perplexity_se: standard error, as every `..._se`.
        tasks: task -> (accuracy, its standard error).
        bits: text -> its bits per byte.
        repeated: text that was continued -> (share that repeats itself, its standard error).
        kept: mean accuracy divided by that of the dense model.
        above_chance: the same above the accuracy of guessing, the mean over tasks, as in
            `statistics.Retained`; None where the dense model only guesses. `left_out` are tasks on which it
            does.
        difference: mean accuracy minus that of the dense model, paired item by item; `difference_p` is how
            often chance alone makes one as large.
        scoring: seconds spent on scoring; `seconds` of the worker from start to end (of the last worker,
            where the run was interrupted).
        peak_memory: bytes of the worker; 0 for the dense model, which has no worker of its own.
    """

    label: str
    curve: str
    method: str
    settings: str
    removed_description: str
    target: float
    removed: float
    parameters: int
    iterations: int
    perplexity: float
    perplexity_se: float
    tasks: Mapping[str, tuple[float, float]]
    bits: Mapping[str, float]
    repeated: Mapping[str, tuple[float, float]]
    accuracy: float
    accuracy_se: float
    kept: float
    kept_se: float
    above_chance: float | None
    above_chance_se: float | None
    left_out: tuple[str, ...]
    difference: float
    difference_se: float
    difference_p: float
    scoring: float
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class SweepResults:
    """Results so far. Going through them gives the rows, the dense model first.

    Attributes:
        recipe: that of the first run.
        dense: the measurement of the dense model; None where there is none yet.
        missing: label -> why the run has no row.
    """

    recipe: Recipe
    dense: ev.Evaluated | None
    rows: tuple[ResultRow, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ResultRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def off_budget(self) -> tuple[str, ...]:
        """Labels of the runs that removed another share than the median run of the same target."""
        pruned = [r for r in self.rows if r.label != DENSE]
        labels = []
        for target in {r.target for r in pruned}:
            same = sorted((r for r in pruned if r.target == target), key=lambda r: r.removed)
            median = same[len(same) // 2].removed
            labels += [r.label for r in same if abs(r.removed - median) > BUDGET_TOLERANCE]
        return tuple(labels)


def collect(folder: Path, entries: Sequence[Entry]) -> SweepResults:
    """Read the results that the runs below `folder` have so far.

    A run whose record cannot be read has no row; the others are not affected.
    """
    rows: list[ResultRow] = []
    missing: dict[str, str] = {}
    dense = None
    for entry in entries:
        place = folder / entry.label
        try:
            events = read_events(place) if place.exists() else []
        except (UserError, OSError, UnicodeDecodeError) as error:
            missing[entry.label] = f"Its record cannot be read: {error}"
            continue
        # The last measurement of the last iteration is that of the finished model.
        measured = {e.iteration: e for e in events if isinstance(e, ev.Evaluated)}
        whole = next((e for e in events if isinstance(e, ev.Evaluated) and e.of_dense), None)
        dense = dense or whole
        finished = next((e for e in reversed(events) if isinstance(e, ev.Finished)), None)
        if finished is None or whole is None or finished.iterations not in measured:
            last = events[-1] if events else None
            missing[entry.label] = last.message if isinstance(last, ev.Failed) else "It is not finished."
            continue
        scored = {e.iteration: e.seconds for e in events if isinstance(e, ev.Scored)}
        rows.append(
            ResultRow(
                label=entry.label,
                curve=entry.curve,
                method=entry.recipe.method,
                settings=_settings(entry.recipe),
                removed_description=finished.removed_description,
                target=entry.recipe.target,
                iterations=finished.iterations,
                scoring=sum(scored.values()),
                seconds=finished.seconds,
                peak_memory=finished.peak_memory,
                **_measured(whole, measured[finished.iterations]),
            )
        )
    if dense is not None:
        rows.insert(
            0,
            ResultRow(
                label=DENSE,
                curve=DENSE,
                method="",
                settings="",
                removed_description="nothing",
                target=0.0,
                iterations=0,
                scoring=0.0,
                seconds=dense.seconds,
                peak_memory=0,
                **_measured(dense, dense),
            ),
        )
    return SweepResults(entries[0].recipe, dense, tuple(rows), missing)


def write(folder: Path, results: SweepResults) -> None:
    """Write results into `folder`: for programs (JSON, CSV), as a table (markdown) and as a chart (HTML)."""
    listed = [dataclasses.asdict(row) for row in results.rows]
    whole = {
        "recipe": results.recipe.to_dict(),
        "dense": dataclasses.asdict(results.dense) if results.dense else None,
        "rows": listed,
        "missing": dict(results.missing),
        "off_budget": list(results.off_budget),
    }
    (folder / JSON).write_text(to_json(whole, indent=1) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(markdown(results), encoding="utf-8")
    table = [{cell(name): cell(value) for name, value in _flat(row).items()} for row in results.rows]
    pd.DataFrame(table).to_csv(folder / CSV, index=False)
    above = all(row.above_chance is not None for row in results.rows)
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for row in results.rows:
        if row.label == DENSE:
            continue
        kept, se = (row.above_chance, row.above_chance_se) if above else (row.kept, row.kept_se)
        point = (100 * (1 - row.removed), 100 * (kept or 0.0), 100 * (se or 0.0))
        curves.setdefault(row.curve, []).append(point)
    figure = kept_chart(curves, results.recipe.model, "above guessing" if above else "guessing included")
    figure.write_html(folder / CHART, include_plotlyjs=True)


def markdown(results: SweepResults) -> str:
    """Results as a markdown table, with the settings that are needed to read it."""
    recipe, dense = results.recipe, results.dense
    if dense is None:
        return "Nothing is measured yet.\n"
    tasks, items = [t.name for t in dense.tasks], sorted({t.items for t in dense.tasks})
    head = ["method", "settings", "removed units", "removed", "perplexity", *tasks, "mean"]
    texts, written = [t.name for t in dense.texts], [w.name for w in dense.writing]
    head += [*texts, *(f"repeated, {name}" for name in written)]
    head += [
        "kept above chance",
        "kept, guessing included",
        "difference to dense",
        "scoring, s",
        "run, s",
        "peak, GB",
    ]
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
    for row in results.rows:
        mark = "*" if row.label in results.off_budget else ""
        times = f" in {row.iterations} iteration{'s' * (row.iterations > 1)}" if row.iterations else ""
        cells = [f"{row.label}{mark}", row.settings, row.removed_description + times, percent(row.removed, 2)]
        cells.append(describe_perplexity(row))
        cells += [plus_minus(*row.tasks[t]) if t in row.tasks else "-" for t in tasks]
        cells.append(plus_minus(row.accuracy, row.accuracy_se))
        cells += [f"{row.bits[t]:.3f}" if t in row.bits else "-" for t in texts]
        cells += [plus_minus(*row.repeated[w]) if w in row.repeated else "-" for w in written]
        shares = [(row.above_chance, row.above_chance_se), (row.kept, row.kept_se)]
        cells += ["100 %"] * 2 if row.label == DENSE else [_share(*share) for share in shares]
        if row.label == DENSE:
            cells += ["-"] * 4
        else:
            noise = " (noise)" if row.difference_p >= LEVEL else ""
            cells.append(
                f"{'+' * (row.difference >= 0)}{plus_minus(row.difference, row.difference_se)}{noise}"
            )
            cells += [f"{row.scoring:.1f}", f"{row.seconds:.0f}", f"{row.peak_memory / 1e9:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if texts or written:
        lines += [
            "",
            "Bits are those of a byte of the text; repeated is the share of runs of four words that occur "
            "earlier in what was written. Neither counts in the mean.",
        ]
    if left_out := results.rows[0].left_out:
        lines += ["", f"Left out above chance: {', '.join(left_out)}, where the dense model only guesses."]
    if results.off_budget:
        lines += [
            "",
            f"\\* removes over {percent(BUDGET_TOLERANCE)} of the parameters more or less than the others.",
        ]
    lines += ["", *(f"{label} has no result: {why}" for label, why in results.missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def _share(share: float | None, se: float | None) -> str:
    return "-" if share is None else f"{percent(share, 0)} ± {percent(se or 0.0)}"


def _measured(dense: ev.Evaluated, now: ev.Evaluated) -> dict:
    kept, difference = retained(dense, now), paired_comparison(dense, now).mean
    return {
        "parameters": now.parameters,
        "removed": 1 - now.parameters / dense.parameters,
        "perplexity": now.perplexity,
        "perplexity_se": now.perplexity_se,
        "tasks": {t.name: (t.accuracy, t.se) for t in now.tasks},
        "bits": {t.name: t.bits_per_byte for t in now.texts},
        "repeated": {w.name: (w.repeated, w.se) for w in now.writing},
        "accuracy": now.accuracy,
        "accuracy_se": now.accuracy_se,
        "kept": kept.share,
        "kept_se": kept.se,
        "above_chance": kept.above_chance,
        "above_chance_se": kept.above_chance_se,
        "left_out": kept.left_out,
        "difference": difference.difference,
        "difference_se": difference.se,
        "difference_p": difference.p,
    }


def _settings(recipe: Recipe) -> str:
    """What a recipe removes and how, in a few words."""
    kinds = kinds_of(recipe)
    words = ", ".join(kinds)
    if set(kinds) & set(WIDTH):
        words += "; equal" if recipe.allocation == EQUAL else "; global"
    extra = [stage.name for stage in stages_for(recipe) if stage.changes_model and stage.enabled]
    return "; ".join([words, *extra])


def _flat(row: ResultRow) -> dict:
    """A row with a column for every number."""
    flat = dataclasses.asdict(row)
    for name, (accuracy, se) in flat.pop("tasks").items():
        flat[name], flat[f"{name}_se"] = accuracy, se
    flat |= flat.pop("bits")
    for name, (share, se) in flat.pop("repeated").items():
        flat[name], flat[f"{name}_se"] = share, se
    return flat
