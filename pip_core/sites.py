"""What can be removed: a site is one place of the model that offers `size` units.

Today every site is a whole decoder block (`size` 1). Width (heads, channels) is depth with more
units: the same site, a larger `size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Site:
    """One place that offers units for removal.

    Attributes:
        kind: unit kind; "block" is a whole decoder block.
        block: number of the block in the *dense* model, from 0; never changes.
        position: where that block stands in the model as it is now, from 0.
        size: how many units the site offers.
        cost: parameters that removing one unit saves.
    """

    kind: str
    block: int
    position: int
    size: int
    cost: int


def block_sites(blocks: Sequence[nn.Module], numbers: Sequence[int]) -> list[Site]:
    """Sites of the present blocks; `numbers[i]` is the dense number of `blocks[i]`."""
    return [
        Site("block", number, position, 1, sum(p.numel() for p in block.parameters()))
        for position, (block, number) in enumerate(zip(blocks, numbers, strict=True))
    ]
