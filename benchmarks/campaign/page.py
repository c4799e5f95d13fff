"""Attacks on the page: values that no page sends, many programs at once, many that follow, many sessions."""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client

from app import StudioPage
from pip_core.runs.queue import RunQueue
from pip_core.ui.looking import Looks
from tests.browser.server import Server
from tests.run_queues import Workers
from tests.security.odd_values import call_all

from .outcome import Outcome, measured, own_memory

SHORT = {"model": "demo", "target": 0.1, "windows": 4, "items": 4, "perplexity_windows": 1}
# A page that takes longer to answer is as good as dead.
ANSWER_SECONDS = 20.0
PATIENCE_SECONDS = 900.0


def fuzz(count: int, root: Path, seed: int = 0) -> Outcome:
    """Call the page's events with odd values."""
    patch, looks = pytest.MonkeyPatch(), Looks()
    try:
        Workers(patch)
        page = StudioPage(RunQueue(root / "runs"))
        page.handlers.looks = looks
        blocks = page.build()
        with measured("odd call", "", own_memory) as outcome:
            found = call_all(blocks, count, seed)
            outcome.tried, outcome.survived = found.calls, found.calls - len(found.faults)
            outcome.lost = found.faults[:20]
            outcome.note = (
                f"{len(blocks.fns)} events with values that no page sends: {found.refused} refused in a "
                f"sentence, {found.answered} answered"
            )
    finally:
        looks.close()
        patch.undo()
    return outcome


@contextmanager
def served(root: Path) -> Iterator[tuple[Server, Callable[[], int]]]:
    """The page as a server of its own, and what tells its memory (without its workers')."""
    root.mkdir(parents=True, exist_ok=True)
    server = Server(root)
    server.start()
    try:
        process = psutil.Process(server.process.pid)
        yield server, lambda: process.memory_info().rss
    finally:
        server.end()


def _client(server: Server, **settings: str) -> Client:
    """A program that uses the page; on a busy machine it tries for a minute to reach it."""
    until = time.monotonic() + 60
    while True:
        try:
            return Client(server.url, verbose=False, httpx_kwargs={"timeout": 120}, **settings)
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def answers(server: Server) -> bool:
    """Whether the page answers in time."""
    with suppress(httpx.HTTPError):
        return httpx.get(server.url, timeout=ANSWER_SECONDS).status_code == 200
    return False


def clients(count: int, root: Path) -> Outcome:
    """Programs that all start a run at once, follow it, and fetch its model."""
    weights: dict[int, str] = {}
    words: dict[int, str] = {}

    def use(number: int) -> None:
        try:
            client = _client(server, download_files=str(root / f"got-{number}"))
            run = client.predict(SHORT, f"run {number}", api_name="/start")
            states = list(client.submit(run, api_name="/follow"))
            if {state["run"] for state in states} != {run} or states[-1]["state"] != "finished":
                words[number] = f"client {number}: {states[-1]}"
                return
            archive = zipfile.ZipFile(client.predict(run, api_name="/result"))
            name = next(n for n in archive.namelist() if n.endswith("model.safetensors"))
            weights[number] = hashlib.sha256(archive.read(name)).hexdigest()
        except Exception as error:
            words[number] = f"client {number}: {error!r}"

    with served(root) as (server, memory):
        note = "started a run at the same moment, followed it and fetched its model; all weights alike"
        with measured("client", note, memory) as outcome:
            threads = [threading.Thread(target=use, args=(n,)) for n in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
            usual = max(set(weights.values()), key=list(weights.values()).count, default="")
            for number in range(count):
                outcome.count(weights.get(number, "-") == usual, words.get(number, f"client {number}"))
    return outcome


def followers(count: int, root: Path) -> Outcome:
    """Programs that follow a run that waits, while others use the page."""
    with served(root) as (server, memory):
        client = _client(server)
        client.predict({**SHORT, "windows": 300, "measure": "end"}, "long", api_name="/start")
        waiting = client.predict(SHORT, "waits", api_name="/start")
        with measured("follower", "", memory) as outcome:
            followed = []
            for _ in range(count):
                one = _client(server)
                followed.append((one, one.submit(waiting, api_name="/follow")))
            for number, (_, job) in enumerate(followed):
                until = time.monotonic() + ANSWER_SECONDS
                while not job.outputs() and not job.done() and time.monotonic() < until:
                    time.sleep(0.05)
                outcome.count(bool(job.outputs()), f"follower {number} was told nothing")
            during = answers(server)
            took = _seconds_of_a_refusal(client)
            for one, job in followed:
                job.cancel()
                one.close()
            time.sleep(1)
            after = answers(server) and bool(client.submit(waiting, api_name="/follow").result)
            if not (during and after):
                outcome.survived, outcome.lost = 0, [*outcome.lost, "the page did not answer"]
            outcome.note = (
                f"followed one waiting run at once; meanwhile the page {'answered' if during else 'was dead'}"
                f" (a call in {took:.1f} s), and afterwards it {'did' if after else 'did not'}"
            )
    return outcome


def _seconds_of_a_refusal(client: Client) -> float:
    began = time.monotonic()
    with suppress(Exception):
        client.predict("0" * 24, api_name="/result")
    return time.monotonic() - began


def sessions(count: int, root: Path) -> Outcome:
    """Sessions that each ask for something once and are never heard of again."""
    with served(root) as (server, memory):
        call = f"{server.url}gradio_api/call/result"
        with measured("session", "asked for something once and never came back", memory) as outcome:
            for number in range(count):
                try:
                    asked = {"data": ["0" * 24], "session_hash": f"session{number}"}
                    event = httpx.post(call, json=asked, timeout=ANSWER_SECONDS).json()["event_id"]
                    told = httpx.get(f"{call}/{event}", timeout=ANSWER_SECONDS).text
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    told = repr(error)
                outcome.count("event: error" in told, f"session {number}: {told[:100]}")
            if not answers(server):
                outcome.survived, outcome.lost = 0, [*outcome.lost, "the page did not answer"]
    return outcome
