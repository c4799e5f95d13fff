"""Making room: what of the runs on disk may be thrown away, and throwing it away, with a record of it.

First what can be made again (packed models, half-written files), then whole runs: those that ended
longest ago. Never one that runs, waits or is paused.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.export import folder_bytes
from ..core.errors import UserError

LOG = "cleaned.log"
# A run that has ended; by size only finished ones go, since the others have something left to do.
ENDED = ("finished", "failed", "stopped", "interrupted")
# What somebody may still be writing is younger.
TEMPORARY_SECONDS, SPARE_SECONDS = 3600.0, 86400.0
TEMPORARY = ("*.partial", "*.probe.safetensors")
PACKED = "pruned-*.zip"


@dataclass(frozen=True)
class Kept:
    """A run on disk: its folder, what it is called, its state, and when it last said something."""

    folder: Path
    name: str
    state: str
    at: float


def limit(variable: str, unit: float) -> float | None:
    """A limit from the environment, times `unit`; None where none is set.

    Raises:
        UserError: it is no number above 0.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{variable} must be a number above 0, not '{text}'.")
    return value * unit


def clean(
    root: Path,
    kept: Sequence[Kept],
    leftovers: Sequence[Path],
    spare: Sequence[Path],
    max_age: float | None,
    max_bytes: float | None,
    discard: Callable[[Path], None],
) -> list[str]:
    """Throw away what may be.

    Args:
        kept: the runs below `root`.
        leftovers: what a crash may have left behind.
        spare: what no run needs, though a page that is open may for a day.
        max_age: in seconds since a run's last word; None means any.
        max_bytes: of all runs together; None means any.
        discard: removes a run's folder.

    Returns:
        What was thrown away, in words, as it also stands in `cleaned.log`.
    """
    now, told = time.time(), []
    ended = sorted((k for k in kept if k.state in ENDED), key=lambda k: k.at)

    def throw(path: Path, what: str, remove: Callable[[Path], None]) -> None:
        size = _bytes(path)
        remove(path)
        told.append(f"{what}, {size / 1e6:.1f} MB")

    for paths, age in ((leftovers, TEMPORARY_SECONDS), (spare, SPARE_SECONDS)):
        for path in paths:
            if _old(path, now, age):
                throw(path, f"left over: {path.name}", _remove)
    for run in ended:
        for path in [p for pattern in TEMPORARY for p in run.folder.glob(pattern)]:
            if _old(path, now, TEMPORARY_SECONDS):
                throw(path, f"left over in '{run.name}': {path.name}", _remove)
    for run in list(ended):
        if max_age is not None and now - run.at > max_age:
            days = (now - run.at) / 86400
            throw(run.folder, f"'{run.name}', {run.state}, {days:.1f} days old", discard)
            ended.remove(run)
    if max_bytes is not None:
        total = sum(_bytes(k.folder) for k in kept if k.folder.exists())
        packed = [(p, run) for run in ended for p in run.folder.glob(PACKED)]
        finished = [(run.folder, run) for run in ended if run.state == "finished"]
        for path, run in packed + finished:
            if total <= max_bytes:
                break
            if path == run.folder:
                total -= _bytes(path)
                throw(path, f"'{run.name}', finished, to make room", discard)
            elif _old(path, now, TEMPORARY_SECONDS):  # else somebody may be downloading it
                total -= _bytes(path)
                throw(path, f"packed model of '{run.name}', which can be packed again", _remove)
    _log(root, told)
    return told


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _old(path: Path, now: float, seconds: float) -> bool:
    return path.exists() and now - path.stat().st_mtime > seconds


def _bytes(path: Path) -> int:
    return folder_bytes(path) if path.is_dir() else path.stat().st_size


def _log(root: Path, told: Sequence[str]) -> None:
    if told:
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        with (root / LOG).open("a", encoding="utf-8") as file:
            file.writelines(f"{at} thrown away: {line}\n" for line in told)
