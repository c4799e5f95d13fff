"""A program that uses the page by plain requests, as the page's API tells it, and never waits for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

# Seconds without a byte after which the page counts as dead; it sends a heartbeat every 15 seconds.
SILENCE_SECONDS = 60.0


class Refused(Exception):
    """The page answered with an error."""


class Program:
    """A session of its own. `gradio_client` does the same, but looks for answers a thousand times a second
    and waits for as long as it takes, which many of them on a small machine do not survive.

    Args:
        url: of the page, with a slash at its end.
    """

    def __init__(self, url: str, session: str) -> None:
        self.url, self.session = url, session

    def steps(self, name: str, *values: Any) -> Iterator[list]:
        """Call an endpoint; what it answers, one list of outputs after the other.

        Raises:
            Refused: it answered with an error.
            httpx.HTTPError: it did not answer.
        """
        call = f"{self.url}gradio_api/call/{name}"
        asked = {"data": list(values), "session_hash": self.session}
        answer = httpx.post(call, json=asked, timeout=SILENCE_SECONDS)
        if answer.is_error:
            raise Refused(answer.text)
        event = answer.json()["event_id"]
        kind, last = "", None
        with httpx.stream("GET", f"{call}/{event}", timeout=SILENCE_SECONDS) as stream:
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    if kind == "error":
                        raise Refused(data)
                    # The last of several steps comes once more as the whole.
                    if kind in ("generating", "complete") and data and data != last:
                        last = data
                        yield data

    def answer(self, name: str, *values: Any) -> Any:
        """The only output of an endpoint that answers once. Raises as `steps`."""
        *_, (value,) = self.steps(name, *values)
        return value

    def fetched(self, file: dict, target: Path) -> Path:
        """A file that an endpoint answered with."""
        with httpx.stream("GET", file["url"], timeout=SILENCE_SECONDS) as stream:
            stream.raise_for_status()
            with target.open("wb") as kept:
                for piece in stream.iter_bytes():
                    kept.write(piece)
        return target
