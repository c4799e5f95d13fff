"""What stands before the page's server: nobody comes in before it is ready, and no file goes out but those
that the page offers. No gradio."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..core.limits import local_files
from ..runs import files, retention
from ..runs.store import ID, TABLES

# Files of a run that the page offers for download, from the run's folder.
OFFERED = (
    *(f"{files.PUBLIC}/{files.RECIPE}", f"{files.PUBLIC}/{files.EVENTS}", f"{files.MODEL}/README.md"),
    *("measurements.csv", "scores.csv", retention.PACKED, files.GGUF),
)
# These name files and folders of this machine.
OFFERED_HERE = (files.RECIPE, files.EVENTS)
# Of the folder of tables: one in a folder that cannot be guessed.
TABLE = re.compile(r"[0-9a-f]{24}/[^/]+\.csv")
# In place of the folder of the runs in addresses of files: where it lies is nobody's business.
RUNS = "the-runs"
# How gradio's addresses name a file.
_FILE = re.compile(r".*/file[=/](?P<path>.+)", re.DOTALL)
# What gradio asks of its own server while it starts.
OWN = "/gradio_api/startup-events"
# An address of gradio that the page does not use: whoever asks there writes files to the disk.
CLOSED = "/deep_link"
STARTING = (
    b"<!doctype html><meta charset='utf-8'><meta http-equiv='refresh' content='1'><title>PIP Studio</title>"
    b"<p>PIP Studio is starting."
)


class Gate:
    """Middleware (of ASGI) around the page's server.

    Until `ready` is set every request is answered by "starting", but for gradio's own: it asks for its own
    page at its start and gives up where that takes three seconds, as it may while visitors already come in.

    Args:
        root: the folder of the runs.
        ready: set when the server has started.
    """

    def __init__(self, app: Callable, root: Path, ready: threading.Event) -> None:
        self.app, self.root, self.ready = app, os.path.realpath(root), ready

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http" and f"={RUNS}/" in scope["path"]:
            path = scope["path"].replace(f"={RUNS}/", f"={self.root}/", 1)
            scope = {**scope, "path": path, "raw_path": quote(path, safe="/=").encode()}
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif not self.ready.is_set() and scope["path"] != OWN:
            checks = scope["method"] == "HEAD"
            await answer(send, 200 if checks else 503, STARTING, b"text/html", (b"retry-after", b"1"))
        elif scope["path"].endswith(CLOSED) or not self.offers(scope["path"]):
            await answer(send, 404, b"There is no such file.")
        else:
            await self.app(scope, receive, send)

    def offers(self, address: str) -> bool:
        """Whether an address names no file of the runs, or one that the page offers."""
        named = _FILE.fullmatch(address)
        if named is None:
            return True
        # As a path from the root, with every link followed; both ways it must be offered.
        plain = os.path.abspath(os.path.join("/", named["path"]))
        real = os.path.realpath(plain)
        return all(is_offered(path, self.root) for path in {plain, real} if path_in(path, self.root))


def hide_folder(outputs: Iterable[Any], root: Path) -> None:
    """Name files of the runs by addresses that do not name the folder that they lie in.

    Args:
        outputs: of an event, as they go to the browser; changed in place.
        root: the folder of the runs.
    """
    for output in outputs:
        file = output.get("value") if isinstance(output, dict) and "__type__" in output else output
        path = file.get("path") if isinstance(file, dict) and file.get("url") else None
        if isinstance(path, str) and path.startswith(f"{root}/"):
            named = f"{RUNS}/{path.removeprefix(f'{root}/')}"
            file |= {"path": named, "url": f"{file['url'].partition('=')[0]}={quote(named)}"}


def path_in(path: str, folder: str) -> bool:
    """Whether a path is a folder, or within it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_offered(path: str, root: str) -> bool:
    """Whether the page offers a file of the folder of the runs."""
    first, _, rest = os.path.relpath(path, root).partition("/")
    if first == TABLES:
        return bool(TABLE.fullmatch(rest))
    return bool(ID.fullmatch(first)) and any(
        _fits(rest, name) for name in (*OFFERED, *(OFFERED_HERE if local_files() else ()))
    )


def _fits(path: str, name: str) -> bool:
    start, star, end = name.partition("*")
    return path == name if not star else path.startswith(start) and path.endswith(end) and "/" not in path


async def answer(
    send: Callable[[dict], Awaitable], status: int, body: bytes, kind: bytes = b"text/plain", *more: tuple
) -> None:
    """Answer a request (of ASGI)."""
    headers = [(b"content-type", kind + b"; charset=utf-8"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
