"""How the page is served: what it refuses before any handler is asked, and what it may keep. No gradio."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from html import escape
from pathlib import Path
from typing import Any

from starlette.middleware.gzip import GZipMiddleware

from ..core.disk_use import bytes_of
from ..core.limits import GB, LOCAL_FILES, MB, can_sign_in, limits, on_space
from ..core.paths import ASSETS
from ..core.volumes import volume_of
from ..data.files import UPLOADS as UPLOADS_VARIABLE
from ..planning.admission import run_memory
from ..runs import retention
from ..runs.store import ARRIVING, UPLOADS
from .document import TITLE, Document
from .gate import Gate, answer, hide_folder

# Where gradio puts uploads, and what it copies.
TEMPORARY = "GRADIO_TEMP_DIR"
# What the page is bound to; without it this machine alone reaches it.
ADDRESS = "GRADIO_SERVER_NAME"
# Gradio's own copies of uploads are looked through every hour, and kept for a day.
PAGE = {"title": TITLE, "fill_width": True, "delete_cache": (3600, 86400)}
# What the page looks like and does in the browser: a style sheet and a script each; and a script alone.
LOOKS = ("page", "slider", "method", "courtesies")
SCRIPTS = (*LOOKS, "ahead")
# Events that may wait for their turn; more are refused.
MOST_EVENTS = 500
# Events that are answered at once, beside those who follow runs.
EVENTS_AT_ONCE = 40
# Seconds between two looks at how much has been uploaded.
RECOUNT_SECONDS = 2.0
# The status "insufficient storage".
FULL, FULL_WORDS = 507, b"No more files can be uploaded now. Try again later."
# Where refreshes are answered; gradio compresses files alone. Markup and charts repeat themselves: a fifth is
# left of a run's refreshes, for 0.2 ms of processor time each, and a seventh of the page, for 2.
ANSWERS, COMPRESSED_FROM, COMPRESSION = "/gradio_api/run", 500, 4
# Where gradio's own modules and styles are, for the browser; and how much these, and what else stays the same
# while the server runs, are compressed, once each.
MODULES, COMPRESSION_ONCE = "/assets/", 6
OF_THE_PLAIN_FILE = (b"content-length", b"accept-ranges")
# What gradio's `skip` says of a component.
UNCHANGED = {"__type__": "update"}
UNFIT = "What was sent cannot be used: reload the page and try again."


def prepare_to_serve(root: Path) -> None:
    """Set what the page and its workers take from the environment.

    Args:
        root: the folder of the runs.

    Raises:
        UserError: a limit is not set to a number, see `limits`.
    """
    limits()
    os.environ.setdefault(UPLOADS_VARIABLE, str(root / UPLOADS))
    os.environ.setdefault(TEMPORARY, str(root / ARRIVING))
    if not is_loopback(os.environ.get(ADDRESS)):
        # Whoever reaches the page would read this machine's files.
        os.environ.setdefault(LOCAL_FILES, "no")


def kept(root: Path) -> dict[str, Any]:
    """What a Space lets a visitor do, and what becomes of runs when it restarts, as a line of the page;
    nothing on a machine of one's own.

    Args:
        root: the folder of the runs.
    """
    if not on_space():
        return {"value": "", "visible": False}
    set_, volume = limits(), volume_of(root)
    days = set_.keep_days
    words = (
        f"Runs are kept on the volume {escape(str(volume))} when this Space restarts."
        if volume
        else "This Space forgets all runs when it restarts. Download what you want to keep."
    )
    if days is not None:
        words += f" A run that ended is deleted after {days:g} day{'' if days == 1 else 's'}."
    takes = _each_run(signed_in=False)
    most = f"A run may take {takes} here. " if takes else ""
    most += f"Up to {set_.runs_per_owner} of yours may wait or run at once."
    larger = limits(signed_in=True)
    if can_sign_in() and larger != set_:
        takes = _each_run(signed_in=True)
        most += f" Signed in: up to {f'{takes} each, and up to ' if takes else ''}"
        most += f"{larger.runs_per_owner} at once."
    return {"value": f"<p class='line'>{most} {words}</p>", "visible": True}


def _each_run(signed_in: bool) -> str:
    """What a run may take, in words; empty where nothing is set."""
    set_ = limits(signed_in)
    hours, words = set_.run_hours, []
    if hours is not None:
        words.append(f"{hours:g} hour{'' if hours == 1 else 's'}")
    if set_.run_gb is not None:
        words.append(f"{run_memory(signed_in) / GB:.3g} GB of memory")
    return " and ".join(words)


def is_loopback(address: str | None) -> bool:
    """Whether only this machine can reach what is bound to an address."""
    if address in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:
        return False


def serving_options(root: Path, ready: threading.Event, scripts: Sequence[str] = ()) -> dict[str, Any]:
    """Options of gradio's `launch`: where the page is, what it loads, and what visitors can make it keep.

    Args:
        scripts: addresses of files that the page loads and that do not change.
        ready: to be set when `launch` has returned, see `gate`.
    """
    set_ = limits()
    own = [(ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return {
        "server_name": os.environ.get(ADDRESS),
        "css_paths": [ASSETS / f"{name}.css" for name in LOOKS],
        "footer_links": ["api"],
        # Another document, made by Node where there is one; this one is what the page is built and tested on.
        "ssr_mode": False,
        "blocked_paths": [root / retention.LOG],
        "max_file_size": int(set_.upload_mb * MB),
        "state_session_capacity": set_.sessions,
        # Gradio answers so many events at a time, and whoever follows a run is one for as long as they do.
        "max_threads": EVENTS_AT_ONCE + set_.followers,
        "app_kwargs": {
            "middleware": [
                (Gate, (), {"root": root, "ready": ready}),
                (BoundedUploads, (), {"root": root, "most": set_.uploads_gb * GB}),
                (CompressedAnswers, (), {}),
                (KeptFiles, (), {"addresses": (MODULES, *scripts)}),
                (Document, (), {"scripts": own}),
            ]
        },
    }


class BoundedUploads:
    """Refuses uploads while all that was uploaded takes more than `most` bytes."""

    def __init__(self, app: Callable, root: Path, most: float) -> None:
        self.app, self.most = app, most
        self._folders = (root / UPLOADS, Path(os.environ.get(TEMPORARY) or root / ARRIVING))
        self._counted, self._bytes = -RECOUNT_SECONDS, 0

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        """Pass a request (of ASGI) on, or refuse it."""
        posted = scope["type"] == "http" and scope["method"] == "POST"
        if posted and scope["path"].endswith("/upload") and self._used() >= self.most:
            await answer(send, FULL, FULL_WORDS)
        else:
            await self.app(scope, receive, send)

    def _used(self) -> int:
        now = time.monotonic()
        if now - self._counted >= RECOUNT_SECONDS:
            self._counted, self._bytes = now, sum(map(bytes_of, self._folders))
        return self._bytes


class CompressedAnswers:
    """Compresses the page, and what handlers answer at once, as every refresh of it is answered."""

    def __init__(self, app: Callable) -> None:
        self.app, self.compressing = app, GZipMiddleware(app, COMPRESSED_FROM, COMPRESSION)

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        """Pass a request (of ASGI) on."""
        compresses = scope["type"] == "http" and self._compresses(scope["path"])
        await (self.compressing if compresses else self.app)(scope, receive, send)

    @staticmethod
    def _compresses(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return not name or folder.endswith(ANSWERS)


class KeptFiles:
    """Answers with files that do not change from memory, compressed once. Gradio reads and compresses each
    anew for every visitor; of the 80 that the page loads first that is most of the server's work.

    Args:
        addresses: beginnings of their addresses. What is kept is at most what gradio and Plotly ship.
    """

    def __init__(self, app: Callable, addresses: Sequence[str]) -> None:
        self.app, self.addresses = app, tuple(addresses)
        self._kept: dict[str, tuple[list[tuple[bytes, bytes]], bytes]] = {}

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        """Answer a request (of ASGI), or pass it on."""
        if not self._keeps(scope):
            return await self.app(scope, receive, send)
        path = scope["path"]
        if path not in self._kept:
            messages: list[dict] = []

            async def hold(message: dict) -> None:
                messages.append(message)

            # Read for all to come, so to its end: whoever asks first may leave in the middle of it.
            await self.app(scope, _stays, hold)
            start, *parts = messages
            body = b"".join(part.get("body", b"") for part in parts)
            length = dict(start["headers"]).get(b"content-length", b"")
            if start["status"] != 200 or length != str(len(body)).encode():
                for message in messages:
                    await send(message)
                return
            packed = await asyncio.to_thread(gzip.compress, body, COMPRESSION_ONCE)
            headers = [(name, value) for name, value in start["headers"] if name not in OF_THE_PLAIN_FILE]
            length = (b"content-length", str(len(packed)).encode())
            headers += [length, (b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
            self._kept[path] = headers, packed
        headers, packed = self._kept[path]
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": packed})

    def _keeps(self, scope: dict) -> bool:
        """Whether it is such a file that is asked for, whole, by whoever can read it compressed."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return False
        if not scope["path"].startswith(self.addresses) or not scope["path"].endswith((".js", ".css")):
            return False
        headers = dict(scope["headers"])
        return b"gzip" in headers.get(b"accept-encoding", b"") and b"range" not in headers


async def _stays() -> dict:
    """What is received of somebody who asks for a file and does not leave."""
    return await asyncio.get_running_loop().create_future()


def guarded(blocks: Any, error: Any, root: Path) -> Any:
    """A class of gradio's pages that refuses what its components cannot read and events that only the browser
    handles, where gradio's own writes a traceback; and that does not say where the runs are. It also leaves
    alone what a handler does not change, where gradio's own makes every component of the answer anew.

    Args:
        blocks: `gradio.Blocks`.
        error: `gradio.Error`.
        root: the folder of the runs.
    """

    class Guarded(blocks):
        async def process_api(self, block_fn: Any, *arguments: Any, **named: Any) -> Any:
            event = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
            if event.fn is None:
                raise error(UNFIT, print_exception=False)
            return await super().process_api(block_fn, *arguments, **named)

        async def preprocess_data(self, *arguments: Any, **named: Any) -> Any:
            try:
                return await super().preprocess_data(*arguments, **named)
            except error as found:
                found.print_exception = False
                raise
            except Exception:  # whatever a component raises for a value of another type
                raise error(UNFIT, print_exception=False) from None

        async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list:
            outputs = await self._of_changed(block_fn, predictions, state)
            hide_folder(outputs, root)
            return outputs

        async def _of_changed(self, block_fn: Any, predictions: Any, state: Any) -> list:
            outputs = block_fn.outputs
            several = isinstance(predictions, list) and len(predictions) == len(outputs) > 1
            changed = [n for n, one in enumerate(predictions) if one != UNCHANGED] if several else []
            if not several or len(changed) == len(outputs):
                return await super().postprocess_data(block_fn, predictions, state)
            answer = [None if output.stateful else dict(UNCHANGED) for output in outputs]
            if changed:
                fewer = copy(block_fn)
                fewer.outputs = [outputs[n] for n in changed]
                values = [predictions[n] for n in changed]
                made = await super().postprocess_data(fewer, values if len(values) > 1 else values[0], state)
                for n, one in zip(changed, made, strict=True):
                    answer[n] = one
            return answer

    return Guarded
