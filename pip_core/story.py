"""A run as it stands: its events folded into one value that can be drawn.

The page, the figures and the tables all read this; none of them walks through events itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from . import events as ev
from .narrate import sentence


@dataclass
class Story:
    """What is known of a run so far.

    Attributes:
        evaluated: iteration -> measurement; 0 is the dense model.
        scored: (iteration, kind) -> scores (the last attempt, where a run was resumed).
        ending: Finished, Stopped or Failed, until something newer happens.
        sentences: (time, sentence) of everything but progress.
        steps: how many events other than progress and loading; a chart is redrawn when this grows.
    """

    started: ev.Started | None = None
    evaluated: dict[int, ev.Evaluated] = field(default_factory=dict)
    scored: dict[tuple[int, str], ev.Scored] = field(default_factory=dict)
    removals: list[ev.Removed] = field(default_factory=list)
    exported: ev.Exported | None = None
    progress: ev.Progress | ev.Loading | None = None
    ending: ev.Event | None = None
    sentences: list[tuple[float, str]] = field(default_factory=list)
    steps: int = 0
    first_at: float = 0.0
    last_at: float = 0.0

    def tell(self, events: Iterable[tuple[ev.Event, float]]) -> None:
        """Take in more events, each with its time."""
        for event, at in events:
            self.first_at = self.first_at or at
            self.last_at = at
            self._take(event)
            if isinstance(event, ev.Progress):
                continue
            self.steps += not isinstance(event, ev.Loading)
            text = sentence(event)
            if isinstance(event, ev.Loading) and self.sentences and _loading(self.sentences[-1][1]):
                self.sentences[-1] = (at, text)
            else:
                self.sentences.append((at, text))

    def _take(self, event: ev.Event) -> None:
        self.ending = event if isinstance(event, ev.ENDINGS) else None
        match event:
            case ev.Progress() | ev.Loading():
                self.progress = event
            case ev.Started():
                self.started = event
            case ev.Evaluated():
                self.evaluated[event.iteration] = event
            case ev.Scored():
                self.scored[event.iteration, event.kind] = event
            case ev.Removed():
                self.removals.append(event)
            case ev.Exported():
                self.exported = event

    @property
    def dense(self) -> ev.Evaluated | None:
        return self.evaluated.get(0)

    @property
    def latest(self) -> ev.Evaluated | None:
        return self.evaluated[max(self.evaluated)] if self.evaluated else None

    @property
    def planned(self) -> int:
        return self.started.planned if self.started else 0


def _loading(text: str) -> bool:
    return text.startswith(("Downloading", "Unpacking", "Loading"))
