"""A process of its own that holds the two models of a run and answers questions about them.

`python -m pip_core.inspection.server` reads pickled `Request`s from its standard input and writes pickled
`Reply`s to its standard output, in the order of the requests. It loads the two models when a run is first
asked about and keeps them until another run is. It ends when its input ends, when nothing was asked for some
minutes, or when it holds more memory than it may; the page that started it is not affected.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import torch

from ..checkpoints.folder import Source
from ..checkpoints.load import Loaded, load, load_folder
from ..core.device import user_message
from ..core.errors import UserError
from ..core.limits import GB, can_sign_in, limits, setting
from ..core.memory import bound_memory, die_first, free_memory
from ..core.progress import drain
from . import chat, latency
from .divergence import divergence

# Of the memory that is free when it starts, what it may hold, unless PIP_STUDIO_MODEL_GB says otherwise.
SHARE_OF_FREE = 0.8
WATCH_SECONDS = 0.5
# A single request for more than this share of the limit is refused, where the watcher would come too late.
HARD_SHARE = 1.25
# Where the limit is less than the process holds from its start, enough to say so.
LEAST_ROOM = 2**28
THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Request:
    """A question about two models.

    Attributes:
        number: tells its replies from others.
        job: one of `JOBS`; empty cancels the request of that number.
        dense: model reference.
        pruned: folder of the exported model.
        stamp: modification time of the pruned folder; another value loads the models anew.
    """

    number: int
    job: str = ""
    dense: str = ""
    pruned: str = ""
    stamp: float = 0.0
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An answer, or a part of one: `kind` is "step", "end" or "error" (`value` is then a sentence, and
    `setting` what `UserError.setting` says)."""

    number: int
    kind: str
    value: Any = None
    setting: str = ""


@dataclass(frozen=True)
class Status:
    """A step that says what is being waited for."""

    text: str


def _chat(dense: Loaded, pruned: Loaded, prompt: str, tokens: int = 64) -> Iterator[object]:
    yield from chat.answers(dense, pruned, prompt, tokens)


def _divergence(dense: Loaded, pruned: Loaded, text: str) -> Iterator[object]:
    yield divergence(dense.model, pruned.model, dense.tokenizer, text, pruned.tokenizer)


def _latency(
    dense: Loaded, pruned: Loaded, prompt_tokens: int, new_tokens: int, rounds: int
) -> Iterator[object]:
    yield (yield from latency.compare_latency(dense, pruned, prompt_tokens, new_tokens, rounds))


# A question by name -> the work, which yields its steps and its result last.
JOBS: dict[str, Callable[..., Iterator[object]]] = {
    "chat": _chat,
    "divergence": _divergence,
    "latency": _latency,
}


class Server:
    """Answers requests one after another."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._writing = threading.Lock()
        self._requests: queue.Queue[Request] = queue.Queue()
        self._cancelled: set[int] = set()
        self._models: tuple[tuple, Loaded, Loaded] | None = None
        self._current = 0

    def read(self, source: BinaryIO) -> None:
        """Take in requests until their source ends, and end the process then: nobody waits for an answer."""
        with suppress(EOFError, pickle.UnpicklingError, OSError):
            while True:
                request: Request = pickle.load(source)
                if request.job:
                    self._requests.put(request)
                else:
                    self._cancelled.add(request.number)
        os._exit(0)

    def watch_memory(self, limit: float) -> None:
        """End the process when it holds more than `limit` bytes."""
        process = psutil.Process()
        while True:
            if process.memory_info().rss > limit:
                message = (
                    f"The two models need more than the {limit / 1e9:.1f} GB that they may take here"
                    f"{setting('model_gb')}."
                )
                self._send(Reply(self._current, "error", message))
                os._exit(3)
            time.sleep(WATCH_SECONDS)

    def serve(self, idle_seconds: float) -> None:
        """Answer until nothing was asked for `idle_seconds`."""
        while True:
            try:
                request = self._requests.get(timeout=idle_seconds)
            except queue.Empty:
                return
            if request.number not in self._cancelled:
                self._current = request.number
                self._answer(request)
            self._cancelled.discard(request.number)

    def _answer(self, request: Request) -> None:
        try:
            for step in self._work(request):
                self._send(Reply(request.number, "step", step))
                if request.number in self._cancelled:
                    return
            self._send(Reply(request.number, "end"))
        except Exception as error:
            message = user_message(error)
            if message is None:
                traceback.print_exc()
                message = f"Unexpected fault ({type(error).__name__}: {error}). Please report it."
            self._send(Reply(request.number, "error", message, getattr(error, "setting", "")))

    def _work(self, request: Request) -> Iterator[object]:
        key = request.dense, request.pruned, request.stamp
        if self._models is None or self._models[0] != key:
            yield Status("Loading both models …")
            self._models = None  # first, so that no more than two are held
            # The folder is the page's own, also where it reads no folders that a visitor names.
            exported = Source(Path(request.pruned), "the pruned model", request.pruned, None)
            try:
                dense = drain(load(request.dense))
            except UserError as error:
                alone = ", since a private one is read for its run alone" if can_sign_in() else ""
                raise UserError(f"The whole model cannot be loaded for this{alone}. {error}") from error
            self._models = key, dense, load_folder(exported)
        _, dense, pruned = self._models
        torch.set_num_threads(THREADS)  # chat shares them out between the models
        yield from JOBS[request.job](dense, pruned, **request.arguments)

    def _send(self, reply: Reply) -> None:
        with self._writing:
            pickle.dump(reply, self._output)
            self._output.flush()


def memory_limit() -> float:
    """Bytes that the process may hold.

    Raises:
        UserError: PIP_STUDIO_MODEL_GB is no number above 0.
    """
    limit = limits().model_gb
    return SHARE_OF_FREE * free_memory() if limit is None else limit * GB


def main() -> None:
    """Serve until the input ends or nothing is asked."""
    # Libraries print to standard output too; what they print goes to standard error instead.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    die_first()
    server, limit = Server(output), memory_limit()
    bound_memory(max(HARD_SHARE * limit, psutil.Process().memory_info().rss + LEAST_ROOM))
    for work, argument in ((server.read, sys.stdin.buffer), (server.watch_memory, limit)):
        threading.Thread(target=work, args=(argument,), daemon=True).start()
    server.serve(limits().model_idle_seconds)
    output.flush()
    # At once: a thread that still reads the input would hold its lock while Python shuts down, and abort.
    os._exit(0)


if __name__ == "__main__":
    # Under its own name too: requests are pickled as classes of `pip_core.inspection.server`.
    from pip_core.inspection.server import main as serve

    serve()
