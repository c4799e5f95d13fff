"""How a difference between two measurements is said: kept, lost, or within noise."""

from __future__ import annotations

from dataclasses import replace

from ..events import Evaluated, TaskResult
from ..stats import is_noise, paired_difference, retained


def kept_words(dense: Evaluated, now: Evaluated) -> str:
    """What of the accuracy is kept."""
    if now.iteration == 0:
        return f"± {dense.accuracy_se:.1%}, the dense model"
    noise = ", within noise" if is_noise(dense, now) else ""
    _, se = paired_difference(dense, now)
    return f"{retained(dense, now):.0%} kept{noise}; the difference is ± {se:.1%}"


def kept_share(dense: Evaluated, now: Evaluated) -> float:
    """Accuracy now over the dense model's."""
    return retained(dense, now)


def task_words(dense: Evaluated, before: TaskResult, after: TaskResult) -> str:
    """One task's difference, in words."""
    one, other = replace(dense, tasks=(before,)), replace(dense, tasks=(after,))
    difference, se = paired_difference(one, other)
    if before.hits == after.hits:
        return "the same answers"
    said = f"{difference:+.1%} ± {se:.1%}"
    return (
        f"{said}, within noise"
        if is_noise(one, other)
        else f"{said}, {'better' if difference > 0 else 'worse'}"
    )
