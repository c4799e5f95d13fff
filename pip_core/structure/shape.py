"""The shape of a pruned model: which blocks remain, and in them which halves, heads, channels and experts.

A shape is plain data: it is made from the dense model's anatomy, reduced unit by unit, written beside an
export that no plain config can describe, and read back. Units keep the numbers they have in the dense
model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import filterfalse

from ..core.errors import UserError
from ..core.units import ATTENTION, BLOCKS, EXPERTS, HEADS, MLP, TITLES, WIDTH, Units, in_blocks
from .anatomy import Anatomy


@dataclass(frozen=True)
class Layer:
    """The remaining parts of one dense block.

    Attributes:
        block: its number in the dense model, from 0.
        attention, mlp: whether the half remains.
        kept: unit kind ("heads", "channels", "experts") to the dense numbers of the units that remain,
            ascending, for the kinds that can be cut.
    """

    block: int
    attention: bool
    mlp: bool
    kept: Mapping[str, tuple[int, ...]]

    def without_half(self, half: str) -> Layer:
        """This block without its attention or its MLP."""
        attention, mlp = self.attention and half != ATTENTION, self.mlp and half != MLP
        return dataclasses.replace(self, attention=attention, mlp=mlp)


@dataclass(frozen=True)
class Shape:
    """The blocks that remain, in order."""

    layers: tuple[Layer, ...]

    @staticmethod
    def dense(anatomy: Anatomy) -> Shape:
        """The shape of the unpruned model."""
        return Shape(
            tuple(
                Layer(n, True, True, {kind: tuple(range(w.size)) for kind, w in block.widths.items()})
                for n, block in enumerate(anatomy.blocks)
            )
        )

    @property
    def blocks(self) -> tuple[int, ...]:
        """Dense numbers of the blocks that remain."""
        return tuple(layer.block for layer in self.layers)

    def without(self, removed: Iterable[Units]) -> Shape:
        """The shape after the removal of some units.

        Raises:
            ValueError: a unit does not remain, or is the last block, or a block's last head or channel.
        """
        layers = {layer.block: layer for layer in self.layers}
        for units in removed:
            layer = layers.get(units.block)
            if layer is None:
                raise ValueError(f"block {units.block} does not remain")
            if units.kind == BLOCKS:
                del layers[units.block]
                continue
            if units.kind in (ATTENTION, MLP):
                if not getattr(layer, units.kind):
                    raise ValueError(f"block {units.block} has no {units.kind} left")
                layers[units.block] = layer.without_half(units.kind)
                continue
            kept, removing = layer.kept[units.kind], set(units.units)
            rest = tuple(filterfalse(removing.__contains__, kept))
            if not rest or len(rest) + len(removing) != len(kept):
                raise ValueError(
                    f"block {units.block} cannot lose {len(removing)} of {len(kept)} {units.kind}"
                )
            layers[units.block] = dataclasses.replace(layer, kept={**layer.kept, units.kind: rest})
        if not layers:
            raise ValueError("no block would remain")
        return Shape(tuple(layers.values()))

    def parameters(self, anatomy: Anatomy) -> int:
        """Number of parameters of the model in this shape."""
        total = anatomy.embedding_parameters
        for layer in self.layers:
            block = anatomy.blocks[layer.block]
            total += block.parameters
            for present, owned in zip((layer.attention, layer.mlp), block.half_parameters, strict=True):
                total -= 0 if present else owned
            for kind, width in block.widths.items():
                if layer.attention if kind == HEADS else layer.mlp:
                    total -= (width.size - len(layer.kept[kind])) * width.cost
        return total

    def uneven(self) -> str | None:
        """Why no plain config can describe this shape; None where one can."""
        halves = sum((not la.attention) + (not la.mlp) for la in self.layers)
        if halves:
            return f"{halves} of its blocks' halves {'is' if halves == 1 else 'are'} removed"
        for kind in WIDTH:
            sizes = {len(la.kept[kind]) for la in self.layers if kind in la.kept}
            if len(sizes) > 1:
                return f"its blocks keep different numbers of {kind} ({min(sizes)} to {max(sizes)})"
        return None

    def sizes(self, anatomy: Anatomy) -> dict[str, int]:
        """Units per block of an even shape, for the width kinds of which some were removed."""
        found = {}
        for kind in WIDTH:
            layer = next((la for la in self.layers if kind in la.kept), None)
            if layer and len(layer.kept[kind]) < anatomy.blocks[layer.block].widths[kind].size:
                found[kind] = len(layer.kept[kind])
        return found

    def removed_description(self, anatomy: Anatomy) -> str:
        """The removed units in words: "8 of 30 blocks", "512 of 1536 channels in every block"."""
        parts = []
        if count := len(anatomy.blocks) - len(self.layers):
            parts.append(f"{count} of {len(anatomy.blocks)} blocks")
        for half in (ATTENTION, MLP):
            if count := sum(not getattr(layer, half) for layer in self.layers):
                parts.append(f"{count} of {len(self.layers)} {TITLES[half]}")
        for kind in WIDTH:
            layers = [
                la for la in self.layers if kind in la.kept and (la.attention if kind == HEADS else la.mlp)
            ]
            before = [anatomy.blocks[la.block].widths[kind].size for la in layers]
            after = [len(la.kept[kind]) for la in layers]
            if before == after:
                continue
            if len(set(after)) == 1 and len(set(before)) == 1:
                where = in_blocks(len(layers), len(self.layers))
                parts.append(f"{before[0] - after[0]:,} of {before[0]:,} {TITLES[kind]} {where}")
            else:
                parts.append(f"{sum(before) - sum(after):,} of {sum(before):,} {TITLES[kind]}")
        return " and ".join(parts) or "nothing"

    def to_dict(self) -> dict:
        """The shape as JSON values."""
        return {"layers": [dataclasses.asdict(layer) for layer in self.layers]}

    @staticmethod
    def from_dict(values: dict, anatomy: Anatomy) -> Shape:
        """Read `to_dict` back, for a model of this anatomy.

        Raises:
            UserError: not a shape, or not one of this model.
        """
        dense = Shape.dense(anatomy).layers
        try:
            layers = tuple(
                Layer(
                    found["block"],
                    found["attention"],
                    found["mlp"],
                    {
                        # A folder of an older version does not name the experts, which all remain.
                        **{k: u for k, u in dense[found["block"]].kept.items() if k == EXPERTS},
                        **{kind: tuple(units) for kind, units in found["kept"].items()},
                    },
                )
                for found in values["layers"]
            )
            numbers = [la.block for la in layers]
            fits = numbers == sorted(set(numbers) & set(range(len(dense)))) and all(
                {la.attention, la.mlp} <= {True, False}
                and la.kept.keys() == dense[la.block].kept.keys()
                and all(
                    units and list(units) == sorted(set(units) & set(dense[la.block].kept[kind]))
                    for kind, units in la.kept.items()
                )
                for la in layers
            )
        except (KeyError, TypeError, IndexError, AttributeError):
            fits = False
        if not fits or not layers:
            raise UserError(
                "The shape written beside this model does not belong to it; the folder is damaged."
            )
        return Shape(layers)
