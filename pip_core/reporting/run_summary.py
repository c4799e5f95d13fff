"""A run as it stands: its events folded into one value that can be drawn.

The page, the figures and the tables all read this; none of them walks through events itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..core import events as ev
from .messages import sentence


@dataclass
class RunSummary:
    """What is known of a run so far.

    Attributes:
        evaluated: iteration -> measurement; 0 is the dense model. After what is done at the end: `finals`.
        scored: (iteration, kind) -> scores (the last attempt, where a run was resumed).
        results: stage -> what it came to, the last time.
        undone: what was taken back; `evaluated`, `finals`, `scored`, `removals` and `exported` are without
            it.
        ending: Finished, Stopped, Paused or Failed, until something newer happens.
        sentences: (time, sentence) of everything but progress.
        worked: seconds that workers have been at it, from what they said.
        steps: how many events other than progress and loading; a chart is redrawn when this grows.
    """

    started: ev.Started | None = None
    evaluated: dict[int, ev.Evaluated] = field(default_factory=dict)
    finals: dict[int, ev.Evaluated] = field(default_factory=dict)
    scored: dict[tuple[int, str], ev.Scored] = field(default_factory=dict)
    removals: list[ev.Removed] = field(default_factory=list)
    undone: list[ev.RemovalUndone] = field(default_factory=list)
    results: dict[str, ev.Event] = field(default_factory=dict)
    exported: ev.Exported | None = None
    progress: ev.Progress | ev.Loading | None = None
    ending: ev.Event | None = None
    sentences: list[tuple[float, str]] = field(default_factory=list)
    steps: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    worked: float = 0.0
    _last: ev.Event | None = None

    def tell(self, events: Iterable[tuple[ev.Event, float]]) -> None:
        """Take in more events, each with its time."""
        for event, at in events:
            self.first_at = self.first_at or at
            if not self._between(event):
                self.worked += at - self.last_at
            self.last_at, self._last = at, event
            self._take(event)
            if isinstance(event, ev.Progress):
                continue
            self.steps += not isinstance(event, ev.Loading)
            text = sentence(event)
            if isinstance(event, ev.Loading) and self.sentences and _is_loading(self.sentences[-1][1]):
                self.sentences[-1] = (at, text)
            else:
                self.sentences.append((at, text))

    def _between(self, event: ev.Event) -> bool:
        """Whether no worker was at it from the last event to this one."""
        begins = isinstance(event, ev.Loading) and not isinstance(self._last, ev.Loading)
        pauses = (*ev.ENDINGS, *ev.OPERATIONS)
        return (
            self._last is None or begins or isinstance(event, ev.OPERATIONS) or isinstance(self._last, pauses)
        )

    def _take(self, event: ev.Event) -> None:
        self.ending = event if isinstance(event, ev.ENDINGS) else None
        if isinstance(event, ev.StageResult):
            self.results[event.result_of] = event
        match event:
            case ev.Progress() | ev.Loading():
                self.progress = event
            case ev.Started():
                self.started = event
            case ev.Evaluated():
                (self.finals if event.final else self.evaluated)[event.iteration] = event
            case ev.Scored():
                self.scored[event.iteration, event.kind] = event
            case ev.Removed():
                self.removals.append(event)
            case ev.RemovalUndone():
                self._take_back(event)
            case ev.Exported():
                self.exported = event

    def _take_back(self, event: ev.RemovalUndone) -> None:
        self.undone.append(event)
        self.evaluated = {k: e for k, e in self.evaluated.items() if not ev.is_superseded(e, event)}
        self.finals = {k: e for k, e in self.finals.items() if not ev.is_superseded(e, event)}
        self.scored = {k: e for k, e in self.scored.items() if not ev.is_superseded(e, event)}
        self.removals = [e for e in self.removals if not ev.is_superseded(e, event)]
        self.results = {k: e for k, e in self.results.items() if not ev.is_superseded(e, event)}
        if self.exported is not None and ev.is_superseded(self.exported, event):
            self.exported = None

    @property
    def dense(self) -> ev.Evaluated | None:
        return self.evaluated.get(0)

    @property
    def final(self) -> ev.Evaluated | None:
        """What is left now, measured after what is done at the end; None where nothing is, or not yet."""
        return self.finals.get(len(self.removals))

    @property
    def latest(self) -> ev.Evaluated | None:
        return self.measured[-1] if self.evaluated else None

    @property
    def measured(self) -> list[ev.Evaluated]:
        """All measurements, the dense model's first; what is left now before and after the end's work."""
        found = [self.evaluated[i] for i in sorted(self.evaluated)]
        return [*found, self.final] if self.final else found

    @property
    def removed_description(self) -> str:
        """What was removed since the dense model, in words; empty before the first removal."""
        told = [e for e in (*self.removals, *self.results.values()) if hasattr(e, "removed_description")]
        return told[-1].removed_description if told else ""

    @property
    def planned(self) -> int:
        return self.started.planned if self.started else 0


def _is_loading(text: str) -> bool:
    return text.startswith(("Downloading", "Unpacking", "Loading"))
