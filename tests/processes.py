"""Commands in processes of their own, forked from one that has its libraries loaded."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pip_core.core.fork_server import AVAILABLE, ForkServer, Process
from pip_core.runs.worker import WORKER_MODULES

# What `cheaper` reads: an environment variable, by which workers verify tiny models too; a number of windows,
# taken for no other reason, or another variable, of runs that wait for a test in their second iteration; the
# name of the file that lets them go on, and of the one that makes every run wait there.
VERIFY, LASTING, HELD = "PIP_STUDIO_TESTS_VERIFY", 17, "PIP_STUDIO_TESTS_HELD"
GO_ON, HOLD = "go-on", "hold"
# Started when a test first asks; it ends with the test run.
SERVER = ForkServer(
    (*WORKER_MODULES, "pip_core.comparing.sweep", "pip_core.planning.inspect_model", "tests.cheaper")
)
# huggingface_hub reads its variables when it is imported: where a test sets them, it must not be there yet.
# These take long and import nothing of it.
BEFORE_THE_HUB = ForkServer(("torch", "scipy.stats", "pandas", "pyarrow", "pydantic", "typer", "rich"))


def warm_server(server: ForkServer = SERVER) -> ForkServer:
    """The server, ready to fork where it can."""
    ready = server.warm_up()
    assert not AVAILABLE or ready.wait(120), "the server does not get ready"
    return server


def _server_for(environment: Mapping[str, str]) -> ForkServer:
    return warm_server(BEFORE_THE_HUB if any(name.startswith("HF_") for name in environment) else SERVER)


def start(
    *arguments: str | Path,
    stdout: int | IO = subprocess.DEVNULL,
    stderr: int | IO = subprocess.DEVNULL,
    **environment: str,
) -> Process:
    """`python -m pip_core ...`, under way."""
    server = _server_for(environment)
    return server.start(
        "pip_core" if server is SERVER else "tests.command",
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
        return _ended(start(*arguments, stdout=out, stderr=err, **environment), out, err)


def run_code(code: str, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess:
    """`python -c CODE ...`, and what it printed."""
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.TemporaryFile("w+") as source,
    ):
        source.write(given)
        source.seek(0)
        whole = {**os.environ, **environment}
        process = _server_for(environment).start(
            "tests.command", ["-c", code, *arguments], whole, stdin=source, stdout=out, stderr=err
        )
        return _ended(process, out, err)


def _ended(process: Process, out: IO[str], err: IO[str]) -> subprocess.CompletedProcess:
    try:
        code = process.wait(240)
    finally:
        process.kill()
    for file in (out, err):
        file.seek(0)
    return subprocess.CompletedProcess((), code, out.read(), err.read())
