"""What the page's document says of itself."""

from __future__ import annotations

import asyncio

from pip_core.ui.document import Document

GRADIOS = b"""<!doctype html><head>
<meta property="og:title" content="Gradio" /><meta
 name="twitter:description"
 content="Click to try out the app!" /><meta name="viewport" content="width=device-width" />
<script>config = {"words": "</gradio-app>"}</script></head><body><gradio-app></gradio-app></body>"""


def answered(body: bytes, path: str) -> tuple[dict, bytes]:
    """What reaches the browser of an answer that comes in two parts."""
    sent: list[dict] = []

    async def app(scope, receive, send) -> None:
        headers = [(b"content-length", str(len(body)).encode()), (b"x-kept", b"yes")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body[:100], "more_body": True})
        await send({"type": "http.response.body", "body": body[100:]})

    async def keep(message: dict) -> None:
        sent.append(message)

    asyncio.run(Document(app, ["first()", "second()"])({"type": "http", "path": path}, None, keep))
    return dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent)


def test_the_document_says_what_this_page_is_and_not_what_gradio_is():
    headers, body = answered(GRADIOS, "/")
    assert not [words for words in (b"Click to try out", b'content="Gradio"') if words in body]
    assert [body.count(words) for words in (b'name="viewport"', b"og:title' content='PIP Studio'")] == [1, 1]
    assert headers == {b"content-length": str(len(body)).encode(), b"x-kept": b"yes"}


def test_its_scripts_come_first_and_the_drawing_after_all_that_it_is_drawn_from():
    body = answered(GRADIOS, "/below/this/")[1]
    assert body.index(b"first()\nsecond()") < body.index(b"viewport")
    assert body.endswith(b"<script>pip.ahead()</script></body>")


def test_what_is_no_page_stays_as_it_is():
    for body, path in ((GRADIOS, "/config"), (b"<head></head>" + b"." * 200, "/")):
        headers, sent = answered(body, path)
        assert (sent, headers[b"content-length"]) == (body, str(len(body)).encode())
