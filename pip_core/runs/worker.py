"""The worker process of a run: starting it, and telling from the run's files what it is doing.

A worker holds the run's lock, so whether it is alive is read from the lock. A worker that was just launched
has yet to reach the lock (it loads its libraries first); until then its process number is looked up.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import psutil
from filelock import FileLock, Timeout

from ..core import events as ev
from ..core.device import user_message
from ..core.environment import child_environment
from ..core.errors import UserError, shortened
from ..core.fork_server import ForkServer, Process, start_afresh
from .files import EVENTS, LAUNCHED, LOCK, LOG, PAUSE, QUEUED, STOP, read_launched, write
from .run_directory import has_request

# Before what a worker writes to its standard error.
LOG_MARK = "=== "
# A disk with less than this is full.
FULL_BYTES = 2**20
# Every state of a run, see `state`.
STATES = (
    *("waiting", "starting", "running", "stopping", "finished", "stopped", "paused", "failed"),
    *("interrupted", "damaged", "newer"),
)
# States of a run whose record cannot be read.
UNREADABLE = ("damaged", "newer")
# What a worker, and a process that answers questions about models, imports: nearly all of its libraries.
WORKER_MODULES = (
    "pip_core.cli.main",
    "pip_core.engine.stages",
    "pip_core.runs.run_directory",
    "pip_core.reporting.messages",
    "pip_core.inspection.divergence",
    "pip_core.inspection.latency",
)
_probing = threading.Lock()


def alive(folder: Path) -> bool:
    """Whether a worker holds the run's lock."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    with _probing:
        try:
            # Another process that looks at the same time holds the lock for an instant.
            lock.acquire(timeout=0.05, poll_interval=0.01)
        except Timeout:
            return True
        except OSError:  # no worker could hold it either
            return False
        lock.release()
    return False


def working(folder: Path) -> bool:
    """Whether a worker holds the run, or has just been launched for it."""
    return _launching(folder) or alive(folder)


def silent(folder: Path) -> bool:
    """Whether the worker that was launched has yet to record its first event."""
    try:
        return (folder / EVENTS).stat().st_size == read_launched(folder).get("said")
    except OSError:
        return False


def _launching(folder: Path) -> bool:
    """Whether the process that was launched still exists."""
    found = read_launched(folder)
    try:
        process = psutil.Process(found["pid"])
        # The system gives the number of a process that ended to another one, sooner or later.
        same = abs(process.create_time() - found["began"]) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, TypeError, ValueError, OverflowError, psutil.Error):
        return False


def state(folder: Path, ending: ev.Event | None, any_event: bool, working: bool, silent: bool = False) -> str:
    """The state of a readable run in one word.

    Args:
        ending: the run's last event where that is Finished, Stopped, Paused or Failed.
        any_event: whether it has recorded anything yet.
        working: whether a worker holds it.
        silent: whether that worker has yet to record its first event.

    Returns:
        "waiting", "starting", "running", "stopping", "finished", "stopped", "paused", "failed" or
        "interrupted".
    """
    if (folder / QUEUED).exists() and (ending is not None or not working):
        return "waiting"
    if working and (silent or not any_event):
        return "stopping" if has_request(folder) else "starting"
    if ending is not None:  # a worker lives a little longer than its last word
        return type(ending).__name__.lower()
    if not working:
        return "interrupted"
    return "stopping" if has_request(folder) else "running"


def why_interrupted(folder: Path) -> str:
    """Why the worker of an interrupted run ended, in a sentence."""
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = ("\n" + text).rpartition("\n" + LOG_MARK)[2].strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if any(line.startswith("Traceback") for line in lines):
        return (
            f"The worker failed ({shortened(lines[-1], 200)}). Press Resume to continue; no removal is lost."
        )
    if shutil.disk_usage(folder).free < FULL_BYTES:
        return "The disk is full. Make room, then resume the run; no removal is lost."
    return (
        "The worker was ended from outside: by hand, by a restart, or by the system because memory ran out. "
        "Press Resume to continue; no removal is lost."
    )


def launch(
    folder: Path,
    command: str,
    *options: str,
    server: ForkServer | None = None,
    token: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Process:
    """Start a worker: `resume` to continue pruning, `export` to export the model as pruned so far. No other
    worker may hold the run.

    Args:
        server: forks the worker, which then need not load its libraries.
        token: of the visitor who asks; it goes through a pipe, and is read by `lent_token`.
        variables: of the environment, for this worker alone.

    Raises:
        UserError: the system starts no process, or the disk is full.
    """
    said = begin(folder, command)
    try:
        with _pipe_with(token) as given, (folder / LOG).open("ab") as log:
            process = (server.start if server else start_afresh)(
                "pip_core",
                [command, str(folder), "--launched", *(["--lent"] if token else []), *options],
                child_environment(**variables),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
    except OSError as error:
        raise _not_started(error) from None
    with suppress(psutil.Error):  # it has ended already; its log says why
        note(folder, psutil.Process(process.pid), said, command)
    return process


def begin(folder: Path, command: str) -> int:
    """Make a run ready for a worker: earlier requests to stop are dropped, with what was noted
    of an earlier worker, and its log says what begins.

    Returns:
        Bytes of events so far.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        for name in (STOP, PAUSE, LAUNCHED):
            (folder / name).unlink(missing_ok=True)
        with (folder / LOG).open("ab") as log:
            log.write(f"{LOG_MARK}{command}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        return (folder / EVENTS).stat().st_size
    except OSError as error:
        raise _not_started(error) from None


def note(folder: Path, process: psutil.Process, said: int, command: str) -> None:
    """Note which process works on a run, or sees to it that others do; see `launched`.

    Raises:
        psutil.Error: it has ended.
    """
    facts = {"pid": process.pid, "began": process.create_time(), "said": said, "command": command}
    write(folder / LAUNCHED, json.dumps({**facts, "at": time.monotonic()}))


def _not_started(error: OSError) -> UserError:
    return UserError(user_message(error) or f"No worker could be started: {error.strerror}.")


@contextmanager
def _pipe_with(token: str) -> Iterator[int]:
    """The end of a pipe from which a process reads `token`; nothing where there is none."""
    if not token:
        yield subprocess.DEVNULL
        return
    theirs, ours = os.pipe()
    try:
        os.write(ours, token.encode())  # a pipe holds far more than a token
        os.close(ours)
        yield theirs
    finally:
        os.close(theirs)


def lent_token() -> str:
    """The token that `launch` gave to this process."""
    return sys.stdin.read()
