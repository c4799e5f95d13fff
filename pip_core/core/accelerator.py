"""What computes: the processor, or the accelerator that torch finds (CUDA, MPS, XPU and others).

Everything is asked through torch's own interface for any accelerator. Where that says nothing, the module of
the kind of device does. Nothing here touches the device before it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch

from .errors import UserError
from .lent_gpu import elsewhere
from .memory import free_memory, total_memory

# Environment variable: `cpu` leaves accelerators alone, a number takes that one alone.
VARIABLE = "PIP_STUDIO_DEVICE"
PROCESSOR = torch.device("cpu")
# A little keeps no accelerator busy: it is given so many times as much at once as a processor, whose cache
# holds little. One with less memory than so many times these bytes is given fewer.
AT_ONCE, AT_ONCE_BYTES = 16, 4e9


def device() -> torch.device:
    """Where this process computes: of several that torchrun started, each has an accelerator of its own."""
    found = devices()
    return found[int(os.environ.get("LOCAL_RANK", "0")) % len(found)]


def devices() -> list[torch.device]:
    """All accelerators of the kind that is here; the processor alone where there is none, or none to use.

    Raises:
        UserError: the environment asks for one that there is not.
    """
    asked = os.environ.get(VARIABLE, "").strip().lower()
    if elsewhere() or asked == "cpu":
        return [PROCESSOR]
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None:
        return [PROCESSOR]
    numbers = range(max(1, torch.accelerator.device_count()))
    if asked and (not asked.isdecimal() or int(asked) not in numbers):
        raise UserError(f"{VARIABLE} must be cpu or a number from 0 to {numbers[-1]}, not '{asked}'.")
    return [torch.device(found.type, n) for n in ([int(asked)] if asked else numbers)]


def at_once(usual: int, place: torch.device) -> int:
    """How many rows or positions are computed at a time, where `usual` suit a processor."""
    return usual if place.type == "cpu" else usual * _times_as_much(place)


@lru_cache
def _times_as_much(place: torch.device) -> int:
    """How much more an accelerator is given; its driver is asked once, and not in every pass."""
    return max(1, min(AT_ONCE, int(total_bytes(place) / AT_ONCE_BYTES)))


def name_of(place: torch.device) -> str:
    """What people call a device."""
    ask = getattr(torch.get_device_module(place), "get_device_name", None)
    return ask(place) if ask and place.type != "cpu" else place.type


def free_bytes(place: torch.device) -> float:
    """Bytes that are free on a device."""
    if place.type == "mps":  # its memory is the machine's
        return min(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), free_memory())
    return free_memory() if place.type == "cpu" else _memory(place)[0]


def total_bytes(place: torch.device) -> float:
    """Bytes that a device has."""
    if place.type == "mps":
        return min(torch.mps.recommended_max_memory(), total_memory())
    return total_memory() if place.type == "cpu" else _memory(place)[1]


def _memory(place: torch.device) -> tuple[int, int]:
    """Free bytes and all bytes of an accelerator with memory of its own."""
    ask: Any = getattr(torch.accelerator, "get_memory_info", None)  # not in older releases of torch
    return (ask or torch.get_device_module(place).mem_get_info)(place)


def has_bfloat16(place: torch.device) -> bool | None:
    """Whether a device computes in bfloat16 itself; None where that has to be measured."""
    if place.type not in ("cuda", "xpu"):
        return None
    return torch.get_device_module(place).is_bf16_supported(including_emulation=False)


def has_float64(place: torch.device) -> bool:
    """Whether a device computes in float64 at all."""
    if place.type == "xpu":
        return bool(getattr(torch.xpu.get_device_properties(place), "has_fp64", True))
    return place.type != "mps"


def synchronize(place: torch.device) -> None:
    """Wait until a device has done what it was asked to."""
    if place.type != "cpu":
        torch.accelerator.synchronize(place)


def empty_cache() -> None:
    """Give what torch keeps of an accelerator's memory back to it."""
    if device().type != "cpu":
        torch.accelerator.empty_cache()


def peak_bytes(place: torch.device, work: Callable[[], object]) -> int:
    """The most bytes that tensors take on an accelerator while `work` is done; 0 where the device does not
    count them."""
    with suppress(AttributeError, NotImplementedError, RuntimeError):
        torch.accelerator.reset_peak_memory_stats(place)
    work()
    with suppress(AttributeError, NotImplementedError, RuntimeError):
        return torch.accelerator.max_memory_allocated(place)
    return 0
