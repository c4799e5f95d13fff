"""Measure what the page costs: run `python -m benchmarks.page --model MODEL`.

The page is started as a server of its own and used through Chromium, as a visitor would. Printed are
the times from opening it to what is drawn first and to an answer, the bytes it sends per iteration, its
share of the processor time of a run, and how its memory grows over ten runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.acts import MINUTE, fill_form, prune, removed, unfold, wait_for_state
from tests.browser.server import FLAGS, Server, chromium

RUN_SECONDS = 1800
OPENED = 9
# What is drawn ahead of gradio; gradio's own; and when a press is answered.
DRAWN = "performance.getEntriesByName('first-contentful-paint').length > 0"
MAP = "document.querySelector('#map .block-bar')?.checkVisibility({ visibilityProperty: true })"
READY = "document.querySelector('#go')?.disabled === false"
CHARTS = "document.querySelectorAll('#heatmap .main-svg, #curves .main-svg').length > 1"


class Traffic:
    """Bytes that a page's handlers send to a tab, as they come over the wire; not its scripts and styles,
    which come once."""

    def __init__(self, page: Page) -> None:
        self.bytes, self._asked = 0, {}
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.requestWillBeSent", self._ask)
        session.on("Network.dataReceived", self._count)

    def _ask(self, event: dict) -> None:
        self._asked[event["requestId"]] = event["request"]["url"]

    def _count(self, event: dict) -> None:
        url = self._asked.get(event["requestId"], "")
        if "/gradio_api/" not in url or "/file=" in url:
            return
        # A stream tells its encoded length late, or never.
        self.bytes += event["encodedDataLength"] or event["dataLength"]


def opening(browser: Browser, url: str, there: str) -> float:
    """Seconds from opening the page, as somebody new, to `there` being true of it."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function(there, polling="raf", timeout=MINUTE)
    seconds = time.perf_counter() - began
    context.close()
    return seconds


def processor_seconds(process: psutil.Process) -> float:
    """User and system seconds of one process, without its children."""
    spent = process.cpu_times()
    return spent.user + spent.system


def worker_of(page: psutil.Process) -> psutil.Process:
    """The worker that a page has started."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if children := [c for c in page.children() if "pip_core" in " ".join(c.cmdline())]:
            return children[0]
        time.sleep(0.1)
    raise SystemExit("No worker was started.")


def worked(worker: psutil.Process, page: Page) -> float:
    """Processor seconds of a worker and all it started, until the run has ended."""
    spent: dict[int, float] = {}
    while page.locator("#status .status").get_attribute("data-state") not in ("finished", "failed"):
        for process in (worker, *_children(worker)):
            try:
                spent[process.pid] = processor_seconds(process)
            except psutil.Error:
                continue
        page.wait_for_timeout(250)
    return sum(spent.values())


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--target", type=int, default=20, help="percent, of the run that is measured")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--runs", type=int, default=10, help="short runs, for the memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder))
        server.start()
        try:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            measure(browser, server, arguments)
        finally:
            server.end()


def measure(browser: Browser, server: Server, arguments: argparse.Namespace) -> None:
    """Print the figures, as they come."""
    server_process = psutil.Process(server.process.pid)
    for words, there in (("what is drawn first", DRAWN), ("its own chart", MAP), ("where it answers", READY)):
        times = [opening(browser, server.url, there) for _ in range(OPENED)]
        print(f"opening the page to {words}: {said(times)}", flush=True)

    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(server.url)
    page.wait_for_selector("#model")
    fill_form(page, arguments.model, windows=arguments.windows, target=arguments.target)
    number = page.get_by_label("Items per task", exact=True)
    number.fill(str(arguments.items))
    number.press("Tab")
    page.wait_for_timeout(3000)
    traffic, began = Traffic(page), time.perf_counter()
    before = processor_seconds(server_process)
    run_id = prune(page)
    run = worked(worker_of(server_process), page)
    wait_for_state(page, "finished", 10)
    page.wait_for_timeout(1500)
    own, seconds = processor_seconds(server_process) - before, time.perf_counter() - began
    unfold(page, "Charts as numbers")
    iterations = len(removed(page))
    print(
        f"bytes sent per iteration: {traffic.bytes / iterations / 1e3:.0f} KB ({iterations} iterations, "
        f"{traffic.bytes / seconds / 1e3:.1f} KB a second)"
    )
    share = own / (own + run)
    print(
        f"the page's share of the run's processor time: {share:.1%} ({own:.1f} of {own + run:.0f} s; "
        f"{1e3 * own / seconds:.0f} ms a second, in which the worker had {1e3 * run / seconds:.0f} ms)"
    )
    charts = [opening(browser, f"{server.url}?run={run_id}", CHARTS) for _ in range(OPENED)]
    print(f"opening a run's link to its charts: {said(charts)}", flush=True)

    fill_again(page)
    resident = [server_process.memory_info().rss / 1e6]
    for _ in range(arguments.runs):
        last = page.url
        page.locator("#go").click()
        page.wait_for_function("last => location.href !== last", arg=last, timeout=MINUTE)
        wait_for_state(page, "finished", RUN_SECONDS)
        resident.append(server_process.memory_info().rss / 1e6)
        print(f"  memory of the page's process: {resident[-1]:.0f} MB", flush=True)
    growth = resident[-1] / resident[0] - 1
    print(f"memory after {arguments.runs} more runs: {resident[-1]:.0f} MB, {growth:+.1%}")


def fill_again(page: Page) -> None:
    """The shortest run there is."""
    for label, value in (("number input for How much, %", 5), ("Windows", 2), ("Items per task", 2)):
        number = page.get_by_label(label, exact=True)
        number.fill(str(value))
        number.press("Tab")
    page.wait_for_timeout(3000)


def said(seconds: list[float]) -> str:
    """The median of several times, and their spread."""
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    return f"{statistics.median(seconds):.2f} s ({spread} in {len(seconds)} times)"


if __name__ == "__main__":
    main()
