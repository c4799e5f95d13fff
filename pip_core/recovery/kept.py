"""What recovery continues from after it was stopped or killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ..core.device import is_out_of_memory
from ..core.errors import UserError
from ..core.process_group import current


def found_by_all(found: bool) -> bool:
    """Whether something was found, which all processes that share the run must agree on.

    Raises:
        UserError: only some of them found it.
    """
    there = current().gather(found)
    if len(set(there)) > 1:
        raise UserError(
            "Not every process of this run can read its folder, which recovery goes on from. Start them "
            "where they can, or go on in one process."
        )
    return there[0]


@contextmanager
def _without_checksums() -> Iterator[None]:
    """Within this context torch saves without checksums, which take longer than all else and are not looked
    at by `torch.load`."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


class Kept:
    """Files in a run's scratch folder that are continued from; nothing is kept where there is no folder.

    Args:
        key: what they belong to; files of another are not read.

    Attributes:
        fault: why nothing could be written; empty where it could.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder, self.key, self.fault = folder, key, ""

    def load(self, name: str) -> dict[str, Any] | None:
        """What was saved last under a name; None where there is nothing of this recipe and these removals."""
        if self.folder is None:
            return None
        try:
            found = torch.load(self._paths(name)[0], map_location="cpu", weights_only=True)
            return found if found["key"] == self.key else None
        except Exception as error:  # whatever torch raises for a file that is damaged: it is made again
            if is_out_of_memory(error):
                raise
            return None

    def size(self, name: str) -> int:
        """Bytes that what was saved under a name takes, whatever it belongs to; what was not written to its
        end, and is written over, included."""
        found = 0
        for path in self._paths(name):
            with suppress(OSError):
                found += path.stat().st_size
        return found

    def _paths(self, name: str) -> tuple[Path, Path]:
        """The file of a name, and what it is called until it is whole."""
        assert self.folder is not None
        path = self.folder / f"recover-{name}.pt"
        return path, path.with_suffix(".partial")

    def saver(self, name: str) -> Callable[[Mapping[str, Any]], None]:
        """A function that saves under a name, whole or not at all."""

        def save(values: Mapping[str, Any]) -> None:
            if self.folder is None:
                return
            path, partial = self._paths(name)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with _without_checksums():
                    torch.save({"key": self.key, **values}, partial)
                partial.replace(path)
            except (OSError, RuntimeError):
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                self.fault = "The state of recovery could not be written to the disk."

        return save
