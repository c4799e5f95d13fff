"""The page as a server of its own, and a headless Chromium to use it with."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .. import tiny

# Two small cores may be shared with others.
expect.set_options(timeout=20_000)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


class Server:
    """`python app.py` on a port of its own; can be restarted over the same runs."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.log = folder / "runs", folder / "app.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        environment = {
            **os.environ,
            "PIP_STUDIO_RUNS": str(self.runs),
            "GRADIO_SERVER_PORT": str(self.port),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=tiny.ROOT, stdout=log, stderr=log, env=environment
            )
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.3)
        raise AssertionError(f"the page did not come up: {self.log.read_text()}")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)


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
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        assert not os.environ.get("CI"), "CI must have Chromium"
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visitor(browser, server) -> Iterator[Callable[..., Page]]:
    """Open the page as somebody new: `visitor()`, `visitor(width=390)`. No error may reach the console."""
    contexts, complaints = [], []

    def open_(width: int = 1440, height: int = 900, path: str = "") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(server.url + path)
        page.wait_for_selector("#model")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
