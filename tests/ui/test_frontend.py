"""What a browser loads before the page stands: named at its head, and answered from memory."""

from __future__ import annotations

import asyncio
import gzip

from app import FRONTEND
from pip_core.ui import frontend

PAGE = b"<head><base href='./'><title>x</title></head>"
PACKS = [(b"accept-encoding", b"gzip, br"), (b"host", b"here")]


def answered(app, path: str, headers=PACKS, query: bytes = b"") -> tuple[int, dict, bytes]:
    """How a request is answered: status, headers, and the body as the browser unpacks it."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": query}
    asyncio.run(app(scope, None, send))
    found = dict(sent[0]["headers"])
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], found, gzip.decompress(body) if b"content-encoding" in found else body


def test_what_the_page_loads_is_named_at_its_head_and_comes_from_memory():
    asked = []

    async def server(scope, receive, send):
        asked.append((scope["path"], dict(scope["headers"]).get(b"accept-encoding")))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
        )
        await send({"type": "http.response.body", "body": PAGE})

    app = frontend.Frontend(server, FRONTEND, ["textbox", "html", "no such component"])
    names = frontend.modules(FRONTEND, ["textbox", "html", "no such component"])
    assert {name.partition("-")[0] for name in names} > {"Index", "Blocks", "core", "HTML"}
    status, headers, page = answered(app, "/")
    assert status == 200
    assert page.startswith(b"<head><base href='./'><link rel='modulepreload'")
    assert all(b"'./assets/%s'" % name.encode() in page for name in names)
    # Made once for all who are not signed in at an address.
    assert answered(app, "/", query=b"run=x")[2] == page
    answered(app, "/", [*PACKS, (b"cookie", b"me")])
    answered(app, "/", [(b"host", b"there"), PACKS[0]])
    assert asked == [("/", None)] * 3
    for name in (*names, frontend.PLOTLY_NAME):
        status, headers, body = answered(app, f"/assets/{name}")
        file = FRONTEND / "assets" / name
        assert body == (file if name in names else frontend.PLOTLY).read_bytes()
        assert b"immutable" in headers[b"cache-control"]
    assert len(asked) == 3
    # Anything else is gradio's to answer.
    for path in ("/assets/no-such.js", "/assets/../index.html", "/assets/x/../../index.html", "/theme.css"):
        answered(app, path)
    answered(app, f"/assets/{names[0]}", headers=[])
    assert len(asked) == 3 + 5


def test_another_gradio_than_this_one_is_loaded_as_it_asks(tmp_path):
    assert frontend.modules(tmp_path, ["textbox"]) == []
    (tmp_path / "index.html").write_text('<script src="./assets/a.js"></script>')
    assert frontend.modules(tmp_path, ["textbox"]) == []
