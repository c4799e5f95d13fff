"""Every scoring method, in the order people should see them."""

from __future__ import annotations

from ..errors import UserError
from .base import Scorer, Scores
from .chance import Chance
from .domains import MultiDomain, needs_domains
from .entropy import EntroDrop
from .flap import Flap
from .gate import GateGradientDifference
from .influence import BlockInfluence
from .magnitude import Magnitude
from .pip import WeightGradientDifference
from .sleb import Sleb
from .taylor import Taylor

METHODS: tuple[Scorer, ...] = (
    GateGradientDifference(),
    WeightGradientDifference(),
    BlockInfluence(),
    Sleb(),
    EntroDrop(),
    Flap(),
    Taylor(),
    MultiDomain(),
    Magnitude(),
    Chance(),
)

__all__ = ["METHODS", "Scorer", "Scores", "method", "needs_domains"]


def method(name: str) -> Scorer:
    """The scoring method called `name`.

    Raises:
        UserError: there is none.
    """
    for scorer in METHODS:
        if scorer.name == name:
            return scorer
    raise UserError(f"Unknown method '{name}': choose {', '.join(m.name for m in METHODS)}.")
