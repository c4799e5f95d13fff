"""What a run says while it happens: small frozen values, each one line of `events.jsonl`.

Blocks are always named by their number in the dense model, from 0. The events here are those of any run; a
stage that has a result of its own defines its event beside itself, with the decorator `event`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, ClassVar, Union

import pydantic.dataclasses
from pydantic import Discriminator, Tag, TypeAdapter, ValidationError
from typing_extensions import dataclass_transform  # in typing from Python 3.11 on

from . import legacy
from .errors import UserError
from .measurements import Class, TaskResult, TextResult, WritingResult, value
from .units import Units


class Event:
    """One thing that a run says.

    Attributes:
        superseded_by_undo: whether it no longer counts when a removal before it is undone.
        of_the_end: whether it is about what follows the last removal.
        result_of: name of the stage whose result it is; empty for what is no stage's result.
    """

    superseded_by_undo: ClassVar[bool] = False
    of_the_end: ClassVar[bool] = False
    result_of: ClassVar[str] = ""

    @property
    def reached(self) -> int:
        """The number of removals that it depends on."""
        return getattr(self, "iteration", 0)

    def sentence(self) -> str:
        """The event in a plain sentence; events of any run have theirs in `reporting.messages`."""
        raise NotImplementedError(f"{type(self).__name__} has no sentence")


_known: dict[str, type[Event]] = {}


@dataclass_transform(frozen_default=True)
def event(made: Class) -> Class:
    """An event: as `value`, and known by its name when it is read back."""
    found = value(made)
    _known[found.__name__] = found
    return found


def known_events() -> dict[str, type[Event]]:
    """Every event there is, by name."""
    return dict(_known)


@event
class Loading(Event):
    """The model is on its way. `done` and `total` in bytes; `total` 0 where it is not known."""

    what: str
    done: int = 0
    total: int = 0


@event
class Started(Event):
    """The model is loaded and the plan is made.

    `goal` says in words what will go ("8 of 30 blocks"), in about `planned` iterations:
    `planned_share` of all parameters, where `target` was asked for. `origin` says where the
    checkpoint came from; `resumed` how many iterations were already decided. `pinned` are settings of the
    recipe, by name, as they were chosen for this run; `settings` and `contents` see `engine.identity`.
    """

    model: str
    origin: str
    model_type: str
    blocks: int
    parameters: int
    method: str
    units: tuple[str, ...]
    target: float
    goal: str
    planned: int
    planned_share: float
    dtype: str
    device: str
    resumed: int = 0
    pinned: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    contents: tuple[tuple[str, str], ...] = ()


@event
class Progress(Event):
    """One step of what a stage does; `stage` says it in a word ("measuring", "scoring"). `elapsed` and
    `remaining` in seconds since the worker began; `remaining` is an estimate."""

    stage: str
    iteration: int
    done: int
    total: int
    elapsed: float
    remaining: float


@event
class Evaluated(Event):
    """The model as it stands, measured. Iteration 0 is the dense model.

    `accuracy` is the mean over tasks and `accuracy_se` its standard error; `perplexity` is per
    token of the dense model's tokenizer, over `windows` windows of `window_tokens` (stride: the same),
    with its standard error over windows. `texts` are further perplexities, of whole documents, and
    `writing` is how much what it writes repeats itself. `final` tells a measurement of the finished model,
    after the stages that follow the last removal, from the one before them, of the same iteration.
    """

    superseded_by_undo = True

    iteration: int
    blocks: int
    parameters: int
    perplexity: float
    perplexity_se: float
    windows: int
    window_tokens: int
    accuracy: float
    accuracy_se: float
    tasks: tuple[TaskResult, ...]
    seconds: float
    texts: tuple[TextResult, ...] = ()
    final: bool = False
    writing: tuple[WritingResult, ...] = ()

    @property
    def of_dense(self) -> bool:
        """Whether it is of the dense model. A finished one may have lost tokens alone, at iteration 0."""
        return not (self.iteration or self.final)


@event
class Skipped(Event):
    """A task that turned out not to be measurable with this model; the run goes on without it."""

    task: str
    reason: str


@event
class Warned(Event):
    """Something that makes the run's figures say less than they seem to. `message` is for people."""

    message: str


@event
class Scored(Event):
    """Scores of an iteration for one kind of units, one per block of the dense model: the score of
    a block or half, or the mean over a block's heads or channels. None where nothing is left, or
    nothing that the method lets go."""

    superseded_by_undo = True

    iteration: int
    kind: str
    scores: tuple[float | None, ...]
    seconds: float


@event
class Removed(Event):
    """Units were chosen and cut out.

    `relative` is the largest share that a score among them is of its kind's largest in the iteration, and
    `score` that score; both are 0 where the removal was `forced` by the recipe, and nothing was scored.
    `removed_description` says in words what was removed since the dense model.
    """

    superseded_by_undo = True

    iteration: int
    units: tuple[Units, ...]
    score: float
    relative: float
    parameters: int
    removed_description: str
    forced: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that something was removed from, ascending."""
        return tuple(sorted({u.block for u in self.units}))

    @property
    def count(self) -> int:
        return sum(len(u.units) for u in self.units)


@event
class RemovalUndone(Event):
    """The user took a removal back. `units` are those of removal `iteration`: they are pinned from here on,
    so that something else is removed. What was removed, scored or measured at that iteration or a later one
    no longer counts, see `effective_events`."""

    iteration: int
    units: tuple[Units, ...]


@event
class TargetExtended(Event):
    """The user set another target, `before` and `target` as shares of all parameters."""

    before: float
    target: float


@event
class Forked(Event):
    """The run began with the first `iterations` removals of `name`; `changed` settings are its own."""

    name: str
    iterations: int
    changed: tuple[str, ...]


@event
class SettingsChanged(Event):
    """The user `changed` settings of what follows the last removal. What came of the old ones is void."""

    changed: tuple[str, ...]


@event
class Exported(Event):
    """The checkpoint was written, loaded again by a fresh process, and agreed with the model in
    memory: `largest_difference` of the logits, `tokens` generated alike with and without cache.
    `uneven` says why it needs this project's loader; empty for an ordinary checkpoint."""

    superseded_by_undo, of_the_end = True, True

    path: str
    bytes: int
    iterations: int
    largest_difference: float
    tokens: int
    seconds: float
    uneven: str = ""

    @property
    def reached(self) -> int:
        return self.iterations


@event
class Finished(Event):
    """The run ended, where `early` before its target, and can be resumed. `peak_memory` in bytes."""

    iterations: int
    removed_description: str
    parameters: int
    seconds: float
    peak_memory: int
    early: bool = False


@event
class Stopped(Event):
    """The user stopped the run; what was decided is kept."""

    iterations: int


@event
class Paused(Event):
    """As Stopped, by someone who means to go on."""

    iterations: int


@event
class Failed(Event):
    """The run could not go on, in `stage` where it had come to one. `message` is for people."""

    message: str
    stage: str = ""


@event
class StageResult(Event):
    """What a stage after the last removal came to, with `iteration` removals made."""

    superseded_by_undo, of_the_end = True, True

    iteration: int


ENDINGS = (Finished, Stopped, Paused, Failed)
# What the user did to a run that its recipe alone does not tell.
OPERATIONS = (RemovalUndone, TargetExtended, Forked, SettingsChanged)


def is_superseded(event: Event, by: RemovalUndone | SettingsChanged) -> bool:
    """Whether `event`, recorded before what the user did, no longer counts."""
    if isinstance(by, SettingsChanged):
        return event.of_the_end or bool(getattr(event, "final", False))
    return event.superseded_by_undo and event.reached >= by.iteration


def effective_events(events: Iterable[Event]) -> list[Event]:
    """The events that still count, in order: none that what the user did has superseded."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, RemovalUndone | SettingsChanged):
            found = [e for e in found if not is_superseded(e, event)]
        found.append(event)
    return found


def removals(events: Iterable[Event]) -> list[Removed]:
    """The removals that count, in order."""
    return [e for e in effective_events(events) if isinstance(e, Removed)]


def to_line(event: Event, at: float) -> str:
    """`event` as one line of JSON (no line break); `at` is the time in seconds since 1970."""
    fields = dataclasses.asdict(event)  # type: ignore[call-overload]
    return json.dumps({"event": type(event).__name__, "at": round(at, 3), **fields}, allow_nan=False)


def from_line(line: str) -> tuple[Event, float]:
    """Read `to_line` back: the event and its time. Lines of earlier versions are read too.

    Raises:
        UserError: the line is not an event this version knows.
    """
    try:
        values = json.loads(line)
        at = values.pop("at")
        kind, values = legacy.upgraded(values.pop("event"), values)
        return _union(tuple(_known.values())).validate_python({"event": kind, **values}), float(at)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        raise UserError(f"This run was written by another version: cannot read {line[:80]!r}.") from None


def schema() -> dict:
    """The JSON schema of a line of `events.jsonl`, without its time."""
    return _union(tuple(_known.values())).json_schema()


@cache
def _union(kinds: tuple[type[Event], ...]) -> TypeAdapter:
    """The discriminated union of `kinds`, told apart by the name in "event"."""
    tagged = tuple(Annotated[_without_name(kind), Tag(kind.__name__)] for kind in kinds)
    union: Any = Annotated[Union[tagged], Discriminator(_name)]  # noqa: UP007
    return TypeAdapter(union)


def _name(values: Any) -> str | None:
    return values.get("event") if isinstance(values, dict) else type(values).__name__


def _without_name(kind: type[Event]) -> Any:
    """`kind`, read from its fields and its name."""

    def drop(values: Any) -> Any:
        return {k: v for k, v in values.items() if k != "event"} if isinstance(values, dict) else values

    return Annotated[kind, pydantic.BeforeValidator(drop)]
