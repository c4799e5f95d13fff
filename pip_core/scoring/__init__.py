"""The scoring methods, in the order in which they are shown."""

from __future__ import annotations

from ..core.errors import UserError
from .base import Scorer, Scores
from .block_influence import BlockInfluence
from .entrodrop import EntroDrop
from .flap import Flap
from .magnitude import Magnitude
from .multi_domain import MultiDomain, needs_domains
from .pip import WeightGradientDifference
from .pip_gate import GateGradientDifference
from .random_baseline import RandomBaseline
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
    RandomBaseline(),
)

__all__ = ["METHODS", "Scorer", "Scores", "get_scorer", "needs_domains"]


def get_scorer(name: str) -> Scorer:
    """The scoring method called `name`.

    Raises:
        UserError: there is none.
    """
    for scorer in METHODS:
        if scorer.name == name:
            return scorer
    raise UserError(f"Unknown method '{name}': choose {', '.join(m.name for m in METHODS)}.")
