"""What this machine has: number formats, memory, and what to say when it has no more."""

from __future__ import annotations

import errno
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch

from .accelerator import VARIABLE, device, devices, free_bytes, has_bfloat16, synchronize
from .errors import UserError
from .limits import GB, limits
from .process_group import current

# Parts of what the processor's and the accelerators' allocators say, in lower case.
OUT_OF_MEMORY = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "alloc_failed",
    "defaultcpuallocator",
    "bad_alloc",
)
# What torch says of an accelerator that does not answer any more, in lower case, before what happened.
DEVICE_ERRORS = ("cuda error", "hip error", "mps error", "command buffer", "device lost", "device_lost")


def number_name(number: torch.dtype | str) -> str:
    """The name of a number format, as configs write it: "bfloat16"."""
    return str(number).removeprefix("torch.")


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether this machine computes in bfloat16 no slower than in float32: known of CUDA and XPU, otherwise
    measured. A processor's flags alone do not say: some that have the instructions take twice as long with
    them."""
    place = device()
    known = has_bfloat16(place)
    if known is not None:
        return known
    if place.type == "cpu" and not _has_instructions():
        return False
    times = 1 if place.type == "cpu" else 4  # a few hundred rows keep no accelerator busy
    try:
        bfloat16, float32 = (
            (
                torch.randn(512 * times, 576 * times, dtype=dtype, device=place),
                torch.randn(1536 * times, 576 * times, dtype=dtype, device=place),
            )
            for dtype in (torch.bfloat16, torch.float32)
        )
        # In turn, and the best of each, so that what else the machine does counts for both alike.
        seconds = [(_product_seconds(*bfloat16), _product_seconds(*float32)) for _ in range(8)]
    except (RuntimeError, TypeError):  # an accelerator without this format
        return False
    return min(s for s, _ in seconds) <= min(s for _, s in seconds)


def _has_instructions() -> bool:
    """Whether this processor has instructions for bfloat16."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in older releases of torch
    found = ask() if ask else {}
    return any(found.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _product_seconds(inputs: torch.Tensor, weight: torch.Tensor) -> float:
    synchronize(inputs.device)
    began = time.perf_counter()
    torch.nn.functional.linear(inputs, weight)
    synchronize(inputs.device)
    return time.perf_counter() - began


def memory_at_hand() -> float:
    """Bytes that a model may take here now: free on the device that would compute, or less where a run is
    limited to less."""
    free, most = free_bytes(device()), limits().run_gb
    return free if most is None else min(free, most * GB)


def memory_of_all() -> float:
    """Bytes that a model may take on all accelerators of this process together, as `memory_at_hand`."""
    several = current().size > 1  # each process has one then
    free = free_bytes(device()) if several else sum(map(free_bytes, devices()))
    most = limits().run_gb
    return free if most is None else min(free, most * GB)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":
        # Not getrusage: it also counts what the process that started this one had held.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out, of the processor or of an accelerator.

    torch raises a plain RuntimeError for the processor's memory, told apart by its text alone.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(part in text for part in OUT_OF_MEMORY)


def is_device_gone(error: BaseException) -> bool:
    """Whether `error` means that an accelerator does not answer: it was taken away, reset or has failed."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    kind: Any = getattr(torch, "AcceleratorError", None)  # not in older releases of torch
    text = str(error).lower()
    return (kind is not None and isinstance(error, kind)) or any(part in text for part in DEVICE_ERRORS)


def user_message(error: Exception) -> str | None:
    """The message for the user about `error`; None where it is a fault of this program."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "The disk is full. Make room, then resume the run; nothing decided is lost."
    if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
        path = getattr(error, "filename", None) or "a file"
        return (
            f"This program has no permission to use '{path}'. Change the permissions of that file or folder, "
            "or choose another one."
        )
    if is_device_gone(error):
        return (
            f"The accelerator does not answer any more ({text.strip().splitlines()[0]}). Nothing decided is "
            "lost: resume the run, in a new process, once the device is there again; with "
            f"{VARIABLE}=cpu it goes on without it."
        )
    if is_out_of_memory(error):
        return (
            "The machine ran out of memory. Close other programs and resume the run (nothing decided is "
            "lost), or start a new one with shorter windows or a smaller model."
        )
    return None
