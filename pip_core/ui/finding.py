"""Searching a model as its name is typed. No gradio."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from html import escape

from ..checkpoints.hub_search import Found, find_models, local_models
from ..core.errors import UserError
from .fields import Changes
from .html import millions, problem

# A search begins when nothing was typed for so long.
PAUSE_SECONDS = 0.4
SHORTEST = 2
# Visitors whose last search is known.
MOST_VISITORS = 1000


class Finder:
    """Searches for the page's visitors. A search ends as soon as its visitor types on.

    Args:
        fits: says of a model whether and how it can be pruned, and where it fits.
    """

    def __init__(self, fits: Callable[[str], str]) -> None:
        self._fits = fits
        self._last: OrderedDict[str, int] = OrderedDict()
        self._numbers, self._lock = itertools.count(), threading.Lock()

    def search(self, memory: dict, text: str, recent: Sequence[str] = ()) -> Iterator[Changes]:
        """What is found, and then, one after the other, what is known of each."""
        owner, number = memory.get("owner", ""), next(self._numbers)
        with self._lock:
            self._last[owner] = number
            self._last.move_to_end(owner)
            while len(self._last) > MOST_VISITORS:
                self._last.popitem(last=False)

        def over() -> bool:
            return self._last.get(owner) != number

        time.sleep(PAUSE_SECONDS)
        if over():
            return
        if len(text.strip()) < SHORTEST:
            yield shown([], {}, "")
            return
        note = ""
        try:
            found = find_models(text)
        except UserError as error:
            found = local_models(text, recent)
            note = problem(f"{error} {'These are' if found else 'Nothing like it is'} on this machine.")
        if not found:
            note = note or f"<p class='line'>No text model with safetensors is called “{escape(text)}”.</p>"
        known: dict[str, str] = {}
        for model in found:
            if over():
                return
            yield shown(found, known, note)
            try:
                known[model.repo] = self._fits(model.repo)
            except UserError as error:
                known[model.repo] = str(error)
        if not over():
            yield shown(found, known, note)


def shown(found: Sequence[Found], known: dict[str, str], note: str) -> Changes:
    """Models to choose from, each with what is known of it."""
    choices = [(words(model, known.get(model.repo, "…")), model.repo) for model in found]
    return {
        "found": {"choices": choices, "value": None, "visible": bool(found)},
        "found_note": {"value": note},
    }


def words(model: Found, fits: str) -> str:
    """A model in a line."""
    facts = [model.repo]
    if model.parameters:
        facts.append(millions(model.parameters))
    if model.family:
        facts.append(model.family)
    if model.downloads is not None:
        facts.append(f"{_count(model.downloads)} downloads, {_count(model.likes or 0)} likes")
    if model.gated:
        facts.append("gated")
    return " · ".join([*facts, fits])


def _count(number: int) -> str:
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f}{name}"
    return str(number)
