"""A map of a network: a column per block, its attention above its MLP, as high as they are large."""

from __future__ import annotations

from collections.abc import Collection
from html import escape

from ..core.figures import percent
from ..core.units import WIDTH
from ..structure.anatomy import Anatomy, Block
from ..structure.shape import Layer, Shape
from .html import millions


def network_map(
    anatomy: Anatomy,
    shape: Shape | None = None,
    keep: Collection[int] = (),
    drop: Collection[int] = (),
    title: str = "The model, block by block",
) -> str:
    """The map of a model, or of what is left of it.

    Args:
        shape: what is left; None is the dense model. What was removed is drawn hollow.
        keep, drop: blocks that are never removed, and blocks that are removed first.
    """
    left = {layer.block: layer for layer in (shape or Shape.dense(anatomy)).layers}
    largest = max(b.parameters for b in anatomy.blocks)
    columns = []
    for number, block in enumerate(anatomy.blocks):
        layer = left.get(number)
        parts = "".join(
            _part(name, cost, share, largest)
            for name, cost, share in zip(
                ("attention", "mlp"),
                halves_of(block),
                kept_of(layer, anatomy),
                strict=True,
            )
        )
        mark = "keep" if number in keep else "drop" if number in drop else "removed" if layer is None else ""
        words = escape(_described(number, block.parameters, layer, anatomy, mark))
        columns.append(
            f"<i class='block-bar {mark}' title='{words}'>"
            f"{parts}<b>{number if _labelled(number, len(anatomy.blocks)) else ''}</b></i>"
        )
    return (
        f"<figure class='map'><figcaption>{escape(title)}</figcaption>"
        f"<div class='block-bars' role='img' aria-label='{escape(_alternative(anatomy, shape), quote=True)}'>"
        f"{''.join(columns)}</div></figure>"
    )


def legend(anatomy: Anatomy) -> str:
    """How many parameters the parts of a model hold: embeddings, attention, MLPs."""
    attention = sum(b.half_parameters[0] for b in anatomy.blocks)
    mlp = sum(b.half_parameters[1] for b in anatomy.blocks)
    rest = anatomy.parameters - anatomy.embedding_parameters - attention - mlp
    parts = [
        ("attention", "attention", attention),
        ("mlp", "MLPs", mlp),
        ("outside", "embeddings and head", anatomy.embedding_parameters),
    ]
    if rest > anatomy.parameters / 100:
        parts.append(("outside", "norms and others", rest))
    items = "".join(
        f"<li><i class='{kind}'></i>{name} <b>{millions(count)}</b> "
        f"<small>{percent(count / anatomy.parameters, 0)}</small></li>"
        for kind, name, count in parts
        if count
    )
    return f"<ul class='legend'>{items}</ul>"


def _part(name: str, cost: int, share: float, largest: int) -> str:
    height = max(3.0, 100 * cost / largest)
    filled = f"<s style='height:{100 * share:.0f}%'></s>" if share else ""
    return f"<u class='{name}' style='flex:0 0 {height:.1f}%'>{filled}</u>"


def halves_of(block: Block) -> tuple[int, int]:
    """Parameters of each half; a block that is not made of two is drawn as one MLP."""
    return block.half_parameters if sum(block.half_parameters) else (0, block.parameters)


def kept_of(layer: Layer | None, anatomy: Anatomy) -> tuple[float, float]:
    """Which share of attention and MLP is left."""
    if layer is None:
        return 0.0, 0.0
    widths = anatomy.blocks[layer.block].widths
    heads, channels, experts = (
        len(layer.kept[kind]) / widths[kind].size if kind in layer.kept else 1.0 for kind in WIDTH
    )
    return heads * layer.attention, channels * experts * layer.mlp


def _described(number: int, parameters: int, layer: Layer | None, anatomy: Anatomy, mark: str) -> str:
    """A column in words, for hovering."""
    name = f"block {number}"
    if mark == "keep":
        return f"{name}: kept, nothing of it is removed"
    if mark == "drop":
        return f"{name}: removed first"
    if layer is None:
        return f"{name}: removed ({millions(parameters)} parameters)"
    attention, mlp = kept_of(layer, anatomy)
    if attention == mlp == 1:
        return f"{name}: {millions(parameters)} parameters, all kept"
    return f"{name}: {percent(attention, 0)} of its attention and {percent(mlp, 0)} of its MLP are left"


def _alternative(anatomy: Anatomy, shape: Shape | None) -> str:
    if shape is None:
        return f"{len(anatomy.blocks)} blocks with {millions(anatomy.parameters)} parameters in all"
    removed = [str(n) for n in range(len(anatomy.blocks)) if n not in set(shape.blocks)]
    which = f" Removed blocks: {', '.join(removed)}." if removed else ""
    return (
        f"{shape.removed_description(anatomy)} removed; {millions(shape.parameters(anatomy))} of "
        f"{millions(anatomy.parameters)} parameters are left.{which}"
    )


def _labelled(number: int, count: int) -> bool:
    every = 1 if count <= 16 else 5 if count <= 60 else 10
    return number % every == 0
