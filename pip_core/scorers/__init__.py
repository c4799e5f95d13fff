"""Every scoring method, in the order people should see them."""

from __future__ import annotations

from ..errors import UserError
from .base import Scorer, Scores
from .gate import GateGradientDifference
from .pip import WeightGradientDifference

METHODS: tuple[Scorer, ...] = (GateGradientDifference(), WeightGradientDifference())

__all__ = ["METHODS", "Scorer", "Scores", "method"]


def method(name: str) -> Scorer:
    """The scoring method called `name`.

    Raises:
        UserError: there is none.
    """
    for scorer in METHODS:
        if scorer.name == name:
            return scorer
    raise UserError(f"Unknown method '{name}': choose {', '.join(m.name for m in METHODS)}.")
