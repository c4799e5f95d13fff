"""Whether a model can be pruned, how, and where it fits: a few words, from its config alone."""

from __future__ import annotations

from ..core.errors import UserError, shortened
from ..core.network import asking
from ..core.recipe import Recipe
from ..core.units import BLOCKS, KINDS, MLP
from .admission import run_memory
from .estimate import anatomy_for
from .inspect_model import exports_plainly, memory_needed

# Machines that the Hub rents, the smallest first: name, and GB of memory that a model may take.
# Source: huggingface.co/docs/hub/spaces-gpus, of August 2026.
HARDWARE = (
    *(("CPU Basic", 16), ("Nvidia L4", 24), ("CPU Upgrade", 32), ("Nvidia L40S", 48)),
    *(("Nvidia A100", 80), ("Nvidia H200", 141)),
)
LONGEST = 120


def fitting(model: str) -> str:
    """Whether and how a model can be pruned, and whether it fits this machine or which one it would; no
    weight of it is fetched."""
    try:
        refused = anatomy_for(model).refused
        kinds = [kind for kind in KINDS if kind not in refused]
        if BLOCKS in kinds and not exports_plainly(model, BLOCKS):
            kinds.remove(BLOCKS)
        if not kinds:
            return "cannot be pruned"
        needed = max(memory_needed(Recipe(model=model)).values()) / 1e9
    except UserError as error:
        return f"not here: {shortened(str(error), LONGEST)}"
    how = f"prunes by {', '.join('MLP' if kind == MLP else kind for kind in kinds)}"
    here = run_memory() / 1e9
    if needed <= here:
        return f"{how}; needs {needed:.1f} GB, fits here"
    if asking() == "" and needed <= run_memory(signed_in=True) / 1e9:
        return f"{how}; needs {needed:.1f} GB, fits here once you sign in"
    fits = [f"{name} ({size} GB)" for name, size in HARDWARE if needed <= size]
    where = f"would fit {fits[0]}" if fits else "more than any one machine of the Hub has"
    return f"{how}; needs {needed:.0f} of {here:.0f} GB here, {where}"
