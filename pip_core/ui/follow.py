"""Following a run from a program: its state as plain JSON values, whenever it changes. No gradio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from ..core.errors import UserError
from ..reporting.run_summary import RunSummary
from ..runs.queue import RunQueue
from .refresh import LIVE

SECONDS = 0.5
# Programs that may follow runs at once, unless PIP_STUDIO_FOLLOWERS says otherwise.
MOST = 64


class Followers:
    """Programs that follow runs. They share one event loop, so that a program that waits takes no thread.

    Attributes:
        most: how many may follow at once.
        count: how many do.
    """

    def __init__(self, queue: RunQueue, most: int | None = None) -> None:
        self.queue = queue
        self.most = _most() if most is None else most
        self.count = 0

    async def follow(self, run_id: str) -> AsyncIterator[dict]:
        """A run's state now and whenever it changes, until the run ends.

        Raises:
            UserError: no such run, or too many programs follow runs already.
        """
        if self.queue.folder(run_id) is None:
            raise UserError("There is no such run. It may have been deleted.")
        if self.count >= self.most:
            raise UserError(f"{self.most} programs follow runs already. Try again later.")
        self.count += 1
        try:
            last = None
            while True:
                summary, state = await asyncio.to_thread(self.queue.summary, run_id)
                now = facts(run_id, summary, state)
                if now != last:
                    yield now
                    last = now
                if state not in LIVE:
                    return
                await asyncio.sleep(SECONDS)
        finally:
            self.count -= 1


def facts(run_id: str, summary: RunSummary, state: str) -> dict:
    """A run as plain JSON values."""
    latest, progress, started = summary.latest, summary.progress, summary.started
    removals = summary.removals
    return {
        "run": run_id,
        "state": state,
        "iterations": len(removals),
        "planned": summary.planned,
        "stage": getattr(progress, "stage", "loading") if progress else "",
        "parameters": removals[-1].parameters if removals else getattr(started, "parameters", 0),
        "accuracy": latest.accuracy if latest else None,
        "perplexity": latest.perplexity if latest else None,
        "message": getattr(summary.ending, "message", ""),
        "verified": summary.exported is not None,
    }


def _most() -> int:
    text = os.environ.get("PIP_STUDIO_FOLLOWERS", str(MOST))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"PIP_STUDIO_FOLLOWERS must be a whole number, 1 or more, not '{text}'.")
    return int(text)
