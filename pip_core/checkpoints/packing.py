"""Packing an exported model into one zip file, once, in a thread of its own."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.device import user_message
from ..core.disk_use import bytes_of
from ..core.errors import UserError
from .export import MARGIN_BYTES

# Seconds before a packing that failed may be tried again.
RETRY_SECONDS = 30.0
COPY_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Packing:
    """How far the packing of a folder has come.

    Attributes:
        target: the zip file; it exists once `ready`.
        done, total: bytes packed so far, and all of them.
        ready: whether `target` is complete and no older than the folder.
        error: a sentence if the packing failed, else empty.
    """

    target: Path
    done: int = 0
    total: int = 0
    ready: bool = False
    error: str = ""


class _Job:
    """One thread that packs; `state` is replaced as a whole, so any thread may read it."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.failed_at = folder, 0.0
        self.state = Packing(target, total=bytes_of(folder))
        self.thread = threading.Thread(target=self._work, name="packing", daemon=True)

    def _work(self) -> None:
        try:
            pack(self.folder, self.state.target, self._count)
            self.state = replace(self.state, done=self.state.total, ready=True)
        except Exception as error:
            self.failed_at = time.monotonic()
            message = user_message(error) or f"The model could not be packed ({error})."
            self.state = replace(self.state, error=message)

    def _count(self, size: int) -> None:
        self.state = replace(self.state, done=min(self.state.done + size, self.state.total))


# Packings of this process by target: whoever asks meets the thread that is at work.
_JOBS: dict[Path, _Job] = {}
_LOCK = threading.Lock()


def start_packing(folder: Path, target: Path) -> Packing:
    """Pack `folder` into the zip file `target` in the background, unless that was done or is under way.

    Returns at once, so it can be called at every refresh, by any number of threads. A `target` that is
    there already counts, unless the folder was written since. A failed packing is tried again half a
    minute later. Weights do not compress, so they are stored as they are.

    Returns:
        How far it has come; an error is in `Packing.error`, never raised.
    """
    with _LOCK:
        job = _JOBS.get(target)
        if job is not None and job.thread.is_alive():
            return job.state
        if job is not None and job.state.error and time.monotonic() - job.failed_at < RETRY_SECONDS:
            return job.state
        try:
            if is_packed(folder, target):
                _JOBS.pop(target, None)
                size = bytes_of(folder)
                return Packing(target, size, size, ready=True)
            job = _Job(folder, target)
        except OSError as error:  # the folder is being replaced or deleted at this moment
            return Packing(target, error=f"The model cannot be packed now ({error.strerror or error}).")
        _JOBS[target] = job
        job.thread.start()
        return job.state


def zip_folder(folder: Path, target: Path) -> Path:
    """Pack `folder` into `target` as `start_packing` does, and wait for it.

    Raises:
        UserError: no space for it, or another failure.
    """
    state = start_packing(folder, target)
    with _LOCK:
        job = _JOBS.get(target)
    if job is not None:
        job.thread.join()
        state = job.state
    if state.error:
        raise UserError(state.error)
    return target


def is_packed(folder: Path, target: Path) -> bool:
    """Whether `target` is there and no older than any file of `folder`."""
    return target.exists() and target.stat().st_mtime >= max(f.stat().st_mtime for f in folder.rglob("*"))


def pack(folder: Path, target: Path, count: Callable[[int], None]) -> None:
    """Write the zip beside `target`, then rename it; `count` is called with the bytes of each piece."""
    before = _identity(folder)
    needed, free = bytes_of(folder), shutil.disk_usage(target.parent).free
    if free < needed + MARGIN_BYTES:
        raise UserError(
            f"Packing the model needs {needed / 1e6:.0f} MB more and {free / 1e6:.0f} MB are free. Make "
            f"room, or take it unpacked from '{folder}'."
        )
    # Another process may be packing the same run, so the name is this one's own.
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.rglob("*")):
                name = Path(folder.name) / path.relative_to(folder)
                if path.is_dir():
                    archive.write(path, name)
                    continue
                entry = zipfile.ZipInfo.from_file(path, name)
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                    while piece := source.read(COPY_BYTES):
                        packed.write(piece)
                        count(len(piece))
        if _identity(folder) != before:
            raise UserError("The model was exported again while it was packed. It will be packed anew.")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _identity(folder: Path) -> tuple[int, int]:
    """Changes when another folder is put in this one's place, or files are added or removed."""
    status = folder.stat()
    return status.st_ino, status.st_mtime_ns
