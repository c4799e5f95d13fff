"""What this machine is and has: device, number formats, memory, and what to say when it has no more."""

from __future__ import annotations

import errno
import os
import sys
import time
from functools import lru_cache
from pathlib import Path

import psutil
import torch

from .errors import UserError
from .lent_gpu import elsewhere
from .limits import GB, limits
from .memory import free_memory

# Parts of what the processor's and the accelerators' allocators say, in lower case.
OUT_OF_MEMORY = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "alloc_failed",
    "defaultcpuallocator",
    "bad_alloc",
)


def device() -> torch.device:
    """Where this process computes: of several that torchrun started, each has a GPU of its own."""
    if not torch.cuda.is_available() or elsewhere():
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", rank % max(1, torch.cuda.device_count()))


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether this machine computes in bfloat16 no slower than in float32. A processor's flags alone do not
    say: some that have the instructions take twice as long with them."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in older releases of torch
    found = ask() if ask else {}
    if not any(found.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16")):
        return False
    bfloat16, float32 = (
        (torch.randn(512, 576, dtype=dtype), torch.randn(1536, 576, dtype=dtype))
        for dtype in (torch.bfloat16, torch.float32)
    )
    # In turn, and the best of each, so that what else the machine does counts for both alike.
    seconds = [(_product_seconds(*bfloat16), _product_seconds(*float32)) for _ in range(8)]
    return min(s for s, _ in seconds) <= min(s for _, s in seconds)


def _product_seconds(inputs: torch.Tensor, weight: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.nn.functional.linear(inputs, weight)
    return time.perf_counter() - began


def memory_at_hand() -> float:
    """Bytes that a model may take here now: free on the device that would compute, or less where a run is
    limited to less."""
    free = torch.cuda.mem_get_info()[0] if device().type == "cuda" else free_memory()
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
    if is_out_of_memory(error):
        return (
            "The machine ran out of memory. Close other programs and resume the run (nothing decided is "
            "lost), or start a new one with shorter windows or a smaller model."
        )
    return None
