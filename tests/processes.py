"""Commands in processes of their own, forked from one that has its libraries loaded."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pip_core.core.fork_server import AVAILABLE, ForkServer, Process, start_afresh
from pip_core.runs.worker import WORKER_MODULES

# What `cheaper` reads: an environment variable, by which workers verify tiny models too; a number of windows,
# taken for no other reason, of runs that wait for a test; the name of the file that lets them go on.
VERIFY, LASTING, GO_ON = "PIP_STUDIO_TESTS_VERIFY", 17, "go-on"
# Started when a test first asks; it ends with the test run.
SERVER = ForkServer(
    (*WORKER_MODULES, "pip_core.comparing.sweep", "pip_core.planning.inspect_model", "tests.cheaper")
)


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


def start_check(command: Sequence[str], stdout: IO, stderr: IO) -> Process:
    """Stands in for `verify.start_check`: what is forked has all libraries loaded, and this project."""
    if command[0] == "-m":
        module, arguments = command[1], command[2:]
    else:
        module, arguments = "pip_core.checkpoints.reload_check", command[1:]
    return warm_server().start(module, arguments, os.environ, subprocess.DEVNULL, stdout, stderr)


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
