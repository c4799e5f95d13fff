"""Whether a folder outlives the container that this program runs in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

from .paths import ROOT

# File systems in memory, and the layers of a container.
PASSING = ("tmpfs", "ramfs", "overlay")


def volume_of(folder: Path, mounts: Mapping[Path, str] | None = None, program: Path = ROOT) -> Path | None:
    """The volume that holds `folder`, such as a bucket attached to a Space; None where it is lost with
    the container.

    A volume is what is mounted for itself: neither the container's own layers, nor memory, nor the disk that
    this program itself is on, which a Space is given anew at each start.

    Args:
        folder: need not exist.
        mounts: the kind of file system of every mounted one, by where it is mounted; by default those of this
            machine.
        program: where this program is.
    """
    if mounts is None:
        mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}

    def mounted(path: Path) -> Path:
        return next((place for place in (path, *path.parents) if place in mounts), Path(path.anchor))

    found = mounted(folder.resolve())
    if found == mounted(program.resolve()) or mounts.get(found, "overlay") in PASSING:
        return None
    return found
