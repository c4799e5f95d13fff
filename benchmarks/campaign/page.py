"""Attacks on the page: values that no page sends, many programs at once, many that follow, many sessions."""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from app import StudioPage
from pip_core.runs.queue import RunQueue
from pip_core.ui.looking import Looks
from tests.browser.server import Server
from tests.run_queues import Workers
from tests.security.odd_values import call_all

from .outcome import MB, Outcome, measured, own_memory
from .program import Program, Refused

SHORT = {"model": "demo", "target": 0.1, "windows": 4, "items": 4, "perplexity_windows": 1}
# A page that takes longer to answer is as good as dead.
ANSWER_SECONDS = 20.0
# A client has so long for its own run and for each of those before it.
PATIENCE_SECONDS = 60.0
LEAVING_SECONDS = 6.0
# Runs that a followed run waits for, of some seconds each.
RUNS_BEFORE = 40


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
            program = Program(server.url, f"client{number}")
            run = program.answer("start", SHORT, f"run {number}", "")
            states = [state for (state,) in program.steps("follow", run)]
            if {state["run"] for state in states} != {run} or states[-1]["state"] != "finished":
                words[number] = f"client {number}: {states[-1]}"
                return
            archive = zipfile.ZipFile(
                program.fetched(program.answer("result", run), root / f"got-{number}.zip")
            )
            name = next(n for n in archive.namelist() if n.endswith("model.safetensors"))
            weights[number] = hashlib.sha256(archive.read(name)).hexdigest()
        except Exception as error:
            words[number] = f"client {number}: {error!r}"

    with served(root) as (server, memory):
        note = "started a run at the same moment, followed it and fetched its model; all weights alike"
        with measured("client", note, memory) as outcome:
            threads = [threading.Thread(target=use, args=(n,), daemon=True) for n in range(count)]
            until = time.monotonic() + PATIENCE_SECONDS * count
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            usual = max(set(weights.values()), key=list(weights.values()).count, default="")
            for number in range(count):
                outcome.count(weights.get(number, "-") == usual, words.get(number, f"client {number}"))
    return outcome


def followers(count: int, root: Path) -> Outcome:
    """Programs that follow a run that waits, while others use the page."""
    with served(root) as (server, memory):
        program = Program(server.url, "who started it")
        for number in range(RUNS_BEFORE):
            program.answer("start", {**SHORT, "windows": 300}, f"long {number}", "")
        waiting = program.answer("start", SHORT, "waits", "")
        with measured("follower", "", memory) as outcome:
            open_ = [Program(server.url, f"follower{n}").steps("follow", waiting) for n in range(count)]
            with ThreadPoolExecutor(count) as all_at_once:
                for told in all_at_once.map(
                    lambda one: _told(one[1], waiting, f"follower {one[0]}"), enumerate(open_)
                ):
                    outcome.count(*told)
            held = memory()
            during, took = answers(server), _seconds_of_a_refusal(program)
            for steps in open_:
                steps.close()
            # The page finds that they left when it next writes to them.
            time.sleep(LEAVING_SECONDS)
            again, words = _told(program.steps("follow", waiting), waiting, "who followed afterwards")
            after = answers(server) and again
            if not (during and after):
                outcome.survived, outcome.lost = 0, [*outcome.lost, f"the page did not answer; {words}"]
            outcome.note = (
                f"followed one waiting run at once ({held / MB:.0f} MB then); meanwhile the page "
                f"{'answered' if during else 'was dead'} (a call in {took:.1f} s), and afterwards it "
                f"{'did' if after else 'did not'}"
            )
    return outcome


def _told(steps: Iterator[list], run: str, who: str) -> tuple[bool, str]:
    """Whether a follower is told of the run, and what it was told."""
    try:
        (state,) = next(steps)
    except (httpx.HTTPError, Refused, StopIteration) as error:
        return False, f"{who}: {error!r}"
    return state["run"] == run and state["state"] == "waiting", f"{who}: {state}"


def _seconds_of_a_refusal(program: Program) -> float:
    began = time.monotonic()
    with suppress(httpx.HTTPError, Refused):
        program.answer("result", "0" * 24)
    return time.monotonic() - began


def sessions(count: int, root: Path) -> Outcome:
    """Sessions that each ask for something once and are never heard of again."""
    note = "asked for something once and never came back"
    with served(root) as (server, memory), measured("session", note, memory) as outcome:
        for number in range(count):
            try:
                told = str(Program(server.url, f"session{number}").answer("result", "0" * 24))
            except (httpx.HTTPError, Refused) as error:
                told = repr(error)
            outcome.count(told.startswith("Refused"), f"session {number}: {told[:100]}")
        if not answers(server):
            outcome.survived, outcome.lost = 0, [*outcome.lost, "the page did not answer"]
    return outcome
