"""What recovery continues from after it was stopped or killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..core.errors import UserError
from ..core.process_group import current


def found_by_all(found: object) -> bool:
    """Whether there is something, which all processes that share the run must agree on.

    Raises:
        UserError: only some of them found it.
    """
    there = current().gather(found is not None)
    if len(set(there)) > 1:
        raise UserError(
            "Not every process of this run can read its folder, which recovery goes on from. Start them "
            "where they can, or go on in one process."
        )
    return there[0]


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
        # Whatever torch raises for a file that is damaged: it is made again.
        with suppress(Exception):
            found = torch.load(self.folder / f"recover-{name}.pt", map_location="cpu", weights_only=True)
            if found["key"] == self.key:
                return found
        return None

    def saver(self, name: str) -> Callable[[Mapping[str, Any]], None]:
        """A function that saves under a name, whole or not at all."""

        def save(values: Mapping[str, Any]) -> None:
            if self.folder is None:
                return
            path = self.folder / f"recover-{name}.pt"
            partial = path.with_suffix(".partial")
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                torch.save({"key": self.key, **values}, partial)
                partial.replace(path)
            except (OSError, RuntimeError):
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                self.fault = "The state of recovery could not be written to the disk."

        return save
