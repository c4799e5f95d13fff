"""How much of every block's heads and channels a run has removed."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.units import WIDTH
from ..reporting.run_summary import RunSummary
from ..structure.anatomy import Anatomy

# (iteration, kind) -> block -> the share of its units that is removed by the end of the iteration.
Shares = Mapping[tuple[int, str], Mapping[int, float]]


def removed_shares(summary: RunSummary, anatomy: Anatomy | None) -> Shares:
    """The shares of heads and channels after every removal; empty where the model is not known.

    Args:
        anatomy: of the dense model.
    """
    if anatomy is None:
        return {}
    found: dict[tuple[int, str], dict[int, float]] = {}
    gone: dict[tuple[str, int], int] = {}
    for removal in summary.removals:
        for units in removal.units:
            if units.kind in WIDTH:
                place = (units.kind, units.block)
                gone[place] = gone.get(place, 0) + len(units.units)
        for (kind, block), count in gone.items():
            size = anatomy.blocks[block].widths[kind].size
            found.setdefault((removal.iteration, kind), {})[block] = count / size
    return found
