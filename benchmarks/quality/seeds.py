"""Finalists over all their seeds: `python -m benchmarks.quality.seeds --runs DIR/plan LABEL OTHER ...`.

A run's label, and those that add ", seed N" to it, are one recipe. Printed are its accuracy and what it
keeps of the dense model's, mean over seeds, and the difference of the first recipe to every other: of each
question the share of seeds that answer it right, paired, with a standard error over questions; mean over
tasks.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path

from pip_core import events as ev
from pip_core.runs import read_events
from pip_core.stats import retained

Shares = dict[str, list[float]]


def measured(folder: Path) -> dict[int, ev.Evaluated]:
    """The last measurement of every iteration."""
    return {e.iteration: e for e in read_events(folder) if isinstance(e, ev.Evaluated)}


def shares(found: list[ev.Evaluated]) -> Shares:
    """Task -> for each question the share of runs that answer it right."""
    hits = {task.name: [] for task in found[0].tasks}
    for one in found:
        for task in one.tasks:
            hits[task.name].append([int(h) for h in task.hits])
    return {
        name: [statistics.mean(column) for column in zip(*rows, strict=True)] for name, rows in hits.items()
    }


def difference(one: Shares, other: Shares) -> tuple[float, float]:
    """Mean over tasks of `one` minus `other`, and its standard error."""
    means, squares = [], []
    for name, found in one.items():
        gaps = [a - b for a, b in zip(found, other[name], strict=True)]
        means.append(statistics.mean(gaps))
        squares.append(statistics.variance(gaps) / len(gaps))
    return statistics.mean(means), math.sqrt(sum(squares)) / len(means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("labels", nargs="+", metavar="LABEL")
    args = parser.parse_args()
    found: dict[str, Shares] = {}
    for label in args.labels:
        folders = [args.runs / label, *sorted(args.runs.glob(f"{label}, seed *"))]
        runs = [m for folder in folders if max(m := measured(folder), default=0)]
        kept = [retained(m[0], m[max(m)]).share for m in runs]
        found[label] = shares([m[max(m)] for m in runs])
        right = statistics.mean(m[max(m)].accuracy for m in runs)
        each = ", ".join(f"{k:.1%}" for k in kept)
        print(f"{label}: {right:.1%} right, {statistics.mean(kept):.1%} kept ({each} by seed)")
    first = args.labels[0]
    for label in args.labels[1:]:
        gap, se = difference(found[first], found[label])
        print(f"{first} minus {label}: {gap:+.1%} ± {se:.1%}")


if __name__ == "__main__":
    main()
