"""Processes that begin with their libraries loaded: they are forked from one process that imported them once.

To import torch and transformers takes seconds of a processor, and every run, every question about two models
needs a process of its own. A `ForkServer` is a process that imports the libraries and then forks whenever it
is asked to. What is forked is an ordinary process: it has its own session, environment, input and output,
runs a module as `python -m` does, and lives on when the server or the page ends.

The server is a child of the process that asks. They share one socket, whose messages are JSON; the files that
become input, output and errors of a forked process travel with the request.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO, Protocol

from .environment import child_environment, prepare_environment

# A request holds the arguments and the environment.
MESSAGE_BYTES = 2**20
# Where forking is safe after these imports (their threads, of OpenBLAS and jemalloc, are made for it), and
# processes are watched by file descriptors.
AVAILABLE = hasattr(os, "pidfd_open") and sys.platform == "linux"


class Process(Protocol):
    """What a `subprocess.Popen` and a forked process have in common."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Its exit code, or None while it lives."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; returns its exit code.

        Raises:
            subprocess.TimeoutExpired: it lives on after `timeout` seconds.
        """

    def kill(self) -> None:
        """Kill it, if it lives."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, if it lives."""


def start_afresh(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stdin: int | IO,
    stdout: int | IO,
    stderr: int | IO | None,
) -> Process:
    """`python -m module arguments...` in a new process, with a session of its own: a signal to the process
    group of this one (Ctrl-C) does not reach it. For the arguments see `ForkServer.start`."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        env=dict(environment),
    )


class Forked:
    """A process that a `ForkServer` forked.

    Attributes:
        pid: its process number.
        returncode: its exit code, negative where a signal ended it; None while it lives.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self._began, self._ended = threading.Event(), threading.Event()

    def begin(self, pid: int) -> None:
        """Take in its process number; 0 where it did not begin."""
        self.pid = pid
        self._began.set()

    def end(self, code: int) -> None:
        """Take in its exit code."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int, /) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A process that has imported some modules, and forks.

    Args:
        preload: names of the modules.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ready = threading.Event()
        self._waiting: list[Forked] = []

    def warm_up(self) -> threading.Event:
        """Start the server where it does not live; returns what is set when it can fork. Where it can never,
        that is never set."""
        with self._lock:
            if self._socket is None and AVAILABLE:
                with suppress(OSError):  # the process that is asked for next says so
                    self._connect()
            return self._ready

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdin: int | IO,
        stdout: int | IO,
        stderr: int | IO | None,
    ) -> Process:
        """Run a module as `python -m module arguments...` in a process of its own, in this process's folder.
        It is forked where the server is ready, and begins from nothing otherwise.

        Args:
            environment: all of its environment. Variables that a library reads when it is imported keep the
                value that they had when the server began.
            stdin, stdout, stderr: open files, or DEVNULL; None stands for this process's own.

        Raises:
            OSError: the system starts no process.
        """
        if self._ready.is_set():
            request = {
                "module": module,
                "arguments": list(arguments),
                "environment": dict(environment),
                "folder": os.getcwd(),
            }
            files = [_descriptor(file, own) for own, file in enumerate((stdin, stdout, stderr))]
            forked = self._fork(request, files)
            if forked is not None:
                return forked
        self.warm_up()
        return start_afresh(module, arguments, environment, stdin, stdout, stderr)

    def _fork(self, request: dict, files: Sequence[int]) -> Forked | None:
        """A forked process; None where the server has ended."""
        forked = Forked()
        with self._lock:
            if self._socket is None:
                return None
            self._waiting.append(forked)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            except OSError:
                return None
        forked._began.wait()
        return forked if forked.pid else None

    def _connect(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), *self._preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=child_environment(),
            )
        self._socket = ours
        threading.Thread(target=self._listen, args=(ours, server), daemon=True).start()

    def _listen(self, ours: socket.socket, server: subprocess.Popen) -> None:
        """Take in which processes began and which ended, until the server ends."""
        alive: dict[int, Forked] = {}
        while message := _received(ours):
            if message == {"ready": True}:
                self._ready.set()
            elif "code" in message:
                alive.pop(message["pid"]).end(message["code"])
            else:
                began = self._waiting.pop(0)
                began.begin(message["pid"])
                alive[began.pid] = began
        self._ready.clear()
        with self._lock:
            self._socket, waiting, self._waiting = None, self._waiting, []
        ours.close()
        server.wait()
        for forked in waiting:
            forked.begin(0)
        # What was forked lives on, but its exit code is lost; its own files say how it ended.
        for forked in alive.values():
            threading.Thread(target=_watch, args=(forked,), daemon=True).start()


def _received(connection: socket.socket) -> dict:
    """The next message; empty where there is none any more."""
    try:
        message = connection.recv(MESSAGE_BYTES)
    except OSError:
        return {}
    return json.loads(message) if message else {}


def _descriptor(file: int | IO | None, own: int) -> int:
    if file is None:
        return own
    if file == subprocess.DEVNULL:
        return _nowhere()
    return file if isinstance(file, int) else file.fileno()


@lru_cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_RDWR)


def _watch(forked: Forked) -> None:
    """Wait for a process that is no child of anybody who answers."""
    try:
        handle = os.pidfd_open(forked.pid)
    except OSError:
        pass
    else:
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            selector.select()
        os.close(handle)
    forked.end(-signal.SIGKILL)


def serve(connection: socket.socket) -> dict | None:
    """Fork for every request, and report every process that ends.

    Returns:
        None in the server, when nobody can ask any more; the request in a process that was forked for it.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        children: dict[int, int] = {}  # descriptor of a process -> its number
        while True:
            for key, _ in selector.select():
                if key.fd != connection.fileno():
                    number = children.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(number, 0)
                    _send(connection, {"pid": number, "code": os.waitstatus_to_exitcode(status)})
                    continue
                try:
                    message, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
                except ConnectionResetError:  # whoever asked has ended, and had not read every report
                    return None
                if not message:
                    return None
                number = os.fork()
                if not number:
                    for handle in children:
                        os.close(handle)
                    connection.close()
                    request = json.loads(message)
                    _become(request, files)
                    return request
                for file in files:
                    os.close(file)
                handle = os.pidfd_open(number)
                children[handle] = number
                selector.register(handle, selectors.EVENT_READ)
                _send(connection, {"pid": number})


def _send(connection: socket.socket, message: dict) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has ended; the next read says so
        connection.send(json.dumps(message).encode())


def _become(request: dict, files: Sequence[int]) -> None:
    """Make this process, which was just forked, the one that was asked for."""
    os.setsid()
    for standard, file in enumerate(files):
        os.dup2(file, standard)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # As Python does when it begins.
    given = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in given if path and path not in sys.path]


def _run(request: dict) -> int:
    """Run the module of a request; returns the exit code."""
    sys.argv = [request["module"], *request["arguments"]]
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        print(ending.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _leave(codes: list[int]) -> None:
    """End a forked process with its exit code, without taking apart what was imported, which takes longer
    than many a command."""
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(codes[0])


def main() -> None:
    """Serve on the socket whose descriptor is the first argument; import the modules that follow it."""
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first that is registered is called last
    prepare_environment()
    # Python 3.12 warns of the threads of libraries, which `AVAILABLE` is about.
    warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    # What was imported stays: no process that is forked looks through it for garbage, which would copy it.
    gc.collect()
    gc.freeze()
    _send(connection, {"ready": True})
    request = serve(connection)
    if request is not None:
        codes.append(_run(request))


if __name__ == "__main__":
    main()
