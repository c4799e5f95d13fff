"""Following a run from a program: its state as plain JSON values, whenever it changes. No gradio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from ..core.errors import UserError
from ..core.limits import limits
from ..core.public_text import public
from ..reporting.run_summary import RunSummary
from ..runs.queue import RunQueue
from .shown import LIVE

SECONDS = 0.5
# A state is sent again after so long without a change: to send is how it is found that nobody reads any more.
HEARTBEAT_SECONDS = 5.0


class Followers:
    """Programs that follow runs. They share one event loop, so that a program that waits takes no thread.

    Attributes:
        most: how many may follow at once.
        count: how many do.
    """

    def __init__(self, queue: RunQueue, most: int | None = None) -> None:
        self.queue = queue
        self.most = limits().followers if most is None else most
        self.count = 0

    async def follow(self, run_id: str) -> AsyncIterator[dict]:
        """A run's state now, whenever it changes, and every few seconds, until the run ends.

        Raises:
            UserError: no such run, or too many programs follow runs already.
        """
        if self.queue.folder(run_id) is None:
            raise UserError("There is no such run. It may have been deleted.")
        if self.count >= self.most:
            raise UserError(f"{self.most} programs follow runs already. Try again later.")
        self.count += 1
        try:
            last, sent = None, 0.0
            while True:
                summary, state = await asyncio.to_thread(self.queue.summary, run_id)
                now = facts(run_id, summary, state)
                if now != last or time.monotonic() - sent > HEARTBEAT_SECONDS:
                    yield now
                    last, sent = now, time.monotonic()
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
        "message": public(getattr(summary.ending, "message", "")),
        "verified": summary.exported is not None,
    }
