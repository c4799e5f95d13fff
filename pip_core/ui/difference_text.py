"""A difference between two measurements in words: what is kept, and whether the loss is measurable."""

from __future__ import annotations

from ..core.events import Evaluated
from ..core.figures import percent
from ..evaluation.statistics import Retained, paired_comparison, retained
from ..reporting.messages import describe_difference, in_points


def kept_words(dense: Evaluated, now: Evaluated) -> str:
    """What is kept of what the dense model can do above guessing, in a few words."""
    if now.of_dense:
        return f"± {percent(dense.accuracy_se)}, the whole model"
    kept = retained(dense, now)
    noise = " (no measurable loss)" if paired_comparison(dense, now).mean.noise else ""
    if kept.above_chance is None:
        return "the whole model only guesses"
    return f"keeps {above_guessing(kept)} above guessing{noise}"


def above_guessing(kept: Retained) -> str:
    """Share and standard error of what is kept above guessing, as "97 % ± 1"; there must be one."""
    return f"{percent(kept.above_chance or 0.0, 0)} ± {100 * (kept.above_chance_se or 0.0):.0f}"


def kept_share(dense: Evaluated, now: Evaluated) -> str:
    """What is kept above guessing, for a cell of a table."""
    kept = retained(dense, now)
    return "–" if kept.above_chance is None else above_guessing(kept)


def paired_change(dense: Evaluated, now: Evaluated) -> str:
    """The change of the mean accuracy with its own, paired standard error, in points."""
    return in_points(paired_comparison(dense, now).mean)


def task_words(dense: Evaluated, now: Evaluated) -> list[str]:
    """Every task's difference, in words."""
    return [describe_difference(found) for found in paired_comparison(dense, now).tasks]
