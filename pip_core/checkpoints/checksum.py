"""Checksums of a checkpoint's weights, so that a recipe can name exactly the weights it was made with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from pathlib import Path

from ..core.errors import UserError
from ..core.finite import to_json
from ..core.paths import cache_folder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
READ_BYTES = 2**22
_SHARD = re.compile(r"[^/\\\0]+\.safetensors")
# Smaller files are read again each time.
CACHED_FROM_BYTES = 2**24
# A file written less than so many seconds ago may change again within the resolution of its time stamp.
SETTLED_SECONDS = 2.0


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of the weights files that a loader of `folder` reads.

    Contents of large files are read once: their checksums are kept in the cache folder beside size, time
    stamp and inode. The Hub's cache names files by their SHA-256, so those are not read at all.

    Returns:
        64 hexadecimal digits; the empty text where there is no safetensors file.
    """
    paths = weight_files(folder)
    if not paths:
        return ""
    lines = "".join(f"{path.name} {file_sha256(path)}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that are loaded from `folder`, by name: one, or those of the index.

    Raises:
        UserError: the index names something else.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    names: list[str] = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if (folder / INDEX).is_file():  # nobody may ever write to a pipe
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            names = sorted(map(str, set(index["weight_map"].values())))
    if strange := next((name for name in names if not _SHARD.fullmatch(name)), None):
        raise UserError(
            f"The {INDEX} of '{folder.name}' names '{strange[:80]}', which is no safetensors file beside it. "
            "Other formats can run code, and other folders are not the model's. Choose another model."
        )
    return [folder / name for name in names] or sorted(folder.glob("*.safetensors"))


def file_sha256(path: Path) -> str:
    """SHA-256 of one file, from the cache where the file has not changed since."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    status = real.stat()
    state = [status.st_size, status.st_mtime_ns, status.st_ino]
    note = cache_folder() / "checksums" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    if status.st_size >= CACHED_FROM_BYTES:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["state"] == state:
                return known["sha256"]
    digest = hashlib.sha256()
    with real.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    found = digest.hexdigest()
    if status.st_size >= CACHED_FROM_BYTES and time.time() - status.st_mtime > SETTLED_SECONDS:
        # Without a writable cache folder the file is read again next time.
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            partial = note.with_name(f"{note.name}.{os.getpid()}.partial")
            partial.write_text(
                to_json({"path": str(real), "state": state, "sha256": found}), encoding="utf-8"
            )
            partial.replace(note)
    return found
