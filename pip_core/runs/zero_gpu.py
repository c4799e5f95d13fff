"""ZeroGPU: a run is worked on in calls of the page's process to which Spaces lend their GPU.

Each call is given so many seconds. It loads the model, replays what was decided, goes on, and leaves after a
decision when the next might come too late. What a call that is ended had not decided is done anew by the
next. The visitor's daily quota pays, so a run is worked on only in the context in which they asked.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from contextvars import Context, copy_context
from pathlib import Path

import psutil

from ..core import events as ev
from ..core.device import fast_bfloat16
from ..core.errors import UserError, shortened
from ..core.fork_server import Process
from ..core.lent_gpu import lent
from ..core.limits import limits
from ..core.network import working_for
from ..core.public_text import public
from . import run_directory, worker
from .files import LAUNCHED, LOG
from .recorded import read_events

# What no later call does anew: what follows the last removal is made in memory, and made again.
KEPT = (ev.Removed, ev.Evaluated)
# Of a call: for torch, the libraries and the model to be there, and before its time is over.
BEGIN_SECONDS, MARGIN_SECONDS = 20, 5
# A call that was ended before it decided anything is given this much more the next time, so many times.
MORE, TRIES = 2, 2
# Titles of the errors of `spaces` 0.51: the call itself was ended. Any other means that there was none.
ENDED = "ZeroGPU worker error"


def call(folder: str, command: str, seconds: int, token: str) -> bool:
    """Work on a run for `seconds`, in a process that has a GPU; returns whether there is no more to do. What
    goes wrong is in the run's events, or else in its log, as that of a worker process.

    Args:
        token: of the visitor who asked.
    """
    place, leave = Path(folder), Leave(seconds)
    fast_bfloat16.cache_clear()  # the page has asked the processor
    with (place / LOG).open("a", encoding="utf-8") as log, redirect_stderr(log), lent(), working_for(token):
        try:
            for _ in run_directory.work(place, command == "resume", launched=True, leave=leave):
                pass
        except UserError as error:
            print(f"error: {error}", file=log)
        except Exception:
            traceback.print_exc(file=log)
    return not leave.left


class Leave:
    """Whether a call is to leave a run after an event: after a decision, when the next might not be reached.

    Attributes:
        left: whether it was.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until = now() + seconds - MARGIN_SECONDS
        self._last, self._longest, self.left = now(), 0.0, False

    def __call__(self, event: ev.Event) -> bool:
        if isinstance(event, KEPT):
            now = self._now()
            self._longest, self._last = max(self._longest, now - self._last), now
            self.left = now + self._longest > self._until
        return self.left


def seconds_of(folder: str, command: str, seconds: int, token: str) -> int:
    """The seconds that `spaces` is to ask for, of the arguments of a `call`."""
    return seconds


class Thread:
    """A thread as a `Process`: it lives in the page's."""

    returncode: int | None

    def __init__(self, folder: Path, work: Callable[[], None], asked: Context) -> None:
        self.pid, self.returncode = os.getpid(), None
        self._folder, self._work, self._asked = folder, work, asked
        self._thread = threading.Thread(target=self._run, name="calls", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._asked.run(self._work)
        self.returncode = 0

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("a run's calls", timeout or 0.0)
        return 0

    def send_signal(self, number: int, /) -> None:
        """Let it stop at its next batch, whatever the signal."""
        if self._thread.is_alive():
            run_directory.request_stop(self._folder)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Calls:
    """Works on runs in calls that are lent a GPU."""

    alone = False

    def __init__(self) -> None:
        try:
            gpu = importlib.import_module("spaces").GPU
        except ImportError:
            raise UserError(
                "ZeroGPU takes the package 'spaces', which Spaces install by themselves where their hardware "
                "is ZeroGPU. Here, leave PIP_STUDIO_PLACE unset."
            ) from None
        self._call = gpu(duration=seconds_of)(call)

    def start(self, folder: Path, command: str, token: str, asked: Context | None) -> Process:
        said = worker.begin(folder, command)
        # Held by this process until the last call has ended, where each call holds the run's lock.
        worker.note(folder, psutil.Process(), said, command)
        return Thread(folder, lambda: self._drive(folder, command, token), asked or copy_context())

    def _drive(self, folder: Path, command: str, token: str) -> None:
        try:
            self._calls(folder, command, token)
        except Exception:  # nobody else would say so
            with (folder / LOG).open("a", encoding="utf-8") as log:
                traceback.print_exc(file=log)
        finally:
            (folder / LAUNCHED).unlink(missing_ok=True)

    def _calls(self, folder: Path, command: str, token: str) -> None:
        tries, seconds = 0, seconds_for(folder)
        while True:
            before = kept(folder)
            try:
                if self._call(str(folder), command, seconds, token):
                    return
            except Exception as error:
                moved = kept(folder) > before
                if getattr(error, "title", "") != ENDED:
                    give_up(folder, f"ZeroGPU lends no GPU now: {told(error)}.")
                    return
                if not moved and tries == TRIES:
                    give_up(
                        folder,
                        f"ZeroGPU ended {tries + 1} calls, the last after {seconds} s, before anything was "
                        "decided. Choose a smaller model or fewer windows, or run it on other hardware.",
                    )
                    return
                if not moved:
                    tries, seconds = tries + 1, MORE * seconds
                    continue
            tries, seconds = 0, seconds_for(folder)
            if run_directory.has_request(folder):  # made since the call looked for the last time
                run_directory.end_as_requested(folder)
                return


def kept(folder: Path) -> int:
    """How much of a run no later call does anew."""
    return sum(isinstance(event, KEPT) for event in read_events(folder))


def seconds_for(folder: Path) -> int:
    """Seconds that the next call of a run asks for: what is left, by what the run says of itself, and no more
    than may be asked for at a time."""
    most = int(limits().zero_gpu_seconds)
    left = [e.remaining for e in read_events(folder) if isinstance(e, ev.Progress)]
    return min(most, int(left[-1]) + BEGIN_SECONDS + MARGIN_SECONDS) if left else most


def told(error: Exception) -> str:
    """What `spaces` says, in one line that may be shown."""
    return public(shortened(str(getattr(error, "message", "") or error)))


def give_up(folder: Path, why: str) -> None:
    """Pause a run, and say why."""
    removals = ev.removals(read_events(folder))
    again = "What was removed is kept; press Resume to go on."
    run_directory.record(folder, [ev.Warned(f"{why} {again}"), ev.Paused(len(removals))])
