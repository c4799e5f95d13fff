"""Whether a run may begin on this page: what is wrong with it, and whether it fits in memory and time."""

from __future__ import annotations

from ..core.accelerator import device, total_bytes
from ..core.errors import UserError
from ..core.limits import GB, limits, setting
from ..core.network import asking_token, or_sign_in, visitors_limits, without_downloads
from ..core.recipe import Recipe
from ..engine.run import check_without_downloads
from ..reporting.messages import format_duration
from .estimate import anatomy_for, plan_of, resolve_auto_units


def admitted(recipe: Recipe, resolve: bool = True) -> Recipe:
    """The recipe of a run that may begin, with the units that `auto` stands for.

    Args:
        resolve: whether usual units that the model cannot lose are replaced, see `resolve_auto_units`.

    Raises:
        UserError: what is wrong with it, or that it needs more memory or time than a run may take here.
    """
    if resolve:
        recipe = resolve_auto_units(recipe)
    context = check_without_downloads(recipe, anatomy=anatomy_for(recipe.model))
    with without_downloads():
        plan = plan_of(context)
    most, larger = run_memory(), run_memory(signed_in=True)
    if plan.memory > most:
        signing = or_sign_in(f"{larger / GB:.1f} GB", plan.memory <= larger)
        raise UserError(
            f"This run needs about {plan.memory / GB:.1f} GB of memory, and a run may take "
            f"{most / GB:.1f} GB here. Choose a smaller model or shorter windows{signing}."
        )
    hours = visitors_limits().run_hours
    if hours is not None and plan.seconds > hours * 3600:
        longer = limits(signed_in=True).run_hours or hours
        signing = or_sign_in(format_duration(longer * 3600), plan.seconds <= longer * 3600)
        raise UserError(
            f"This run would take about {format_duration(plan.seconds)}, and a run may take "
            f"{format_duration(hours * 3600)} here{setting('run_hours')}. Choose a smaller model, a smaller "
            f"target, or fewer windows{signing}."
        )
    return recipe


def run_memory(signed_in: bool | None = None) -> float:
    """Bytes that a run may take: what is set, or all that the device has that would compute.

    Args:
        signed_in: of a visitor who signed in, who has more of what is set, as far as the device has it; None
            is whoever asks.
    """
    set_ = limits().run_gb
    if set_ is None:
        return total_bytes(device())
    if not (bool(asking_token()) if signed_in is None else signed_in):
        return set_ * GB
    larger = limits(signed_in=True).run_gb or set_
    return max(set_ * GB, min(larger * GB, total_bytes(device())))
