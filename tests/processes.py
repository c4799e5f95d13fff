"""Commands in processes of their own, forked from one that has its libraries loaded."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from pip_core.core.fork_server import AVAILABLE, ForkServer, Process, start_afresh
from pip_core.runs.worker import WORKER_MODULES

# Started when a test first asks; it ends with the test run.
SERVER = ForkServer((*WORKER_MODULES, "pip_core.comparing.sweep", "pip_core.planning.inspect_model"))


def warm_server() -> ForkServer:
    """The server, ready to fork where it can."""
    ready = SERVER.warm_up()
    assert not AVAILABLE or ready.wait(120), "the server does not get ready"
    return SERVER


def start(
    *arguments: str | Path,
    stdout: int | IO = subprocess.DEVNULL,
    stderr: int | IO = subprocess.DEVNULL,
    **environment: str,
) -> Process:
    """`python -m pip_core ...`, under way."""
    # huggingface_hub reads its variables when it is imported.
    fresh = any(name.startswith("HF_") for name in environment)
    run = start_afresh if fresh else warm_server().start
    return run(
        "pip_core",
        [str(argument) for argument in arguments],
        {**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )


def cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """`python -m pip_core ...`, and what it printed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(*arguments, stdout=out, stderr=err, **environment)
        try:
            code = process.wait(240)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())
