"""Making room on the disk: which files and runs may be deleted, and deleting them, with a record of it.

First files that can be made again (packed models, half-written files), then whole runs: those that ended
longest ago. Never a run that is running, waiting or paused, nor one that cannot be read.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from ..core.disk_use import bytes_of, changed_at

LOG = "cleaned.log"
# States of a run that has ended. To make room only finished runs are deleted: the others have work left.
ENDED = ("finished", "failed", "stopped", "interrupted")
# Younger files may still be in use.
TEMPORARY_SECONDS, SPARE_SECONDS = 3600.0, 86400.0
TEMPORARY = ("*.partial", "*.probe.safetensors")
PACKED = "pruned-*.zip"


@dataclass(frozen=True)
class StoredRun:
    """A run on disk: its folder, name and state, and when it last recorded something (seconds since 1970)."""

    folder: Path
    name: str
    state: str
    at: float


def clean(
    root: Path,
    stored: Sequence[StoredRun],
    leftovers: Sequence[Path],
    spare: Sequence[Path],
    max_age: float | None,
    max_bytes: float | None,
    discard: Callable[[Path], None],
) -> list[str]:
    """Delete what may be deleted.

    Args:
        stored: the runs below `root`.
        leftovers: files that a crash may have left behind.
        spare: files that no run needs, though an open page may for a day.
        max_age: seconds since a run's last event; None means any.
        max_bytes: of all runs together; None means any.
        discard: removes a run's folder.

    Returns:
        What was deleted, in words, as it is also written to `cleaned.log`.
    """
    now, deleted = time.time(), []
    ended = sorted((k for k in stored if k.state in ENDED), key=lambda k: k.at)

    def delete(path: Path, what: str, remove: Callable[[Path], None]) -> None:
        size = bytes_of(path)
        remove(path)
        deleted.append(f"{what}, {size / 1e6:.1f} MB")

    for paths, age in ((leftovers, TEMPORARY_SECONDS), (spare, SPARE_SECONDS)):
        for path in paths:
            if _old(path, now, age):
                delete(path, f"left over: {path.name}", _remove)
    for run in ended:
        for path in [p for pattern in TEMPORARY for p in run.folder.glob(pattern)]:
            if _old(path, now, TEMPORARY_SECONDS):
                delete(path, f"left over in '{run.name}': {path.name}", _remove)
    for run in list(ended):
        if max_age is not None and now - run.at > max_age:
            days = (now - run.at) / 86400
            delete(run.folder, f"'{run.name}', {run.state}, {days:.1f} days old", discard)
            ended.remove(run)
    if max_bytes is not None:
        total = sum(bytes_of(k.folder) for k in stored)
        packed = [(p, run) for run in ended for p in run.folder.glob(PACKED)]
        finished = [(run.folder, run) for run in ended if run.state == "finished"]
        for path, run in packed + finished:
            if total <= max_bytes:
                break
            if path == run.folder:
                total -= bytes_of(path)
                delete(path, f"'{run.name}', finished, to make room", discard)
            elif _old(path, now, TEMPORARY_SECONDS):  # a younger one may be being downloaded
                total -= bytes_of(path)
                delete(path, f"packed model of '{run.name}', which can be packed again", _remove)
    _log(root, deleted)
    return deleted


def clean_hub_cache(root: Path, most: float, in_use: Collection[str]) -> list[str]:
    """Delete what was fetched from the Hub, least recently used first, until the rest takes `most` bytes.

    Args:
        root: the folder of the runs, for the record.
        in_use: ids of repositories that are kept in any case.

    Returns:
        What was deleted, in words, as it is also written to `cleaned.log`.
    """
    try:
        found = huggingface_hub.scan_cache_dir()
    except huggingface_hub.CacheNotFound:
        return []
    total, deleted = found.size_on_disk, []
    for repo in sorted(found.repos, key=lambda repo: repo.last_accessed):
        if total <= most:
            break
        # What was just fetched is about to be read.
        if repo.repo_id not in in_use and time.time() - repo.last_accessed > TEMPORARY_SECONDS:
            found.delete_revisions(*(revision.commit_hash for revision in repo.revisions)).execute()
            total -= repo.size_on_disk
            deleted.append(f"from the Hub: {repo.repo_id}, {repo.size_on_disk / 1e6:.1f} MB")
    _log(root, deleted)
    return deleted


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _old(path: Path, now: float, seconds: float) -> bool:
    at = changed_at(path)
    return at is not None and now - at > seconds


def _log(root: Path, deleted: Sequence[str]) -> None:
    if deleted:
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        with (root / LOG).open("a", encoding="utf-8") as file:
            file.writelines(f"{at} deleted: {line}\n" for line in deleted)
