"""A process that is written to and read from through pipes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from .environment import child_environment
from .fork_server import ForkServer, Process, start_afresh


class Piped(NamedTuple):
    """A process, what writes to its standard input, and what reads from its standard output."""

    process: Process
    input: BinaryIO
    output: BinaryIO


def start_piped(module: str, arguments: Sequence[str] = (), server: ForkServer | None = None) -> Piped:
    """`python -m module arguments...` in a process of its own, with pipes. Ctrl-C ends this process, and
    then its input, and so itself.

    Args:
        server: forks it, so that it need not load its libraries.

    Raises:
        OSError: the system starts no process.
    """
    theirs, ours = os.pipe()
    answers, output = os.pipe()
    try:
        process = (server.start if server else start_afresh)(
            module, arguments, child_environment(), stdin=theirs, stdout=output, stderr=None
        )
    except OSError:
        os.close(ours)
        os.close(answers)
        raise
    finally:
        os.close(theirs)
        os.close(output)
    return Piped(process, os.fdopen(ours, "wb"), os.fdopen(answers, "rb"))
