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

from .notices import say

# Of torch's warnings about operations that have no deterministic variant.
WARNING = "deterministic"
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
    before = torch.get_deterministic_debug_mode()
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
    warnings.showwarning = hear
    try:
        yield
    finally:
        warnings.showwarning = shown
        torch.set_deterministic_debug_mode(before)


def repeatable_attention(place: torch.device) -> Any:
    """A context for a forward pass that a backward pass follows: of the kernels for attention on CUDA, one
    has a backward pass that adds up in any order, and is left out."""
    if place.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
