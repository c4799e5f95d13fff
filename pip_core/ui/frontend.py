"""What a browser loads before the page stands: gradio's modules, Plotly, and the page itself. No gradio.

Gradio's browser part asks for its modules in four rounds, each when the last has been run, and its server
reads and compresses each anew. Here they are named at the head of the page, and answered from memory.
"""

from __future__ import annotations

import asyncio
import gzip
import mimetypes
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path

import plotly

from .gate import answer

# Where gradio's server answers with the modules of its browser part. A name never changes what it stands for.
ASSETS = "/assets/"
FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PLOTLY_NAME = f"plotly-{plotly.__version__}.min.js"
# What the page depends on beside the server. Who is signed in is said by a cookie.
WHERE = (b"host", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for", b"x-direct-url")
# Pages, as somebody who is not signed in gets them, are remembered for so many addresses.
MOST_ADDRESSES = 16
COMPRESSION = 6
PACKED = (b"content-encoding", b"gzip")

# In the modules: what one imports while it runs, and what that needs by number in a list at its beginning.
_IMPORTED = re.compile(
    r"import\(`\./(?P<name>[\w.-]+)`\)(?:(?!import\(`).){0,120}?"
    r"__vite__mapDeps\(\[(?P<needs>[\d,]*)\]",
    re.DOTALL,
)
_LISTED = re.compile(r"m\.f=\[(?P<names>[^\]]*)\]")
# In the module that makes components: where the one of a kind is imported.
_COMPONENT = r"[{{,]{}:\{{(?:(?!component:).)*?component:\(\)=>\w+\(\(\)=>"
_ENTRY = re.compile(r'src="\./assets/(?P<name>[\w.-]+\.js)"')
_BASE = re.compile(rb"<base [^>]*>")


def modules(frontend: Path, kinds: Iterable[str]) -> list[str]:
    """Names of the files that gradio's browser part loads for a page; what is not found is asked for later.

    Args:
        frontend: gradio's folder `templates/frontend`.
        kinds: the components of the page, as gradio's browser part calls them ("textbox").
    """
    folder, found = frontend / "assets", dict[str, None]()
    entry = _ENTRY.search(_text(frontend / "index.html"))
    begun = _imported(_text(folder / entry["name"])) if entry else []
    for name, needs in begun:
        found |= dict.fromkeys((name, *needs))
    for name, _ in begun:
        text = _text(folder / name)
        if name.startswith("core-"):
            places = [re.search(_COMPONENT.format(re.escape(kind)), text, re.DOTALL) for kind in kinds]
            imports = [_imported(text, place.end())[:1] for place in places if place]
        else:
            imports = [[one for one in _imported(text) if one[0].startswith("Blocks-")]]
        for component, needs in (one for some in imports for one in some):
            found |= dict.fromkeys((component, *needs))
    return [name for name in found if (folder / name).is_file()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _imported(text: str, begin: int = 0) -> list[tuple[str, list[str]]]:
    """What a module imports while it runs, from a place in its text on, each with what that needs."""
    listed = _LISTED.search(text)
    names = re.findall(r'"\./([\w.-]+)"', listed["names"]) if listed else []
    return [
        (one["name"], [names[int(n)] for n in one["needs"].split(",") if n and int(n) < len(names)])
        for one in _IMPORTED.finditer(text, begin)
    ]


def preloading(names: Iterable[str]) -> bytes:
    """Lines for the head of the page that name what it will load."""
    lines = [
        f"<link {kind} crossorigin href='.{ASSETS}{name}'>"
        for name in names
        for kind in ["rel='modulepreload'" if name.endswith(".js") else "rel='preload' as='style'"]
    ]
    return "".join(lines).encode()


class Frontend:
    """Middleware (of ASGI) that answers for what a browser loads before the page stands.

    Args:
        frontend: gradio's folder `templates/frontend`.
        kinds: the components of the page, as gradio's browser part calls them.
    """

    def __init__(self, app: Callable, frontend: Path, kinds: Iterable[str]) -> None:
        self.app, self.folder = app, frontend / "assets"
        self._head = cache(lambda: preloading(modules(frontend, kinds)))
        self._pages: dict[tuple, bytes] = {}

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        """Pass a request on, or answer it."""
        asked = scope["path"] if scope["type"] == "http" and scope["method"] == "GET" else ""
        headers = dict(scope.get("headers", ()))
        packs = b"gzip" in headers.get(b"accept-encoding", b"")
        if asked == "/" and packs:
            await self._page(scope, headers, receive, send)
        elif asked.startswith(ASSETS) and packs and (file := self._file(asked.removeprefix(ASSETS))):
            kind = (mimetypes.guess_type(file.name)[0] or "application/octet-stream").encode()
            await answer(send, 200, await asyncio.to_thread(_packed, file), kind, FOREVER, PACKED)
        else:
            await self.app(scope, receive, send)

    def _file(self, name: str) -> Path | None:
        """What is loaded by a name; None where there is no such file."""
        file = PLOTLY if name == PLOTLY_NAME else self.folder / name
        return file if "/" not in name and file.is_file() else None

    async def _page(self, scope: dict, headers: dict, receive: Callable, send: Callable) -> None:
        """The page, with what it will load at its head. Gradio's server makes it anew for everybody."""
        known = tuple(headers.get(name) for name in WHERE), scope.get("root_path"), scope.get("scheme")
        alike = b"cookie" not in headers and b"deep_link" not in scope.get("query_string", b"")
        page = self._pages.get(known) if alike else None
        if page is not None:
            await answer(send, 200, page, b"text/html", PACKED)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start, body = await _answered(self.app, {**scope, "headers": plain}, receive)
        if start["status"] == 200:
            body = gzip.compress(_BASE.sub(lambda base: base[0] + self._head(), body, count=1), COMPRESSION)
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            start = {**start, "headers": [*kept, PACKED, (b"content-length", b"%d" % len(body))]}
            if alike and all(name.lower() != b"set-cookie" for name, _ in kept):
                while len(self._pages) >= MOST_ADDRESSES:
                    self._pages.pop(next(iter(self._pages)), None)
                self._pages[known] = body
        await send(start)
        await send({"type": "http.response.body", "body": body})


async def _answered(app: Callable, scope: dict, receive: Callable) -> tuple[dict, bytes]:
    """How an application begins its answer to a request, and the whole body."""
    start: dict = {}
    body: list[bytes] = []

    async def keep(message: dict) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body.append(message.get("body", b""))

    await app(scope, receive, keep)
    return start, b"".join(body)


@lru_cache(maxsize=256)
def _packed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes(), COMPRESSION)


def pack_ahead(frontend: Path, kinds: Iterable[str]) -> None:
    """Compress what a page loads before somebody asks for it; the arguments are those of `modules`."""
    for file in (*(frontend / "assets" / name for name in modules(frontend, kinds)), PLOTLY):
        _packed(file)
