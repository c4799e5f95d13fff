"""The page as a server of its own, and a headless Chromium to use it with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .acts import MINUTE, wait_for_state
from .server import FLAGS, Server, chromium

# Server and browser end with the last test of this folder: Playwright holds an event loop while it lives, and
# no other test could have one of its own in this process.

# Two small cores may be shared with others.
expect.set_options(timeout=20_000)
# What Gradio says of requests that were open when a page was left or reloaded.
FAREWELLS = ("AbortError: signal is aborted", "errored out")


@pytest.fixture(scope="package")
def server(tmp_path_factory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("page"), ("-m", "tests.browser.page"))
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


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        assert not os.environ.get("CI"), "CI must have Chromium"
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@contextmanager
def visiting(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens the page as somebody new: `open_()`, `open_(width=390)`. No error may reach the console, unless
    the visitor is `forgiving`."""
    contexts, complaints = [], []

    def open_(width: int = 1440, height: int = 900, path: str = "", forgiving: bool = False) -> Page:
        # Without a graphics card whatever moves is computed, all the time.
        context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        if not forgiving:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(server.url + path)
        page.wait_for_selector("#status .status", timeout=MINUTE)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [c for c in complaints if not c.startswith(FAREWELLS[0]) and FAREWELLS[1] not in c] == []


@pytest.fixture
def visitor(browser, server) -> Iterator[Callable[..., Page]]:
    """Open the page as somebody new, see `visiting`."""
    with visiting(browser, server) as open_:
        yield open_


@pytest.fixture(scope="module")
def pages(browser, server, api_run) -> Iterator[Callable[[str, int], Page]]:
    """Pages to look at, which are opened once: `pages("empty", 390)`, `pages("finished")`. Nothing that a
    test does there may matter to another one, and each goes to the tab it looks at."""
    with visiting(browser, server) as open_:

        @cache
        def page(shows: str, width: int = 1440) -> Page:
            found = open_(width=width, path=f"?run={api_run.id}" if shows == "finished" else "")
            wait_for_state(found, "none" if shows == "empty" else shows)
            return found

        yield page
