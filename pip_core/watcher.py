"""Looking at runs: each one's story, fed by one reader of its events, and its state."""

from __future__ import annotations

import threading
from collections import OrderedDict

from . import runs
from .story import Story

REMEMBERED = 32


class Watcher:
    """Stories of the runs being looked at. Safe to ask from several threads."""

    def __init__(self, studio: runs.Studio) -> None:
        self._studio = studio
        self._known: OrderedDict[str, tuple[runs.Tail, Story]] = OrderedDict()
        self._lock = threading.Lock()

    def story(self, run_id: str) -> tuple[Story, str]:
        """A run's story and state ("none" where there is no such run).

        Raises:
            UserError: a run that another version wrote.
        """
        folder = self._studio.folder(run_id)
        if folder is None:
            return Story(), "none"
        with self._lock:
            # Asked first: a worker that ends meanwhile has written its last event.
            working, silent = self._studio.working(run_id), self._studio.silent(run_id)
            tail, story = self._known.pop(run_id, None) or (runs.Tail(folder), Story())
            story.tell(tail.poll())
            self._known[run_id] = (tail, story)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return story, runs.state(folder, story.ending, bool(story.sentences), working, silent)
