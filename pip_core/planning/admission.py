"""Whether a run may begin on this page: what is wrong with it, and whether it fits in memory and time."""

from __future__ import annotations

from ..core.accelerator import device, total_bytes
from ..core.errors import UserError
from ..core.limits import GB, limits, variable
from ..core.network import without_downloads
from ..core.recipe import Recipe
from ..engine.run import check_without_downloads
from ..reporting.messages import format_duration
from .estimate import make_plan, resolve_auto_units


def admitted(recipe: Recipe, resolve: bool = True) -> Recipe:
    """The recipe of a run that may begin, with the units that `auto` stands for.

    Args:
        resolve: whether usual units that the model cannot lose are replaced, see `resolve_auto_units`.

    Raises:
        UserError: what is wrong with it, or that it needs more memory or time than a run may take here.
    """
    if resolve:
        recipe = resolve_auto_units(recipe)
    check_without_downloads(recipe)
    with without_downloads():
        plan = make_plan(recipe)
    set_, most = limits(), run_memory()
    if plan.memory > most:
        raise UserError(
            f"This run needs about {plan.memory / GB:.1f} GB of memory, and a run may take "
            f"{most / GB:.1f} GB here. Choose a smaller model or shorter windows."
        )
    if set_.run_hours is not None and plan.seconds > set_.run_hours * 3600:
        raise UserError(
            f"This run would take about {format_duration(plan.seconds)}, and a run may take "
            f"{format_duration(set_.run_hours * 3600)} here ({variable('run_hours')}). Choose a smaller "
            "model, a smaller target, or fewer windows."
        )
    return recipe


def run_memory() -> float:
    """Bytes that a run may take: what is set, or all that the device has that would compute."""
    set_ = limits().run_gb
    if set_ is not None:
        return set_ * GB
    return total_bytes(device())
