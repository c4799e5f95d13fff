"""What this machine is and has: device, number formats, memory, and what to say when it has no more."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import psutil
import torch

from .errors import UserError


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in older releases of torch
    found = ask() if ask else {}
    return any(found.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16"))


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


def user_message(error: Exception) -> str | None:
    """What to tell the user about `error`; None where it is a fault of this program."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "The disk is full. Make room, then resume the run; nothing decided is lost."
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
        return (
            "The machine ran out of memory. Close other programs and resume the run (nothing decided is "
            "lost), or start a new one with shorter windows or a smaller model."
        )
    return None
