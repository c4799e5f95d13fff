"""The page as a server of its own, for tests and measurements."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Chromium's, for machines without a display and for containers.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def chromium() -> str | None:
    """The path of Chromium, where there is one."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Server:
    """`python app.py` on a port of its own; can be restarted over the same runs.

    Args:
        program: arguments of Python, instead of `app.py`.
    """

    def __init__(self, folder: Path, program: Sequence[str] = ("app.py",)) -> None:
        self.program = program
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
        }
        # As a newcomer starts it: what the page needs it sets itself.
        environment.pop("GRADIO_ANALYTICS_ENABLED", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program], cwd=ROOT, stdout=log, stderr=log, env=environment
            )
        until = time.monotonic() + 240
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
