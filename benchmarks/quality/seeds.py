"""Finalists over all their seeds: `python -m benchmarks.quality.seeds --runs DIR/smollm2 LABEL OTHER ...`.

A run's label, and those that add ", seed N" to it, are one recipe. Printed are its accuracy and what it
keeps of the dense model's, mean over tasks and seeds, and the difference of the first recipe to every
other: of each question the share of seeds that answer it right, paired, with a standard error over
questions; for every task, and their mean. What is under two errors is called level. `--tasks a,b` looks at
those alone.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import replace
from pathlib import Path

from pip_core.core import events as ev
from pip_core.engine import stages  # noqa: F401 (their events are in the runs' records)
from pip_core.evaluation.statistics import retained
from pip_core.runs.run_directory import read_events

# Two recipes whose difference is under so many standard errors are called level.
LEVEL_ERRORS = 2
Shares = dict[str, list[float]]


def measured(folder: Path) -> tuple[ev.Evaluated, ev.Evaluated] | None:
    """The first measurement of a finished run, which is the dense model's, and the last; else None."""
    events = read_events(folder) if folder.is_dir() else []
    found = [e for e in events if isinstance(e, ev.Evaluated)]
    return (found[0], found[-1]) if events and isinstance(events[-1], ev.Finished) else None


def shares(found: list[ev.Evaluated], tasks: list[str]) -> Shares:
    """Task -> for each question the share of measurements that answer it right."""
    hits = {name: [] for name in tasks or [task.name for task in found[0].tasks]}
    for one in found:
        for task in one.tasks:
            if task.name in hits:
                hits[task.name].append([int(h) for h in task.hits])
    return {name: [statistics.mean(c) for c in zip(*rows, strict=True)] for name, rows in hits.items()}


def only(measured_: ev.Evaluated, tasks: list[str]) -> ev.Evaluated:
    """A measurement of some tasks; none named are all."""
    return replace(measured_, tasks=tuple(t for t in measured_.tasks if t.name in (tasks or (t.name,))))


def accuracy(found: Shares) -> float:
    """Mean over tasks."""
    return statistics.mean(map(statistics.mean, found.values()))


def differences(one: Shares, other: Shares) -> dict[str, tuple[float, float]]:
    """Task -> `one` minus `other`, and its standard error; under "mean" those of the mean over tasks."""
    found = {}
    for name, here in one.items():
        gaps = [a - b for a, b in zip(here, other[name], strict=True)]
        found[name] = statistics.mean(gaps), statistics.stdev(gaps) / math.sqrt(len(gaps))
    gaps, errors = zip(*found.values(), strict=True)
    return found | {"mean": (statistics.mean(gaps), math.hypot(*errors) / len(errors))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--tasks", type=lambda names: names.split(","), default=[])
    parser.add_argument("labels", nargs="+", metavar="LABEL")
    args = parser.parse_args()
    found: dict[str, Shares] = {}
    asked = set()
    for label in args.labels:
        folders = [args.runs / label, *sorted(args.runs.glob(f"{label}, seed *"))]
        runs = [both for folder in folders if (both := measured(folder))]
        if not runs:
            parser.error(f"no run of '{label}' in {args.runs} is measured to its end")
        now = [last for _, last in runs]
        asked |= {tuple(task.digest for task in one.tasks) for one in now}
        dense = accuracy(shares([runs[0][0]], args.tasks))
        kept = [accuracy(shares([one], args.tasks)) / dense for one in now]
        above = [retained(only(runs[0][0], args.tasks), only(one, args.tasks)) for one in now]
        found[label] = shares(now, args.tasks)
        each = ", ".join(f"{k:.1%}" for k in kept)
        told = [(k.above_chance, k.above_chance_se or 0.0) for k in above if k.above_chance is not None]
        chance = ", ".join(f"{share:.1%} ± {se:.1%}" for share, se in told) or "no task says"
        without = f", without {', '.join(above[0].left_out)}" if above[0].left_out else ""
        print(
            f"{label}: {accuracy(found[label]):.1%} right; kept above chance {chance} by seed{without}; "
            f"guessing included {statistics.mean(kept):.1%} ({each})"
        )
    if len(asked) > 1:
        parser.error("these runs were not asked the same questions")
    first, *others = args.labels
    for label in others:
        gaps = differences(found[first], found[label])
        said = ", ".join(
            f"{name} {gap:+.1%} ± {se:.1%}{' (level)' if abs(gap) < LEVEL_ERRORS * se else ''}"
            for name, (gap, se) in gaps.items()
        )
        print(f"{first} minus {label}: {said}")


if __name__ == "__main__":
    main()
