"""The kinds of units that can be removed, and how a set of them is named.

Depth: a whole decoder block, or its attention or MLP half. Width: a group of query heads with the
key-value head they share, an MLP channel (its gate, up and down together), or an expert of a mixture with
its row of the router. Units keep the numbers they have in the dense model, from 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

BLOCKS, ATTENTION, MLP, HEADS, CHANNELS = "blocks", "attention", "mlp", "heads", "channels"
EXPERTS = "experts"
DEPTH = (BLOCKS, ATTENTION, MLP)
WIDTH = (HEADS, CHANNELS, EXPERTS)
KINDS = (*DEPTH, *WIDTH)
# What people read.
TITLES = {
    BLOCKS: "blocks",
    ATTENTION: "attention halves",
    MLP: "MLP halves",
    HEADS: "groups of heads",
    CHANNELS: "channels",
    EXPERTS: "experts",
}


def in_blocks(some: int, every: int) -> str:
    """In how many of a model's blocks something is, as people read it: "in every block"."""
    return "in every block" if some == every else "in 1 block" if some == 1 else f"in each of {some} blocks"


def format_count(number: int, kind: str) -> str:
    """ "1,530 channels", "1 group of heads"."""
    title = TITLES[kind]
    if number == 1:
        title = {HEADS: "group of heads", ATTENTION: "attention half", MLP: "MLP half"}.get(kind, title[:-1])
    return f"{number:,} {title}"


@dataclass(frozen=True)
class Units:
    """Units of one kind in one block. Of a depth kind there is one, number 0."""

    kind: str
    block: int
    units: tuple[int, ...]


def group(units: Iterable[tuple[str, int, int]]) -> tuple[Units, ...]:
    """Single units `(kind, block, unit)` grouped by kind and block, in ascending order."""
    found: dict[tuple[str, int], list[int]] = {}
    for kind, block, unit in units:
        found.setdefault((kind, block), []).append(unit)
    return tuple(
        Units(kind, block, tuple(sorted(numbers)))
        for (kind, block), numbers in sorted(found.items(), key=lambda f: (KINDS.index(f[0][0]), f[0][1]))
    )
