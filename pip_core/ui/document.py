"""The page's document on its way to the browser: what links to it show, its own scripts, and the drawing
of the page that stands there before gradio has come (`assets/ahead.js`). No gradio."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

TITLE = "PIP Studio"
SAYS = "Make a language model smaller, and see what it costs."
# What gradio says of every page of its own, where links are shown.
SHARED = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>")
NO_SCRIPTS = f"<noscript><p>{TITLE} needs JavaScript: allow it for this page and reload.</p></noscript>"
DRAWN_AHEAD = "<script>pip.ahead()</script>"
BEFORE, AFTER = b"<head>", b"</gradio-app>"


def head(scripts: Sequence[str]) -> str:
    """What the document begins with: names, a description, and scripts."""
    names = "".join(f"<meta property='og:{name}' content='{value}'>" for name, value in _shown())
    code = "\n".join(scripts)
    return f"<title>{TITLE}</title><meta name='description' content='{SAYS}'>{names}<script>{code}</script>"


def _shown() -> Sequence[tuple[str, str]]:
    return ("title", TITLE), ("description", SAYS), ("type", "website")


class Document:
    """Middleware (of ASGI) that completes the page's document.

    Args:
        scripts: the page's own; they run before gradio's.
    """

    def __init__(self, app: Callable, scripts: Sequence[str]) -> None:
        self.app, self.head = app, head(scripts).encode()

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        """Pass a request on, and complete what is answered where it is the page."""
        if scope["type"] != "http" or not scope["path"].endswith("/"):
            return await self.app(scope, receive, send)
        start: dict = {}
        parts: list[bytes] = []

        async def complete(message: dict) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body = self.completed(b"".join(parts))
            headers = [one for one in start["headers"] if one[0] != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await send({**start, "headers": [*headers, length]})
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, complete)

    def completed(self, body: bytes) -> bytes:
        """A document with what belongs to this page; what is none of gradio's pages stays as it is."""
        before, begins, rest = body.partition(BEFORE)
        page, ends, after = rest.rpartition(AFTER)
        if not begins or not ends:
            return body
        own = f"{NO_SCRIPTS}{DRAWN_AHEAD}".encode()
        return before + begins + self.head + SHARED.sub(b"", page) + ends + own + after
