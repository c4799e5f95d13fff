"""Compare methods from start to end: what `pip_core.compare` and the command `compare` do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..core import events as ev
from ..core.errors import UserError
from ..core.recipe import Recipe
from .results import SweepResults, collect, write
from .sweep import Entry, align_targets, before_and_after, entries_from, run_sweep


def compare(
    out: Path | str,
    methods: Sequence[str] = (),
    *,
    plan: Sequence[Mapping] = (),
    targets: Sequence[float] = (),
    twice: bool = False,
    export: bool = True,
    on_event: Callable[[str, ev.Event], None] = lambda label, event: None,
    **settings: object,
) -> SweepResults:
    """Prune a model by several methods under one recipe, and measure what each keeps.

    Every run is a process of its own. A comparison that was stopped goes on when it is called again.

        rows = pip_core.compare("side-by-side", ["pip-gate", "sleb"], model="smollm2-135m", target=0.2)
        for row in rows:
            above = "" if row.above_chance is None else f"{row.above_chance:.0%} kept above chance, "
            print(f"{row.label}: {row.removed:.1%} removed, {above}{row.kept:.0%} with guessing included")

    Args:
        out: folder of the comparison; the runs, and a table, a chart and files for programs, are written into
            it.
        methods: names of methods, each with the settings that it was published with.
        plan: instead of methods, lines `{"label": ..., any setting of a recipe: ...}`.
        targets: shares of all parameters to remove, each between 0 and 1; by default the recipe's target.
        twice: each method before and after what could be done later in a finished run, such as recovery; the
            second run takes the removals from the first.
        export: whether each run ends with an exported model.
        on_event: called with the label of a run and each of its events.
        settings: settings of a recipe that hold for all runs.

    Returns:
        The results; going through them gives the rows, the dense model first. `missing` says why a run has
        none.

    Raises:
        UserError: neither methods nor a plan, both, or settings that do not go together.
    """
    entries = entries_for(methods, plan, targets, settings, twice)
    for label, event in run_sweep(Path(out), entries, export):
        on_event(label, event)
    results = collect(Path(out), entries)
    write(Path(out), results)
    return results


def check_either(methods: object, plan: object) -> None:
    """Raises:
    UserError: neither methods nor a plan, or both.
    """
    if bool(methods) == bool(plan):
        raise UserError("Say what to compare: either methods (--methods a,b,c) or a plan (--plan plan.json).")


def entries_for(
    methods: Sequence[str],
    plan: Sequence[Mapping],
    targets: Sequence[float],
    settings: Mapping[str, object],
    twice: bool = False,
) -> list[Entry]:
    """The runs of a comparison; see `compare`.

    Raises:
        UserError: as `compare`.
    """
    check_either(methods, plan)
    given = dict(settings)
    base = Recipe()
    target = base.replace(target=given.pop("target", base.target)).target
    lines = list(plan) or [{"label": method, "method": method} for method in methods]
    entries = align_targets(entries_from(base, given, lines, list(targets) or [target]))
    return before_and_after(entries) if twice else entries
