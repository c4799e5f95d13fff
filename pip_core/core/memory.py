"""The memory that a program may use here: the machine's, or less where its container has a limit."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
GROUPS = Path("/proc/self/cgroup")
# Files of a group in version 2 and version 1 of cgroups: its limit, and what is used.
FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
# What is kept of files that were read, and given up as soon as memory is needed.
GIVEN_UP = ("inactive_file", "total_inactive_file")


def total_memory() -> int:
    """Bytes that this machine has, or its container may use."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _groups())])


def free_memory() -> int:
    """Bytes that are free here."""
    free = psutil.virtual_memory().available
    return max(0, min([free, *(limit - used for limit, used in _groups())]))


def _groups() -> list[tuple[int, int]]:
    """(limit, used) in bytes of every group around this process that has a limit."""
    found = []
    for folder in _folders():
        for limit_file, used_file in FILES:
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None and used is not None:
                found.append((limit, max(0, used - _given_up(folder))))
    return found


def _folders() -> list[Path]:
    """The folders of this process's groups and of those around them."""
    found: list[Path] = []
    try:
        lines = GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return found
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top = ROOT / "memory" if kinds else ROOT
        # In a container the path may be the host's, and the group is then at the top.
        place = top / path.strip("/")
        found += [folder for folder in (place, *place.parents) if folder.is_relative_to(top)]
    return found


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none ("max" is no limit, and no file neither)."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _given_up(folder: Path) -> int:
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    return next((int(values[name]) for name in reversed(GIVEN_UP) if name in values), 0)


def give_back() -> None:
    """Give the system the memory that nobody holds and the allocator keeps for later. That of glibc keeps
    hundreds of megabytes between aligned pieces of changing sizes, as torch asks for."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def bound_memory(most: float) -> None:
    """Let this process take at most about `most` bytes: a request for more raises MemoryError at once, where
    a watcher would see it too late. Only on Linux, and not where a GPU's driver takes address space."""
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        return
    import resource  # not there on Windows

    # What was set aside for threads and not used yet counts for the system, and is not meant here.
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    aside = 1024 * int(status.split("VmData:")[1].split()[0]) - psutil.Process().memory_info().rss
    limit = int(max(0, aside) + most)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def die_first() -> None:
    """Where memory runs out, the system is to end this process rather than the one that started it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900", encoding="ascii")
