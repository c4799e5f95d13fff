"""Where a run is worked on: a process of this machine, calls that are lent a GPU, or a job on the Hub.

Whatever the place, a run is its directory: it is followed by the events there, stopped by the files `stop`
and `pause` there, and goes on from there after anything that ends its work. So the page, the command line
and the events are the same for all places.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Protocol

from ..core.errors import UserError
from ..core.fork_server import ForkServer, Process
from ..core.lent_gpu import on_zero_gpu
from . import worker
from .jobs import JOB, hardware_of
from .zero_gpu import Calls

# Names the place; for what it can be see `place_named`.
VARIABLE = "PIP_STUDIO_PLACE"
HERE, ZERO_GPU = "here", "zero-gpu"


class Place(Protocol):
    """Where runs are worked on.

    Attributes:
        alone: whether a run can go on there without the visitor who asked for it.
    """

    alone: bool

    def start(self, folder: Path, command: str, token: str, asked: Context | None) -> Process:
        """Begin to work on a run, as `worker.launch`; returns at once.

        Args:
            command: `resume` or `export`.
            token: of the visitor who asks.
            asked: the context in which they asked; None where that was before this process began.

        Raises:
            UserError: it cannot begin.
        """


class Workers:
    """Worker processes of this machine; with `options` of the command line each follows what is done
    elsewhere instead of doing it."""

    alone = True

    def __init__(self, server: Callable[[], ForkServer | None], *options: str) -> None:
        self._server, self._options = server, options

    def start(self, folder: Path, command: str, token: str, asked: Context | None) -> Process:
        return worker.launch(folder, command, *self._options, server=self._server(), token=token)


def place_named(name: str, server: Callable[[], ForkServer | None]) -> Place:
    """A place by its name: `here`, `zero-gpu` or `hf-job:HARDWARE`.

    Raises:
        UserError: there is no such place.
    """
    if name == ZERO_GPU:
        return Calls()
    if name.startswith(JOB):
        hardware_of(name)
        return Workers(server, "--on", name)
    if name != HERE:
        raise UserError(f"{VARIABLE} is '{HERE}', '{ZERO_GPU}' or '{JOB}HARDWARE', not '{name}'.")
    return Workers(server)


def usual_place() -> str:
    """The name of the place that this machine, or its owner, has chosen."""
    chosen = os.environ.get(VARIABLE, "").strip()
    return chosen or (ZERO_GPU if on_zero_gpu() else HERE)
