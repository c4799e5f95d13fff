"""The state of a run, folded from its events into one value.

The page, the charts and the tables read this value; none of them goes through events itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from ..core import events as ev
from ..core.curve import CurvePoint, with_point
from ..core.decisions import Decided, settings_of
from ..core.sample import Sampled
from ..core.units import BLOCKS, DEPTH
from .messages import sentence

Key = TypeVar("Key")
Kind = TypeVar("Kind", bound=ev.Event)
# What is shown of a run is made from these attributes.
SHOWN = (
    *("started", "evaluated", "finals", "scored", "removals", "undone", "results", "curves", "samples"),
    *("forked", "exported", "ending", "steps"),
)


def _nothing() -> Mapping:
    return MappingProxyType({})


@dataclass
class RunSummary:
    """What is known of a run so far.

    `apply` changes a summary and is not safe to call from two threads at once. Threads that only read get a
    `snapshot`, which never changes.

    Attributes:
        evaluated: iteration -> measurement before the stages that follow the last removal; 0 is the dense
            model.
        finals: iteration -> measurement after these stages.
        scored: (iteration, kind) -> scores; those of the last attempt, where a run was resumed.
        removals: the removals that count, in order.
        undone: the undone removals. `evaluated`, `finals`, `scored`, `removals`, `results` and `exported`
            hold nothing that the user has superseded.
        results: stage -> its last result.
        curves: title of a chart -> the points that a stage drew, in order.
        samples: (iteration, whether it is of the finished model) -> what the model wrote.
        forked: what the run began with, where it is a branch of another.
        exported: the last export; None where there is none of the current state.
        progress: the last step of work that was reported.
        ending: Finished, Stopped, Paused or Failed; None while a newer event follows it.
        sentences: (seconds since 1970, sentence) of every event but progress.
        steps: number of events other than progress and loading; nothing is drawn again before it grows.
        changed: attribute of `SHOWN` -> `steps` when it last became another value.
        first_at, last_at: times of the first and the last event, in seconds since 1970; 0 before the first.
        worked: seconds that workers spent on the run, from the times of its events.
    """

    # Mappings and sequences are replaced and never changed in place, so that a snapshot can share them.
    started: ev.Started | None = None
    evaluated: Mapping[int, ev.Evaluated] = field(default_factory=_nothing)
    finals: Mapping[int, ev.Evaluated] = field(default_factory=_nothing)
    scored: Mapping[tuple[int, str], ev.Scored] = field(default_factory=_nothing)
    removals: Sequence[ev.Removed] = ()
    undone: Sequence[ev.RemovalUndone] = ()
    results: Mapping[str, ev.Event] = field(default_factory=_nothing)
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=_nothing)
    samples: Mapping[tuple[int, bool], Sampled] = field(default_factory=_nothing)
    forked: ev.Forked | None = None
    exported: ev.Exported | None = None
    progress: ev.Progress | ev.Loading | None = None
    ending: ev.Event | None = None
    sentences: Sequence[tuple[float, str]] = ()
    steps: int = 0
    changed: Mapping[str, int] = field(default_factory=_nothing)
    first_at: float = 0.0
    last_at: float = 0.0
    worked: float = 0.0
    _last: ev.Event | None = None
    _ends_with_loading: bool = False
    _is_snapshot: bool = False
    _noted: Mapping[str, object] = field(default_factory=_nothing)

    def apply(self, events: Iterable[tuple[ev.Event, float]]) -> None:
        """Fold in more events, each with its time in seconds since 1970.

        Raises:
            TypeError: this is a snapshot.
        """
        if self._is_snapshot:
            raise TypeError("A snapshot does not change: apply events to the summary it was taken from.")
        sentences = list(self.sentences)
        for event, at in events:
            self.first_at = self.first_at or at
            if not self._was_idle_before(event):
                self.worked += max(0.0, at - self.last_at)  # a clock may be set back
            self.last_at, self._last = at, event
            self._fold(event)
            if isinstance(event, ev.Progress):
                continue
            loading = isinstance(event, ev.Loading)
            self.steps += not loading
            if loading and self._ends_with_loading:
                sentences.pop()
            # What the log says of the time is that of all workers, as everywhere.
            told = replace(event, seconds=self.worked) if isinstance(event, ev.Finished) else event
            sentences.append((at, sentence(told)))
            self._ends_with_loading = loading
            if not loading:
                self._note_changes()
        self.sentences = tuple(sentences)

    def _note_changes(self) -> None:
        # Whatever becomes another value is replaced, so looking at which object it is tells.
        noted = {name: getattr(self, name) for name in SHOWN}
        changed = [name for name, value in noted.items() if value is not self._noted.get(name)]
        self._noted, self.changed = noted, {**self.changed, **dict.fromkeys(changed, self.steps)}

    def version(self, of: Iterable[str]) -> int:
        """A number that is the same for as long as none of these attributes (of `SHOWN`) became another."""
        return max((self.changed.get(name, 0) for name in of), default=0)

    def snapshot(self) -> RunSummary:
        """The summary as it is now, which no later `apply` changes. Takes constant time: it shares the
        collections, which are replaced and never changed in place."""
        return replace(self, _is_snapshot=True)

    def _was_idle_before(self, event: ev.Event) -> bool:
        """Whether no worker was running between the last event and this one."""
        begins = isinstance(event, ev.Loading) and not isinstance(self._last, ev.Loading)
        idle = (*ev.ENDINGS, *ev.OPERATIONS)
        return (
            self._last is None or begins or isinstance(event, ev.OPERATIONS) or isinstance(self._last, idle)
        )

    def _fold(self, event: ev.Event) -> None:
        self.ending = event if isinstance(event, ev.ENDINGS) else None
        if isinstance(event, ev.StageResult):
            self.results = _with(self.results, event.result_of, event)
        if isinstance(event, Decided) and self.started:
            # A division may let other kinds join, and leave out those that the recipe names.
            self.started = replace(
                self.started,
                goal=event.goal,
                planned=event.planned,
                planned_share=event.planned_share,
                units=tuple(settings_of(event).get("units", self.started.units)),
            )
        match event:
            case ev.Progress() | ev.Loading():
                self.progress = event
            case ev.Started():
                self.started = event
            case ev.Evaluated(final=True):
                self.finals = _with(self.finals, event.iteration, event)
            case ev.Evaluated():
                self.evaluated = _with(self.evaluated, event.iteration, event)
            case ev.Scored():
                self.scored = _with(self.scored, (event.iteration, event.kind), event)
            case ev.Removed():
                self.removals = (*self.removals, event)
            case CurvePoint():
                self.curves = with_point(self.curves, event)
            case Sampled():
                self.samples = _with(self.samples, (event.iteration, event.final), event)
            case ev.Forked():
                self.forked = event
            case ev.RemovalUndone():
                self.undone = (*self.undone, event)
                self._drop_superseded(event)
            case ev.SettingsChanged():
                self._drop_superseded(event)
            case ev.Exported():
                self.exported = event

    def _drop_superseded(self, by: ev.RemovalUndone | ev.SettingsChanged) -> None:
        def counts(event: ev.Event) -> bool:
            return not ev.is_superseded(event, by)

        points = {title: tuple(filter(counts, found)) for title, found in self.curves.items()}
        self.curves = MappingProxyType({title: found for title, found in points.items() if found})
        self.evaluated = _where(self.evaluated, counts)
        self.finals = _where(self.finals, counts)
        self.scored = _where(self.scored, counts)
        self.results = _where(self.results, counts)
        self.samples = _where(self.samples, counts)
        self.removals = tuple(filter(counts, self.removals))
        if self.exported is not None and not counts(self.exported):
            self.exported = None

    @property
    def dense(self) -> ev.Evaluated | None:
        """The measurement of the dense model."""
        return self.evaluated.get(0)

    @property
    def final(self) -> ev.Evaluated | None:
        """The current model, measured after the stages that follow the last removal; None where there are
        none, or not yet."""
        return self.finals.get(len(self.removals))

    @property
    def latest(self) -> ev.Evaluated | None:
        """The last of `measured`."""
        return self.measured[-1] if self.evaluated else None

    @property
    def measured(self) -> list[ev.Evaluated]:
        """All measurements by iteration, the dense model's first, and `final` at the end."""
        found = [self.evaluated[i] for i in sorted(self.evaluated)]
        return [*found, self.final] if self.final else found

    @property
    def parameters(self) -> int:
        """How many parameters are left after what was done last; 0 before the model is loaded."""
        done = (e for e in self.results.values() if getattr(e, "iteration", 0) >= len(self.removals))
        results = (self.started, *self.removals, *done)
        counts = [getattr(e, "parameters", 0) for e in results]
        return next((count for count in reversed(counts) if count), 0)

    @property
    def pinned(self) -> frozenset[tuple[str, int]]:
        """(kind, block) of blocks and halves that were put back, and stay."""
        return frozenset((u.kind, u.block) for event in self.undone for u in event.units if u.kind in DEPTH)

    @property
    def units(self) -> tuple[str, ...]:
        """The kinds of units that are removed. Of a branch whose model is not loaded yet those that were
        scored in what it begins with; whole blocks where nothing is known."""
        scored = tuple(dict.fromkeys(kind for _, kind in self.scored))
        return self.started.units if self.started else scored or (BLOCKS,)

    @property
    def blocks(self) -> int:
        """How many blocks the dense model has; 0 where that is not known yet."""
        scored = max((len(found.scores) for found in self.scored.values()), default=0)
        return self.started.blocks if self.started else scored

    @property
    def removed_description(self) -> str:
        """What was removed since the dense model, in words; empty before the first removal."""
        results = (*self.removals, *self.results.values())
        described = [e.removed_description for e in results if hasattr(e, "removed_description")]
        return described[-1] if described else ""

    @property
    def early(self) -> bool:
        """Whether the run was exported before its target was reached, and can be resumed."""
        return isinstance(self.ending, ev.Finished) and self.ending.early

    @property
    def planned(self) -> int:
        """Number of iterations that are planned; 0 before the model is loaded."""
        return self.started.planned if self.started else 0


def _with(mapping: Mapping[Key, Kind], key: Key, event: Kind) -> Mapping[Key, Kind]:
    return MappingProxyType({**mapping, key: event})


def _where(mapping: Mapping[Key, Kind], keep: Callable[[ev.Event], bool]) -> Mapping[Key, Kind]:
    return MappingProxyType({key: event for key, event in mapping.items() if keep(event)})
