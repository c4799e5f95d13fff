"""Comparing two measurements of the same items: pure functions, used wherever a cost is told.

Dense against pruned, or one pruned model against another: both answered the same items, so only
the items on which they differ say anything, and most of each accuracy's own error cancels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..core.errors import UserError
from ..core.events import Evaluated, TaskResult

# A difference that chance alone makes this often (or more often) is called noise.
LEVEL = 0.05
# Draws of the randomization test; a p-value near LEVEL is then good to about 0.002.
DRAWS = 10_000


@dataclass(frozen=True)
class Paired:
    """Accuracy of the second model minus the first's, on the same items.

    `se` is the paired standard error; `p` how often chance alone makes a difference this large:
    McNemar's exact test for one task, and the same idea (which of the two was right on an item they
    differ on is a coin toss) for the mean of several. `gained` and `lost` count those items.
    """

    name: str
    difference: float
    se: float
    p: float
    gained: int
    lost: int

    @property
    def noise(self) -> bool:
        """Whether the difference could well be chance."""
        return self.p >= LEVEL


@dataclass(frozen=True)
class PairedComparison:
    """The mean accuracy's difference, and each task's."""

    mean: Paired
    tasks: tuple[Paired, ...]


@dataclass(frozen=True)
class Retained:
    """What is kept of the dense model's accuracy, with standard errors (paired, delta method).

    `share` is mean accuracy over the dense model's. `above_chance` is the same after guessing is
    taken off both; None where the dense model is no better than guessing.
    """

    share: float
    se: float
    above_chance: float | None
    above_chance_se: float | None


def share(hits: str) -> tuple[float, float]:
    """Share of "1" in `hits`, and its standard error."""
    mean = hits.count("1") / len(hits)
    return mean, math.sqrt(mean * (1 - mean) / max(len(hits) - 1, 1))


def mean_accuracy(results: Sequence[TaskResult]) -> tuple[float, float]:
    """Unweighted mean over tasks, and its standard error (tasks are independent)."""
    count = len(results)
    mean = sum(r.accuracy for r in results) / count
    return mean, math.sqrt(sum(r.se**2 for r in results)) / count


def paired_comparison(first: Evaluated, second: Evaluated) -> PairedComparison:
    """The second model against the first, item by item.

    Raises:
        UserError: they were not measured on the same items.
    """
    pairs = _pairs(first, second)
    tasks = tuple(_paired(a.name, ((a.hits, b.hits),)) for a, b in pairs)
    return PairedComparison(_paired("mean", tuple((a.hits, b.hits) for a, b in pairs)), tasks)


def retained(dense: Evaluated, now: Evaluated) -> Retained:
    """What `now` keeps of the dense model's mean accuracy; all zero where that is zero.

    Raises:
        UserError: they were not measured on the same items.
    """
    pairs = _pairs(dense, now)
    plain = _ratio(pairs, [0.0] * len(pairs)) or (0.0, 0.0)
    above = _ratio(pairs, [a.chance for a, _ in pairs])
    return Retained(*plain, *(above or (None, None)))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: `gained` and `lost` as tosses of a fair coin."""
    count, least = gained + lost, min(gained, lost)
    if gained == lost:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(least + 1))
    return min(1.0, 2 * tail / 2**count)


def _pairs(first: Evaluated, second: Evaluated) -> list[tuple[TaskResult, TaskResult]]:
    """The tasks of both, in order."""
    same = [(a.name, a.digest, a.metric, len(a.hits)) for a in first.tasks] == [
        (b.name, b.digest, b.metric, len(b.hits)) for b in second.tasks
    ]
    if not same:
        raise UserError(
            "The two models were not measured on the same items: give both runs the same tasks and the same "
            "number of items."
        )
    return list(zip(first.tasks, second.tasks, strict=True))


@lru_cache(maxsize=256)
def _paired(name: str, hits: tuple[tuple[str, str], ...]) -> Paired:
    difference, variance, gained, lost = 0.0, 0.0, 0, 0
    for before, after in hits:
        gains = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
        mean = sum(gains) / len(gains)
        difference += mean
        variance += _variance(gains) / len(gains)
        gained, lost = gained + gains.count(1), lost + gains.count(-1)
    count = len(hits)
    p = mcnemar(gained, lost) if count == 1 else _randomization(hits, difference)
    return Paired(name, difference / count, math.sqrt(variance) / count, p, gained, lost)


def _randomization(hits: tuple[tuple[str, str], ...], difference: float) -> float:
    """How often the sum over tasks of their differences is this large, were each item on which the
    models differ a coin toss. Always the same draws."""
    toss = random.Random(0)
    differing = [(sum(a != b for a, b in zip(*pair, strict=True)), len(pair[0])) for pair in hits]
    if not any(count for count, _ in differing):
        return 1.0
    reached = 0
    for _ in range(DRAWS):
        drawn = sum((2 * toss.getrandbits(n).bit_count() - n) / items for n, items in differing if n)
        reached += abs(drawn) >= abs(difference) - 1e-12
    return (reached + 1) / (DRAWS + 1)


def _ratio(
    pairs: Sequence[tuple[TaskResult, TaskResult]], chances: Sequence[float]
) -> tuple[float, float] | None:
    """Mean of (accuracy - chance) of the second over the first's, with its standard error."""
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
