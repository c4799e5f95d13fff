"""The page as a server of its own, and a headless Chromium to use it with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .server import FLAGS, Server, chromium

# Two small cores may be shared with others.
expect.set_options(timeout=20_000)
# What Gradio says of requests that were open when a page was left or reloaded.
FAREWELLS = ("AbortError: signal is aborted", "errored out")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("page"))
    found.start()
    yield found
    found.end()
    assert "Traceback" not in found.log.read_text()


@dataclass(frozen=True)
class ApiRun:
    """A run made by a program: its id, every state it reported, and the model it handed out."""

    id: str
    states: list[dict]
    archive: Path


@pytest.fixture(scope="session")
def api_run(server, llama_folder) -> ApiRun:
    """The page's main job, done with `gradio_client`."""
    client = Client(server.url, verbose=False)
    settings = {
        "model": str(llama_folder),
        "target": 0.3,
        "units": ["blocks"],
        "vocabulary": 0.0,
        "refit": False,
        "windows": 3,
        "window_tokens": 24,
        "items": 8,
        "perplexity_windows": 2,
        "perplexity_tokens": 32,
    }
    run_id = client.predict(settings, "by a program", api_name="/start")
    states = list(client.submit(run_id, api_name="/follow"))
    return ApiRun(run_id, states, Path(client.predict(run_id, api_name="/result")))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        assert not os.environ.get("CI"), "CI must have Chromium"
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visitor(browser, server) -> Iterator[Callable[..., Page]]:
    """Open the page as somebody new: `visitor()`, `visitor(width=390)`. No error may reach the console,
    unless the visitor is `forgiving`."""
    contexts, complaints = [], []

    def open_(width: int = 1440, height: int = 900, path: str = "", forgiving: bool = False) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        if not forgiving:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(server.url + path)
        page.wait_for_selector("#model")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [c for c in complaints if not c.startswith(FAREWELLS[0]) and FAREWELLS[1] not in c] == []
