"""A pruning budget, and the sites that it may take units from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from ..core.recipe import Recipe
from ..core.units import BLOCKS, EXPERTS
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from ..structure.sites import Site, UnitId, free_units, sites_of


@dataclass(frozen=True)
class PruningBudget:
    """What a recipe will remove from a model.

    Attributes:
        parameters: number of parameters to remove, as the recipe asks.
        share: share of all parameters that will be removed, as close to the target as whole units allow.
        iterations: how many iterations this takes; exact where all units cost the same, else approximate.
        description: what will be removed, in words ("8 of 30 blocks").
        depth_units: number of depth units to remove.
        forced: how many of the iterations remove a block that the recipe names, without scoring. They come
            first.
        per_iteration: number of depth units that each iteration after those removes.
        width_units: kind -> number of width units to remove from every block, where all blocks lose the same
            number.
        uneven: why no ordinary config can describe the pruned model; empty where one can.
        tokens: number of rows of the vocabulary to remove after the last unit.
        token_share: share of all parameters that these rows are.
        phases: the budget of the blocks and then that of the width units, where blocks are removed first;
            else empty.
        dense_blocks: number of blocks of the dense model, where there are phases.
    """

    parameters: float
    share: float
    iterations: int
    description: str
    depth_units: int = 0
    forced: int = 0
    per_iteration: int = 1
    width_units: Mapping[str, int] = field(default_factory=dict)
    uneven: str = ""
    tokens: int = 0
    token_share: float = 0.0
    phases: tuple[PruningBudget, ...] = ()
    dense_blocks: int = 0

    def share_of_blocks(self, anatomy: Anatomy) -> float:
        """Share of its blocks' parameters that a model of this anatomy loses."""
        inside = anatomy.parameters - anatomy.embedding_parameters
        return (self.share - self.token_share) * anatomy.parameters / inside

    def share_of_work(self, anatomy: Anatomy) -> float:
        """Share of its blocks' work that a model of this anatomy loses: a token uses as many experts as
        before, however many there are."""
        inside = anatomy.parameters - anatomy.embedding_parameters
        width_units = self.phases[-1].width_units if self.phases else self.width_units
        each = sum(b.widths[EXPERTS].cost for b in anatomy.blocks if EXPERTS in b.widths)
        return max(0.0, self.share_of_blocks(anatomy) - width_units.get(EXPERTS, 0) * each / inside)

    def current_phase(
        self, sites: Sequence[Site], iteration: int, removed: int, pinned_units: Set[UnitId] = frozenset()
    ) -> tuple[PruningBudget, int, int]:
        """The budget that applies while these sites are offered.

        Args:
            sites: the sites that may lose units next.
            iteration: from 1.
            removed: number of parameters removed so far.

        Returns:
            That budget, and `iteration` and `removed` counted within it.
        """
        if not self.phases or not sites:
            return self, iteration, removed
        first, then = self.phases
        whole = round(self.parameters - then.parameters)
        if sites[0].kind != BLOCKS:
            return then, iteration - first.iterations, removed - whole
        # After a change of the target, blocks may be removed that have lost some of their units already.
        pinned_blocks = sum(kind == BLOCKS for kind, _, _ in pinned_units)
        removed_blocks = self.dense_blocks - len(sites) - pinned_blocks
        per_iteration = min(first.per_iteration, first.depth_units - removed_blocks)
        within = removed_blocks * whole // first.depth_units
        return replace(first, per_iteration=per_iteration), iteration, within


def prunable_sites(
    recipe: Recipe, sites: Sequence[Site], pinned_units: Set[UnitId] = frozenset()
) -> list[Site]:
    """The sites that may lose something: not of a block to keep, and not with every unit pinned."""
    return [s for s in sites if s.block not in recipe.keep and free_units(s, pinned_units)]


def current_sites(
    recipe: Recipe,
    budget: PruningBudget,
    anatomy: Anatomy,
    shape: Shape,
    pinned_units: Set[UnitId] = frozenset(),
) -> list[Site]:
    """The sites of a model of this shape that may lose something next. With phases these are blocks until
    enough of them are removed."""
    kinds = recipe.units
    if budget.phases:
        more_blocks = len(anatomy.blocks) - len(shape.layers) < budget.phases[0].depth_units
        kinds = kinds[:1] if more_blocks else kinds[1:]
    return prunable_sites(recipe, sites_of(anatomy, shape, kinds), pinned_units)
