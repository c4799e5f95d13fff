"""What files take on the disk, counted while other processes may write and delete there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files below a folder.

    What goes away while it is counted, or was never there, counts nothing.
    """
    if not path.is_dir():
        return _bytes(path)
    return sum(_bytes(Path(inside, name)) for inside, _, names in os.walk(path) for name in names)


def changed_at(path: Path) -> float | None:
    """When a file or folder was last written to, in seconds of the clock; None where it is gone."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return None


def _bytes(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
