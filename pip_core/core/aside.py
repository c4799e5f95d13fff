"""A process of its own that calls functions for this one, within limits of time and memory.

What reads foreign input (a config, a table, a text) may take any time and memory. `Aside.call` has it done in
a child process, which is killed when it takes too long; this process waits, and is not affected.
`python -m pip_core.core.aside` is the child: it reads pickled calls from its standard input and writes
pickled answers to its standard output, until its input ends.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar, cast

import psutil

from .errors import UserError
from .fork_server import ForkServer
from .limits import GB, setting
from .piped import Piped, start_piped

Value = TypeVar("Value")
# Calls that may wait for the process; more are refused.
MOST_WAITING = 8
# Seconds that the process may take to load its libraries, and between two looks at its memory.
START_SECONDS, WATCH_SECONDS = 120.0, 0.1
# The process ends after so long without a call.
IDLE_SECONDS = 300.0
READY, DONE, WRONG, FAULT = "ready", "done", "wrong", "fault"


class Aside:
    """Calls functions in another process, one after the other.

    Args:
        seconds: that a call may take.
        most: bytes that the process may hold.
        modules: names of modules that it imports at its start, which no call's time counts.
        server: returns what forks the process, so that it need not load its libraries.
    """

    def __init__(
        self,
        seconds: float,
        most: float,
        modules: tuple[str, ...] = (),
        server: Callable[[], ForkServer | None] = lambda: None,
    ) -> None:
        self._seconds, self._most, self._modules, self._server = seconds, most, modules, server
        self._piped: Piped | None = None
        self._answers: _Answers | None = None
        self._turn, self._places = threading.Lock(), threading.BoundedSemaphore(MOST_WAITING)
        self._idle: threading.Timer | None = None

    def call(self, function: Callable[..., Value], *arguments: object) -> Value:
        """`function(*arguments)`, computed in the other process. All of it must be picklable.

        Raises:
            UserError: what the function says is wrong, or it takes too much time or memory, or too many wait.
        """
        busy = UserError("Too many models and texts are being looked at. Try again in a moment.")
        if not self._places.acquire(blocking=False):
            raise busy
        try:
            if not self._turn.acquire(timeout=self._seconds):
                raise busy
            try:
                if self._idle is not None:
                    self._idle.cancel()
                return self._ask(function, arguments)
            finally:
                self._idle = threading.Timer(IDLE_SECONDS, self._rest)
                self._idle.daemon = True
                self._idle.start()
                self._turn.release()
        finally:
            self._places.release()

    def _rest(self) -> None:
        """End the process, which was not called for a while."""
        if self._turn.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._turn.release()

    def close(self) -> None:
        """End the process; the next call starts another one."""
        if self._piped is not None:
            self._piped.process.kill()
            self._piped.process.wait()
            with suppress(OSError):  # what was not written yet
                self._piped.input.close()
            self._piped = None

    def _ask(self, function: Callable[..., Value], arguments: tuple) -> Value:
        piped, answers = self._started()
        try:
            pickle.dump((function, arguments), piped.input)
            piped.input.flush()
        except OSError:
            self.close()
            raise self._too_much() from None
        kind, value = self._answer(answers, self._seconds)
        if kind == WRONG:
            raise UserError(*value)
        if kind == FAULT:
            raise RuntimeError(f"in the process for looking at models and texts: {value}")
        return cast(Value, value)

    def _started(self) -> tuple[Piped, _Answers]:
        """The process and its answers; it is started where it does not run."""
        if self._piped is None or self._piped.process.poll() is not None or self._answers is None:
            self.close()
            arguments = [str(self._most), *self._modules]
            self._piped = start_piped("pip_core.core.aside", arguments, self._server())
            self._answers = _Answers(self._piped.output)
            self._answer(self._answers, START_SECONDS)
        return self._piped, self._answers

    def _answer(self, answers: _Answers, seconds: float) -> tuple[str, Any]:
        """The next answer. Where it takes too long, or too much memory, the process is ended."""
        until = time.monotonic() + seconds
        while not answers.wait(WATCH_SECONDS):
            if time.monotonic() > until:
                self.close()
                raise UserError(
                    f"Looking at this took longer than {seconds:g} seconds{setting('look_seconds')} and "
                    "was ended. Choose something smaller."
                )
            if self._held() > self._most:
                self.close()
                raise self._too_much()
        found = answers.take()
        if found is None:
            self.close()
            raise self._too_much()
        return found

    def _held(self) -> int:
        if self._piped is not None:
            with suppress(psutil.Error):
                return psutil.Process(self._piped.process.pid).memory_info().rss
        return 0

    def _too_much(self) -> UserError:
        return UserError(
            f"Looking at this needs more than the {self._most / GB:.1f} GB of memory that it may take here"
            f"{setting('look_gb')}. It was ended. Choose something smaller."
        )


class _Answers:
    """What a process answers, read by a thread, so that whoever waits can stop waiting."""

    def __init__(self, source: BinaryIO) -> None:
        self._found: list[tuple[str, Any] | None] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: BinaryIO) -> None:
        with source, suppress(EOFError, pickle.UnpicklingError, OSError, ValueError):
            while True:
                self._add(pickle.load(source))
        self._add(None)

    def _add(self, answer: tuple[str, Any] | None) -> None:
        with self._changed:
            self._found.append(answer)
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Whether there is an answer, within so many seconds."""
        with self._changed:
            return bool(self._found) or self._changed.wait(seconds)

    def take(self) -> tuple[str, Any] | None:
        """The answer; None where the process has ended."""
        with self._changed:
            return self._found.pop(0)


def _answer_calls(source: BinaryIO, output: BinaryIO) -> None:
    from .device import is_out_of_memory, user_message

    def send(kind: str, value: object = None) -> None:
        pickle.dump((kind, value), output)
        output.flush()

    send(READY)
    while True:
        try:
            function, arguments = pickle.load(source)
        except EOFError:
            return
        try:
            send(DONE, function(*arguments))
        except Exception as error:
            if is_out_of_memory(error):  # whoever asked is told what this process may take
                return
            if message := user_message(error):
                send(WRONG, (message, getattr(error, "setting", "")))
            else:
                traceback.print_exc()
                send(FAULT, f"{type(error).__name__}: {error}")


def main() -> None:
    """Answer calls until the input ends."""
    # Libraries print to standard output too; what they print goes to standard error instead.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from importlib import import_module

    from .memory import bound_memory, die_first

    die_first()
    for name in sys.argv[2:]:
        import_module(name)
    bound_memory(float(sys.argv[1]))
    _answer_calls(sys.stdin.buffer, output)
    os._exit(0)


if __name__ == "__main__":
    main()
