"""Inspecting a model before a run: whether it fits, what can be pruned from it, how its export loads.

`inspect_model` reads config and metadata alone; no weights are downloaded. Whether an export would be an
ordinary checkpoint is tried: the first, a middle and the last unit are removed from a model without
weights, and its config must then describe the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..budget.budget import budget_of
from ..checkpoints.load import config_of
from ..checkpoints.reference import cached_by_checkpoint
from ..core.errors import UserError
from ..core.figures import percent
from ..core.recipe import DEMO, EQUAL, Recipe
from ..core.units import ATTENTION, BLOCKS, HEADS, KINDS, MLP, TITLES, Units
from ..engine.sizes import sizes_of
from ..structure.anatomy import Anatomy
from ..structure.experts import NO_MIXTURE
from ..structure.families import skeleton
from ..structure.shape import Shape
from ..structure.surgery import reshape, verify_config_matches
from .estimate import anatomy_for, available_memory, make_plan, memory_for, resolve_auto_units


@dataclass(frozen=True)
class Choice:
    """One way to prune a model.

    Attributes:
        possible: whether it can be done.
        plain: whether the export is an ordinary checkpoint; else it needs this project's loader.
        goal: what the target comes to, in words and as a `share` of all parameters; or why it
            cannot be done.
    """

    kind: str
    possible: bool
    plain: bool
    goal: str
    share: float


@dataclass(frozen=True)
class Inspection:
    """What is known of a model before any weight of it is here.

    Attributes:
        listed: whether its family is in the table, or it was recognised by its structure.
        parts: parameters of embeddings (and head), attention, MLPs, and everything else.
        choices: one per kind of units.
        memory: bytes at the peak, by what needs them: the weights, and what each stage does.
        available: bytes free on this machine.
        seconds: a default run to the target, roughly; None where no run is possible.
    """

    model: str
    model_type: str
    listed: bool
    blocks: int
    parameters: int
    parts: Mapping[str, int]
    target: float
    choices: tuple[Choice, ...]
    memory: Mapping[str, float]
    available: int
    seconds: float | None

    @property
    def fits(self) -> bool:
        return max(self.memory.values()) <= self.available


def inspect_reference(model: str = DEMO, target: float = 0.2) -> Inspection:
    """Say what can be pruned from a model, from its config alone: no weights are downloaded.

        found = pip_core.inspect("HuggingFaceTB/SmolLM2-135M", target=0.3)
        print([choice.kind for choice in found.choices if choice.possible and choice.plain], found.fits)

    Args:
        model: model reference, as for `pip_core.load`.
        target: share of all parameters to remove, between 0 and 1.

    Raises:
        UserError: a model that cannot be pruned at all, or a target that is no such share.
    """
    return inspect_model(Recipe(model=str(model), target=target))


def inspect_model(recipe: Recipe) -> Inspection:
    """Inspect a recipe's model for the recipe's target.

    Raises:
        UserError: a model that cannot be pruned at all.
    """
    anatomy = anatomy_for(recipe.model)
    # Whoever asks of a model without experts need not hear of them.
    kinds = (kind for kind in KINDS if anatomy.refused.get(kind) != NO_MIXTURE)
    choices = tuple(_choice(recipe, anatomy, kind) for kind in kinds)
    try:
        seconds = make_plan(resolve_auto_units(recipe)).seconds
    except UserError:
        seconds = None
    return Inspection(
        model=recipe.model,
        model_type=anatomy.model_type,
        listed=anatomy.listed,
        blocks=len(anatomy.blocks),
        parameters=anatomy.parameters,
        parts=_parts(anatomy),
        target=recipe.target,
        choices=choices,
        memory=memory_needed(recipe),
        available=available_memory(),
        seconds=seconds,
    )


@cached_by_checkpoint(maxsize=64)
def exports_plainly(reference: str, kind: str) -> bool:
    """Whether a plain config can describe the model after units of `kind` were removed evenly."""
    if kind in (ATTENTION, MLP):
        return False
    anatomy = anatomy_for(reference)
    dense = Shape.dense(anatomy)
    last = len(anatomy.blocks) - 1
    if kind == BLOCKS:
        trials = [[Units(BLOCKS, b, (0,))] for b in sorted({0, last // 2, last})]
    else:
        # A config states how many are left in a block, and not which.
        width = next(block.widths[kind] for block in anatomy.blocks if kind in block.widths)
        gone = tuple(range(0, width.size, width.size // width.portions))
        if kind == HEADS:
            gone = tuple(range(width.size - max(anatomy.group_counts)))
        trials = [[Units(kind, b, gone) for b, block in enumerate(anatomy.blocks) if kind in block.widths]]
    for trial in trials:
        model, shape = skeleton(config_of(reference)), dense.without(trial)
        reshape(model, anatomy, dense, shape)
        if shape.uneven() is not None:
            return False
        try:
            verify_config_matches(model)
        except UserError:
            return False
    return True


def report(found: Inspection) -> str:
    """An inspection as text."""
    how = "a supported family" if found.listed else "recognised by its structure"
    parts = ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in found.parts.items() if count)
    lines = [
        f"{found.model}: {found.model_type} ({how}), {found.blocks} blocks, "
        f"{found.parameters / 1e6:.1f}M parameters ({parts}).",
        "",
        f"To remove {percent(found.target, 0)} of the parameters:",
    ]
    for choice in found.choices:
        title = TITLES[choice.kind]
        if not choice.possible:
            lines.append(f"  {title:<17} no: {choice.goal}")
        else:
            said = "an ordinary checkpoint" if choice.plain else "loads with this project's loader only"
            lines.append(f"  {title:<17} {choice.goal}; {said}")
    needs = ", ".join(f"{what} about {size / 1e9:.2f} GB" for what, size in found.memory.items())
    fits = "it fits" if found.fits else "it does not fit"
    lines += ["", f"Memory: {needs}; {found.available / 1e9:.1f} GB are free: {fits}."]
    if found.seconds is not None:
        minutes = max(1, round(found.seconds / 60))
        lines.append(f"Time: about {minutes} min for a run with the given settings.")
    return "\n".join(lines)


def _choice(recipe: Recipe, anatomy: Anatomy, kind: str) -> Choice:
    if kind in anatomy.refused:
        return Choice(kind, False, False, anatomy.refused[kind], 0.0)
    plain = exports_plainly(recipe.model, kind)
    if kind == BLOCKS and not plain:
        return Choice(kind, False, False, "its config cannot describe fewer blocks", 0.0)
    try:
        goal = budget_of(recipe.replace(units=(kind,), allocation=EQUAL, plain=False), anatomy)
    except UserError as error:
        return Choice(kind, False, plain, str(error), 0.0)
    return Choice(
        kind, True, plain and not goal.uneven, f"{goal.description} = {percent(goal.share)}", goal.share
    )


def memory_needed(recipe: Recipe) -> Mapping[str, float]:
    """Bytes at the peak of a run, by what needs them: the one number that form, plan and inspection state.

    Where no target of the model can be met, what it takes to hold the model.

    Raises:
        UserError: a model that cannot be pruned.
    """
    try:
        return memory_for(resolve_auto_units(recipe))
    except UserError:
        return {"weights": sizes_of(recipe.model, recipe.dtype).resident}


def _parts(anatomy: Anatomy) -> dict[str, int]:
    attention = sum(b.half_parameters[0] for b in anatomy.blocks)
    mlp = sum(b.half_parameters[1] for b in anatomy.blocks)
    rest = sum(b.parameters for b in anatomy.blocks) - attention - mlp
    return {
        "embeddings and head": anatomy.embedding_parameters,
        "attention": attention,
        "MLPs": mlp,
        "norms and others": rest,
    }
