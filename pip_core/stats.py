"""Comparing two measurements of the same items: pure functions, used wherever a cost is told."""

from __future__ import annotations

import math

from .events import Evaluated

# A difference smaller than this many of its standard errors is called noise.
NOISE = 2.0


def retained(dense: Evaluated, now: Evaluated) -> float:
    """Mean accuracy now over the dense model's; 0 where the dense model answers nothing right."""
    return now.accuracy / dense.accuracy if dense.accuracy else 0.0


def paired_difference(dense: Evaluated, now: Evaluated) -> tuple[float, float]:
    """Mean accuracy now minus dense, and its standard error, item by item.

    The same items are answered by both models, so most of each accuracy's own error cancels.
    """
    difference, variance = 0.0, 0.0
    for before, after in zip(dense.tasks, now.tasks, strict=True):
        gains = [int(b) - int(a) for a, b in zip(before.hits, after.hits, strict=True)]
        mean = sum(gains) / len(gains)
        difference += mean
        spread = sum((g - mean) ** 2 for g in gains) / max(len(gains) - 1, 1)
        variance += spread / len(gains)
    count = len(dense.tasks)
    return difference / count, math.sqrt(variance) / count


def is_noise(dense: Evaluated, now: Evaluated) -> bool:
    """Whether the difference in accuracy could well be chance."""
    difference, se = paired_difference(dense, now)
    return abs(difference) <= NOISE * se
