"""A difference between two measurements in words: what is kept, and whether the loss is measurable."""

from __future__ import annotations

from ..core.events import Evaluated
from ..evaluation.statistics import paired_comparison, retained
from ..reporting.messages import describe_difference, percent


def kept_words(dense: Evaluated, now: Evaluated) -> str:
    """The share of the dense model's accuracy that is kept."""
    if now.iteration == 0:
        return f"± {percent(dense.accuracy_se)}, the dense model"
    kept = retained(dense, now)
    noise = " (no measurable loss)" if paired_comparison(dense, now).mean.noise else ""
    above = "" if kept.above_chance is None else f", {percent(kept.above_chance, 0)} above guessing"
    return f"keeps {percent(kept.share, 0)} ± {percent(kept.se, 0)}{above}{noise}"


def kept_share(dense: Evaluated, now: Evaluated) -> str:
    """Accuracy now over the dense model's, with its standard error."""
    kept = retained(dense, now)
    return f"{percent(kept.share, 0)} ± {percent(kept.se, 0)}"


def task_words(dense: Evaluated, now: Evaluated) -> list[str]:
    """Every task's difference, in words."""
    return [describe_difference(found) for found in paired_comparison(dense, now).tasks]
