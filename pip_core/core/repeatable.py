"""Operations that come to the same whenever they are repeated, and what to say where torch has none.

The processor's are repeatable as they are. On an accelerator torch is asked for its deterministic ones; where
an operation has none, torch warns, and the run says so on the card of what it makes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import deterministic as deterministic_module

from .notices import say

# Of torch's warnings about operations that have no deterministic variant.
WARNING = "deterministic"
# A module that is also a set of attributes, which mypy does not know.
FILLING: Any = deterministic_module
# Kinds of devices whose deterministic operations torch lists.
LISTED = ("cpu", "cuda")


@contextmanager
def repeatable(place: torch.device) -> Iterator[None]:
    """Within this context a device computes the same again where torch lets it; what it does not is said."""
    if place.type == "cpu":
        yield
        return
    if place.type not in LISTED:
        say(
            f"This was computed on {place.type}, of which torch does not list the operations that repeat "
            "exactly: the same recipe may come to other last digits there, and so now and then to other "
            "units.",
            on_card=True,
        )
    before, filled = torch.get_deterministic_debug_mode(), FILLING.fill_uninitialized_memory
    shown = warnings.showwarning

    def hear(message: Any, category: Any, *others: Any, **more: Any) -> None:
        text = str(message)
        if WARNING not in text:
            shown(message, category, *others, **more)
            return
        say(
            f"An operation on {place.type} does not repeat exactly ({text.split('.')[0].split(',')[0]}): the "
            "same recipe may come to other last digits, and so now and then to other units.",
            on_card=True,
        )

    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads what was not written, and filling all of it takes a kernel for every tensor.
    FILLING.fill_uninitialized_memory = False
    warnings.showwarning = hear
    try:
        yield
    finally:
        warnings.showwarning = shown
        FILLING.fill_uninitialized_memory = filled
        torch.set_deterministic_debug_mode(before)


def repeatable_attention(place: torch.device) -> Any:
    """A context for a forward pass that a backward pass follows: the fused kernels for attention on CUDA have
    backward passes that add up in any order where torch only warns of that, as it does here."""
    return sdpa_kernel([SDPBackend.MATH]) if place.type == "cuda" else nullcontext()
