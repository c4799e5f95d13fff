"""Questions about the two models of a run, answered by a bounded number of processes (`inspection.server`).

The page's own process holds no model. Whoever asks waits for a process to be free; two who ask about the same
run share its models.
"""

from __future__ import annotations

import itertools
import pickle
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from ..core.errors import UserError
from ..core.fork_server import ForkServer, Process
from ..core.limits import limits, setting
from ..core.piped import start_piped
from .server import Reply, Request, Status

# Questions that may wait for a process; more are refused.
MOST_WAITING = 8
# Between two reports to someone who waits.
WAIT_SECONDS = 0.5


class ModelProcesses:
    """Processes that hold models and answer questions about them.

    Args:
        limit: processes at once, each with the memory of two models; None takes `Limits.model_workers`.
        seconds: that an answer may take; None takes `Limits.model_seconds`.
        server: forks them, so that they need not load their libraries.
    """

    def __init__(
        self, limit: int | None = None, seconds: float | None = None, server: ForkServer | None = None
    ) -> None:
        self._server, set_ = server, limits()
        self._limit = set_.model_workers if limit is None else limit
        self._seconds = set_.model_seconds if seconds is None else seconds
        self.running: list[ModelProcess] = []
        self._changed = threading.Condition()
        self._waiting = 0

    def ask(self, job: str, dense: str, pruned: str, stamp: float, **arguments: object) -> Iterator[object]:
        """Ask a question; yields the steps of the answer as they come, `Status` among them.

        Args:
            job: one of `server.JOBS`, with its arguments.
            dense, pruned, stamp: see `server.Request`.

        Raises:
            UserError: what the answer says is wrong, too many wait already, it takes too long, or the process
                ended.
        """
        process = None
        self._enter()
        try:
            while (process := self._take((dense, pruned, stamp))) is None:
                yield Status("Waiting for another question to be answered …")
                with self._changed:
                    self._changed.wait(WAIT_SECONDS)
        finally:
            if process is None:  # whoever asked has left
                self._leave()
        try:
            self._leave()
            yield from process.ask(job, dense, pruned, stamp, arguments, self._seconds)
        finally:
            self._give_back(process)

    def close(self) -> None:
        """End all processes."""
        with self._changed:
            for process in self.running:
                process.end()
            self.running = []

    def _enter(self) -> None:
        with self._changed:
            if self._waiting >= MOST_WAITING:
                raise UserError("Too many questions are waiting for the models. Try again in a minute.")
            self._waiting += 1

    def _leave(self) -> None:
        with self._changed:
            self._waiting -= 1

    def _take(self, key: tuple) -> ModelProcess | None:
        """A process for the models of `key`; None where there is none free yet."""
        with self._changed:
            for process in self.running:
                if process.is_overdue():  # its answer is no longer read by anybody
                    process.end()
            self.running = [p for p in self.running if p.is_alive()]
            same = [p for p in self.running if p.key == key]
            free = [p for p in self.running if not p.busy]
            chosen = next((p for p in same if not p.busy), None)
            if chosen is None and same:  # its models are loaded already: wait for it
                return None
            if chosen is None and len(self.running) < self._limit:
                chosen = ModelProcess(self._server)
                self.running.append(chosen)
            chosen = chosen or next(iter(free), None)
            if chosen is not None:
                chosen.take(key, self._seconds)
            return chosen

    def _give_back(self, process: ModelProcess) -> None:
        with self._changed:
            process.busy = False
            self._changed.notify_all()


class ModelProcess:
    """One process, asked by one thread at a time."""

    def __init__(self, server: ForkServer | None) -> None:
        self._server = server
        self.busy, self.key, self._deadline = False, (), 0.0
        self._numbers = itertools.count(1)
        self._start()

    def _start(self) -> None:
        self._replies: queue.Queue[Reply | None] = queue.Queue()
        self._process, self._requests, answers = start_piped(
            "pip_core.inspection.server", server=self._server
        )
        reading = (self._process, answers, self._replies)
        threading.Thread(target=self._read, args=reading, daemon=True).start()

    @staticmethod
    def _read(process: Process, answers: BinaryIO, replies: queue.Queue) -> None:
        with answers, suppress(EOFError, pickle.UnpicklingError, OSError, ValueError):
            while True:
                replies.put(pickle.load(answers))
        process.wait()
        replies.put(None)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def is_overdue(self) -> bool:
        return self.busy and time.monotonic() > self._deadline + 5

    def take(self, key: tuple, seconds: float) -> None:
        self.busy, self.key, self._deadline = True, key, time.monotonic() + seconds

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def ask(
        self, job: str, dense: str, pruned: str, stamp: float, arguments: dict, seconds: float
    ) -> Iterator[object]:
        number, ended = next(self._numbers), False
        request = Request(number, job, dense, pruned, stamp, arguments)
        try:
            reply = self._first_reply(request, seconds)
            while True:
                reply = reply or self._next_reply(number, seconds)
                if reply is None:
                    raise UserError(
                        "The process that holds the models ended, probably because memory ran out. Ask "
                        "again; if that does not help, stop other runs first."
                    )
                if reply.kind == "step":
                    yield reply.value
                    reply = None
                    continue
                ended = True
                if reply.kind == "error":
                    raise UserError(reply.value, reply.setting)
                return
        finally:
            if not ended:
                with suppress(OSError, ValueError):
                    self._write(Request(number))

    def _first_reply(self, request: Request, seconds: float) -> Reply | None:
        """The first reply to a request; None where the process ends before one."""
        with suppress(OSError, ValueError):
            self._write(request)
            if (reply := self._next_reply(request.number, seconds)) is not None:
                return reply
        # It ended at this moment because nothing was asked: another one is asked instead.
        self._start()
        with suppress(OSError, ValueError):
            self._write(request)
        return self._next_reply(request.number, seconds)

    def _write(self, request: Request) -> None:
        pickle.dump(request, self._requests)
        self._requests.flush()

    def _next_reply(self, number: int, seconds: float) -> Reply | None:
        """The next reply to a request; None where the process ended.

        Raises:
            UserError: there is none in time.
        """
        while True:
            try:
                reply = self._replies.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                self.end()
                raise UserError(
                    f"The models did not answer within {seconds:.0f} seconds{setting('model_seconds')}. "
                    "Ask for less."
                ) from None
            if reply is None:
                self._replies.put(None)  # it has ended for whoever looks again, too
                return None
            # Before it has read a question, it answers none of them (0) when it needs too much memory.
            if reply.number in (number, 0):
                return reply
