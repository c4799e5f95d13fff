"""Comparing two measurements of the same items: differences, standard errors, tests of significance.

Dense against pruned, or one pruned model against another: both answered the same items, so only the
items on which they differ carry information, and most of each accuracy's own error cancels.

The p-values are scipy's (`binomtest`, `permutation_test`). The standard errors are computed here, because
scipy has none for a mean over tasks of unequal size, nor for a ratio of paired accuracies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.errors import UserError
from ..core.events import Evaluated, TaskResult

# A difference whose p-value is this large or larger is called noise.
LEVEL = 0.05
# Standard errors that an accuracy must be above guessing before a share of that can be stated.
SIGNAL = 2.0
# Resamples of the randomisation test; the standard error of a p-value near LEVEL is then about 0.002.
RESAMPLES = 10_000
# Resamples computed at a time: with 3,000 differing items 12 MB.
RESAMPLES_AT_A_TIME = 500


@dataclass(frozen=True)
class Paired:
    """Accuracy of the second model minus the first's, on the same items.

    Attributes:
        se: paired standard error of the difference.
        p: two-sided p-value of the hypothesis that on an item on which the two differ either is equally
            likely to be right: McNemar's exact test for one task, a randomisation test for the mean of
            several.
        gained, lost: items that only the second, or only the first, answered rightly.
    """

    name: str
    difference: float
    se: float
    p: float
    gained: int
    lost: int

    @property
    def noise(self) -> bool:
        """Whether the difference is not significant at the level `LEVEL`."""
        return self.p >= LEVEL


@dataclass(frozen=True)
class PairedComparison:
    """Difference of the mean accuracy, and of each task's accuracy."""

    mean: Paired
    tasks: tuple[Paired, ...]


@dataclass(frozen=True)
class Change:
    """Accuracy of two models on the same items.

    Attributes:
        difference: the second's minus the first's.
        se: its paired standard error.
        before, after: the first's and the second's accuracy.
    """

    difference: float
    se: float
    before: float
    after: float


@dataclass(frozen=True)
class Retained:
    """Share of the dense model's accuracy that a pruned model retains, with standard errors.

    The standard errors are paired, by the delta method.

    Attributes:
        share: mean accuracy divided by the dense model's.
        above_chance: the same after the accuracy of guessing is subtracted from both, task by task; the mean
            over the tasks, equally weighted. None where the dense model is no better than guessing on any.
        left_out: tasks that `above_chance` does not count: there the dense model is within `SIGNAL` standard
            errors of guessing, so any model keeps everything.
    """

    share: float
    se: float
    above_chance: float | None
    above_chance_se: float | None
    left_out: tuple[str, ...] = ()


def share(hits: str) -> tuple[float, float]:
    """Share of "1" in `hits` (one "0" or "1" per item), and its standard error."""
    mean = hits.count("1") / len(hits)
    return mean, math.sqrt(mean * (1 - mean) / max(len(hits) - 1, 1))


def mean_accuracy(results: Sequence[TaskResult]) -> tuple[float, float]:
    """Unweighted mean accuracy over tasks, and its standard error; tasks are taken as independent."""
    count = len(results)
    mean = sum(r.accuracy for r in results) / count
    return mean, math.sqrt(sum(r.se**2 for r in results)) / count


def paired_comparison(first: Evaluated, second: Evaluated) -> PairedComparison:
    """Compare the second model with the first, item by item.

    Raises:
        UserError: they were not measured on the same items.
    """
    pairs = _pairs(first, second)
    tasks = tuple(_paired(a.name, ((a.hits, b.hits),)) for a, b in pairs)
    return PairedComparison(_paired("mean", tuple((a.hits, b.hits) for a, b in pairs)), tasks)


def changes(first: Evaluated, second: Evaluated) -> tuple[Change, tuple[Change, ...]]:
    """Change of the mean accuracy, and of every task's: as `paired_comparison`, without tests.

    Raises:
        UserError: they were not measured on the same items.
    """
    pairs = _pairs(first, second)

    def change(chosen: Sequence[tuple[TaskResult, TaskResult]]) -> Change:
        found = _changed(tuple((a.hits, b.hits) for a, b in chosen))
        before, after = (sum(r.accuracy for r in of) / len(chosen) for of in zip(*chosen, strict=True))
        return Change(found.difference, found.se, before, after)

    return change(pairs), tuple(change([pair]) for pair in pairs)


@lru_cache(maxsize=1024)  # a list of runs asks for that of each of them whenever it is drawn
def retained(dense: Evaluated, now: Evaluated) -> Retained:
    """The share of the dense model's mean accuracy that `now` retains; zero where that accuracy is zero.

    Raises:
        UserError: they were not measured on the same items.
    """
    pairs = _pairs(dense, now)
    plain = _ratio(pairs, [0.0] * len(pairs)) or (0.0, 0.0)
    above, left_out = [], []
    for a, b in pairs:
        ratio = _ratio([(a, b)], [a.chance])
        if ratio is None or a.accuracy - a.chance < SIGNAL * a.se:
            left_out.append(a.name)
        else:
            above.append(ratio)
    if not above:
        return Retained(*plain, None, None, tuple(left_out))
    se = math.sqrt(sum(error**2 for _, error in above)) / len(above)
    return Retained(*plain, sum(kept for kept, _ in above) / len(above), se, tuple(left_out))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test for `gained` and `lost` items; 1 without any."""
    if gained == lost:
        return 1.0
    from scipy.stats import binomtest  # see `warm_up`

    return float(binomtest(min(gained, lost), gained + lost).pvalue)


def warm_up() -> None:
    """Import what the tests of significance need, which takes up to a second. It is not imported with this
    module, for those who test nothing; a page does it before a visitor waits for a test."""
    import scipy.stats  # noqa: F401


def _pairs(first: Evaluated, second: Evaluated) -> list[tuple[TaskResult, TaskResult]]:
    """The results of both on each task.

    Raises:
        UserError: they were not measured on the same items.
    """
    # Whatever a task is called; the oldest runs have no digest.
    one, other = ([(t.digest or t.name, t.metric, len(t.hits)) for t in e.tasks] for e in (first, second))
    if one != other:
        raise UserError(
            "The two models were not measured on the same items: give both runs the same tasks and the same "
            "number of items."
        )
    return list(zip(first.tasks, second.tasks, strict=True))


class _Changed(NamedTuple):
    difference: float
    se: float
    gained: int
    lost: int


@lru_cache(maxsize=256)
def _paired(name: str, hits: tuple[tuple[str, str], ...]) -> Paired:
    found = _changed(hits)
    p = mcnemar(found.gained, found.lost) if len(hits) == 1 else _randomisation(hits)
    return Paired(name, found.difference, found.se, p, found.gained, found.lost)


@lru_cache(maxsize=1024)  # a chart asks for every measurement so far whenever there is one more
def _changed(hits: tuple[tuple[str, str], ...]) -> _Changed:
    """Mean over tasks of the second's accuracy minus the first's, and its paired standard error."""
    difference, variance, gained, lost = 0.0, 0.0, 0, 0
    for before, after in hits:
        gains = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
        mean = sum(gains) / len(gains)
        difference += mean
        variance += _variance(gains) / len(gains)
        gained, lost = gained + gains.count(1), lost + gains.count(-1)
    count = len(hits)
    return _Changed(difference / count, math.sqrt(variance) / count, gained, lost)


def _randomisation(hits: tuple[tuple[str, str], ...]) -> float:
    """Two-sided p-value of the randomisation test for a sum over tasks of their differences in accuracy.

    The sign of every item on which the two models differ is drawn at random: all combinations where there
    are at most `RESAMPLES`, else so many, always the same ones.

    Args:
        hits: per task the hits of the first and of the second model.
    """
    from scipy.stats import permutation_test

    signs = [
        (int(b) - int(a)) / len(before)
        for before, after in hits
        for a, b in zip(before, after, strict=True)
        if a != b
    ]
    if len(signs) < 2:  # either sign is as far from zero
        return 1.0
    found = permutation_test(
        (np.array(signs),),
        # Rounded, so that equal sums in another order of addition count as equal.
        lambda values, axis: np.abs(values.sum(axis=axis)).round(12),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=RESAMPLES_AT_A_TIME,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _ratio(
    pairs: Sequence[tuple[TaskResult, TaskResult]], chances: Sequence[float]
) -> tuple[float, float] | None:
    """Mean (accuracy - chance) of the second divided by the first's, with its standard error.

    None where the first's is not positive.
    """
    below = sum(a.accuracy - c for (a, _), c in zip(pairs, chances, strict=True))
    if below <= 0:
        return None
    ratio = sum(b.accuracy - c for (_, b), c in zip(pairs, chances, strict=True)) / below
    variance = sum(
        _variance([int(y) - ratio * int(x) for x, y in zip(a.hits, b.hits, strict=True)]) / len(a.hits)
        for a, b in pairs
    )
    return ratio, math.sqrt(variance) / below


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)
