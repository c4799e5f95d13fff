"""The units of a width kind in a block, as slices of its weights, and the comparison that finds them: a block
beside one of its own class that was built narrower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Cut:
    """The slices of one weight that belong to a unit.

    Along the axis there is one run of indices per entry of `widths`, one after another. In a run of width
    w, unit u of `size` units owns the indices `u * w` to `(u + 1) * w`.
    """

    weight: str
    axis: int
    widths: tuple[int, ...]

    def indices(self, units: Sequence[int], size: int) -> torch.Tensor:
        """Indices along the axis that belong to `units`, in the weight's own order, int64.

        Args:
            size: number of units that the weight holds.
        """
        places = torch.tensor(units, dtype=torch.long)[:, None]
        found, start = [], 0
        for width in self.widths:
            found.append((start + places * width + torch.arange(width)).flatten())
            start += size * width
        return torch.cat(found)


@dataclass(frozen=True)
class Width:
    """The units of one width kind in a block.

    Attributes:
        size: number of units in the dense block.
        cuts: slices that belong to a unit.
        output: module whose input features are the outputs of the units, in order, `features` each.
        cost: parameters of a unit.
        least: how many units must stay.
        portions: runs of equal length that the units come in, each of which must lose as many as the others.
        buffers: what else has a row for every unit, by name; no parameters.
    """

    size: int
    cuts: tuple[Cut, ...]
    output: str
    features: int
    cost: int
    least: int = 1
    portions: int = 1
    buffers: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """How many units a block may lose."""
        return (self.size - self.least) // self.portions * self.portions

    def lowest(self, numbers: Sequence[int], ranked: Sequence[int], count: int) -> list[int]:
        """The first `count` of the positions `ranked`, or of each portion as many as of the others.

        Args:
            numbers: dense numbers of the units, by position.
            ranked: positions, the one to take first at the beginning.
            count: a multiple of `portions`.
        """
        if self.portions == 1:
            return list(ranked[:count])
        length = self.size // self.portions
        runs: dict[int, list[int]] = {}
        for place in ranked:
            runs.setdefault(numbers[place] // length, []).append(place)
        return [place for run in runs.values() for place in run[: count // self.portions]]


def meta_block(kind: type[nn.Module], config: PreTrainedConfig, index: int) -> nn.Module | None:
    """A block of class `kind` without weights; None where the class refuses the config."""
    try:
        with torch.device("meta"):
            return kind(config, index)
    except Exception:  # constructors raise anything for sizes that do not fit
        return None


def shrunk_weights(block: nn.Module, other: nn.Module | None) -> dict[str, tuple[int, int, int]]:
    """Weights that differ between a block and one built narrower: name -> (axis, from, to).

    Empty where the two do not hold the same weights or one differs in more than one axis.
    """
    if other is None:
        return {}
    before, after = dict(block.named_parameters()), dict(other.named_parameters())
    if before.keys() != after.keys():
        return {}
    found = {}
    for name, weight in before.items():
        axes = [a for a, (m, n) in enumerate(zip(weight.shape, after[name].shape, strict=True)) if m != n]
        if len(axes) > 1:
            return {}
        if axes:
            found[name] = (axes[0], weight.shape[axes[0]], after[name].shape[axes[0]])
    return found
