"""Sites: the places of a model where units can be removed.

A site offers `size` units. A depth site (a block, or half of one) offers a single unit; a width site those
that remain in its block. Scorers sum over the slices of a site and surgery cuts the same slices, so
neither depends on the model's family.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..core.units import ATTENTION, BLOCKS, DEPTH, HEADS
from .anatomy import Anatomy
from .shape import Layer, Shape
from .width import Width

# Kind, dense block, dense unit.
UnitId = tuple[str, int, int]


@dataclass(frozen=True)
class Slices:
    """The division of one weight among the units of a site.

    Attributes:
        owner: per index of `axis` the position (from 0) of the unit that owns it, int64.
    """

    weight: nn.Parameter
    axis: int
    owner: torch.Tensor

    def by_unit(self, values: torch.Tensor, size: int) -> torch.Tensor:
        """Sum of `values`, a tensor of the weight's shape, per unit: shape `(size,)`, float32."""
        along = values.detach().movedim(self.axis, 0).reshape(values.shape[self.axis], -1)
        total = torch.zeros(size, dtype=torch.float32)
        return total.index_add_(0, self.owner, along.sum(1, dtype=torch.float32).cpu())


@dataclass(frozen=True)
class Site:
    """One place that offers units for removal.

    Attributes:
        kind: kind of its units, see `pip_core.core.units`.
        block: number of its block in the *dense* model, from 0; never changes.
        position: position of that block in the current model, from 0.
        numbers: dense numbers of the units that remain, ascending.
        cost: parameters that the removal of one unit saves.
        modules: modules of the block that are removed as a whole (depth halves), else empty.
        added: module of the block whose output the site adds to the residual stream; empty for a whole
            block, which adds the difference of its output and its input.
        adds_residual: whether the output of that module contains its second input, the residual stream.
        width: the slices of the units, for a width kind.
    """

    kind: str
    block: int
    position: int
    numbers: tuple[int, ...]
    cost: int
    modules: tuple[str, ...] = ()
    added: str = ""
    adds_residual: bool = False
    width: Width | None = None

    @property
    def size(self) -> int:
        """Number of units that the site offers."""
        return len(self.numbers)

    @property
    def least(self) -> int:
        """How many of its units must stay, of a width site."""
        return self.width.least if self.width is not None else 0

    def lowest(self, ranked: Sequence[int], count: int) -> list[int]:
        """The first `count` of some of its positions, see `Width.lowest`."""
        return list(ranked[:count]) if self.width is None else self.width.lowest(self.numbers, ranked, count)

    @property
    def output(self) -> str:
        """Name in the block of the projection that a width site's units enter."""
        assert self.width is not None
        return self.width.output

    @property
    def features(self) -> int:
        """Number of features with which a width site's units enter that projection."""
        assert self.width is not None
        return self.size * self.width.features

    def slices(self, block: nn.Module) -> list[Slices]:
        """The weights that hold the site's units, in the current `block`."""
        if self.width is None:
            owners = [block.get_submodule(m) for m in self.modules] or [block]
            weights = [p for module in owners for p in module.parameters()]
            return [Slices(p, 0, torch.zeros(p.shape[0], dtype=torch.long)) for p in weights]
        return [
            Slices(
                block.get_parameter(cut.weight),
                cut.axis,
                torch.cat([torch.arange(self.size).repeat_interleave(w) for w in cut.widths]),
            )
            for cut in self.width.cuts
        ]

    def output_weight(self, block: nn.Module) -> torch.Tensor:
        """Weight of a width site's output projection, `(d, size * features)` for every class of module."""
        module = block.get_submodule(self.output)
        weight = module.get_parameter("weight")
        return weight.T if isinstance(module, Conv1D) else weight


def sites_of(anatomy: Anatomy, shape: Shape, kinds: Sequence[str]) -> list[Site]:
    """The sites of `kinds` in a model of this shape, ordered by block, then by kind."""
    found = []
    for position, layer in enumerate(shape.layers):
        for kind in kinds:
            site = _site(anatomy, layer, position, kind)
            if site is not None:
                found.append(site)
    return found


def _site(anatomy: Anatomy, layer: Layer, position: int, kind: str) -> Site | None:
    block = anatomy.blocks[layer.block]
    if kind == BLOCKS:
        left = Shape((layer,)).parameters(anatomy) - anatomy.embedding_parameters
        return Site(kind, layer.block, position, (0,), left)
    # The units of a removed half are removed with it.
    of_attention = kind in (ATTENTION, HEADS)
    if not (layer.attention if of_attention else layer.mlp):
        return None
    if kind in DEPTH:
        rest = Shape((layer.without_half(kind),))
        cost = Shape((layer,)).parameters(anatomy) - rest.parameters(anatomy)
        modules, added = (block.attention, block.added[0]) if of_attention else (block.mlp, block.added[1])
        adds = anatomy.family.adds_residual
        return Site(kind, layer.block, position, (0,), cost, modules, added, adds)
    if kind not in block.widths:
        return None
    width = block.widths[kind]
    return Site(kind, layer.block, position, layer.kept[kind], width.cost, width=width)


def touched(site: Site, undone: Set[UnitId]) -> bool:
    """Whether a removal in the site's block was undone, so that the block must be kept."""
    return any(block == site.block for _, block, _ in undone)


def free_units(site: Site, undone: Set[UnitId]) -> int:
    """Number of units of a site that may be removed: those whose removal was not undone."""
    return sum((site.kind, site.block, number) not in undone for number in site.numbers)
