"""Figures as people read them."""

from __future__ import annotations


def percent(share: float, digits: int = 1) -> str:
    """A share as "20.0 %"; what rounds to nothing has no sign."""
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %".replace("-", "−")


def stated_percent(share: float) -> str:
    """A share that somebody asked for, in its own digits, of which four at most: "20 %", "12.5 %"."""
    return f"{100 * share:.4g} %"
