"""Figures as people read them."""

from __future__ import annotations


def percent(share: float, digits: int = 1) -> str:
    """A share as "20.0 %"."""
    return f"{100 * share:.{digits}f} %"
