"""What a run says while it happens: small frozen values, each one line of `events.jsonl`.

Blocks are always named by their number in the dense model, from 0.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import UserError
from .units import Units


@dataclass(frozen=True)
class Loading:
    """The model is on its way. `done` and `total` in bytes; `total` 0 where it is not known."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Started:
    """The model is loaded and the plan is made.

    `goal` says in words what will go ("8 of 30 blocks"), in about `planned` iterations:
    `planned_share` of all parameters, where `target` was asked for. `origin` says where the
    checkpoint came from; `resumed` how many iterations were already decided.
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


@dataclass(frozen=True)
class Progress:
    """One step of a stage ("measuring", "removing again", "scoring", "refitting", "exporting"). `elapsed` and
    `remaining` in seconds since the worker began; `remaining` is an estimate."""

    stage: str
    iteration: int
    done: int
    total: int
    elapsed: float
    remaining: float


@dataclass(frozen=True)
class TaskResult:
    """Accuracy on one task. `se` is its standard error; `chance` the accuracy of guessing;
    `hits` one character per item, "1" where the answer was right.

    `accuracy` and `hits` are those of `metric`, the one commonly reported: "acc" (the likeliest
    choice, or the greedy last word) or "acc_norm" (the likeliest choice per character); both stand in
    the fields of that name (`acc_norm` None for last words). `digest` tells the items from others;
    `cut` is how many lost their beginning to the model's context, `duplicates` how many are repeated.
    """

    name: str
    accuracy: float
    se: float
    items: int
    chance: float
    hits: str
    metric: str = "acc_norm"
    acc: float | None = None
    acc_se: float | None = None
    acc_norm: float | None = None
    acc_norm_se: float | None = None
    digest: str = ""
    cut: int = 0
    duplicates: int = 0


@dataclass(frozen=True)
class TextResult:
    """Perplexity of documents, each token predicted once in windows of `window` tokens (stride: the
    same). Per word and per byte, so that models with different tokenizers can be compared."""

    name: str
    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    documents: int
    words: int
    tokens: int
    window: int


@dataclass(frozen=True)
class Evaluated:
    """The model as it stands, measured. Iteration 0 is the dense model.

    `accuracy` is the mean over tasks and `accuracy_se` its standard error; `perplexity` is per
    token of the dense model's tokenizer, over `windows` windows of `window_tokens` (stride: the same),
    with its standard error over windows. `texts` are further perplexities, of whole documents. `final`
    tells a measurement after what is done at the end (vocabulary, refit) from the one before, of the same
    iteration.
    """

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


@dataclass(frozen=True)
class Skipped:
    """A task that turned out not to be measurable with this model; the run goes on without it."""

    task: str
    reason: str


@dataclass(frozen=True)
class Warned:
    """Something that makes the run's figures say less than they seem to. `message` is for people."""

    message: str


@dataclass(frozen=True)
class Scored:
    """Scores of an iteration for one kind of units, one per block of the dense model: the score of
    a block or half, or the mean over a block's heads or channels. None where nothing is left, or
    nothing that the method lets go."""

    iteration: int
    kind: str
    scores: tuple[float | None, ...]
    seconds: float


@dataclass(frozen=True)
class Removed:
    """Units were chosen and cut out.

    `relative` is the largest share that a score among them is of its kind's largest in the iteration, and
    `score` that score; both are 0 where the user `asked` for it, and nothing was scored. `lost` says in
    words what is gone since the dense model.
    """

    iteration: int
    units: tuple[Units, ...]
    score: float
    relative: float
    parameters: int
    lost: str
    asked: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that lost something, ascending."""
        return tuple(sorted({u.block for u in self.units}))

    @property
    def count(self) -> int:
        return sum(len(u.units) for u in self.units)


@dataclass(frozen=True)
class Refitted:
    """What was left after `iteration` was refitted on `tokens` of the calibration text: `projections` of
    its `halves` (attentions and MLPs) could be solved anew, and `left` says in words why others could not;
    `moved` of them were, the others being best as they are (None: in a run of an older version, all).

    `before` and `after` are how far its last hidden states are from the dense model's on the first
    batch of those tokens, as a share of their length.
    """

    iteration: int
    tokens: int
    projections: int
    halves: int
    left: str
    before: float
    after: float
    seconds: float
    moved: int | None = None


@dataclass(frozen=True)
class VocabularyPruned:
    """After `iteration` the tokens that mattered least went, `tokens` of the dense model's `rows`.

    `first` are some that went first, `last` those that went last, `next` those that would have gone next;
    as the tokenizer writes them. `lost` says in words what is gone since the dense model."""

    iteration: int
    tokens: int
    rows: int
    first: tuple[str, ...]
    last: tuple[str, ...]
    next: tuple[str, ...]
    parameters: int
    lost: str
    seconds: float


@dataclass(frozen=True)
class RemovalUndone:
    """The user took a removal back. `units` are those of removal `iteration`: they stay from here on,
    so that something else goes. What was removed, scored or measured at that iteration or a later one
    no longer counts, see `effective_events`."""

    iteration: int
    units: tuple[Units, ...]


@dataclass(frozen=True)
class TargetExtended:
    """The user set another target, `before` and `target` as shares of all parameters."""

    before: float
    target: float


@dataclass(frozen=True)
class Forked:
    """The run began with the first `iterations` removals of another, called `name`; the settings in
    `changed` (names of recipe fields) are its own."""

    name: str
    iterations: int
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """The checkpoint was written, loaded again by a fresh process, and agreed with the model in
    memory: `largest_difference` of the logits, `tokens` generated alike with and without cache.
    `uneven` says why it needs this project's loader; empty for an ordinary checkpoint."""

    path: str
    bytes: int
    iterations: int
    largest_difference: float
    tokens: int
    seconds: float
    uneven: str = ""


@dataclass(frozen=True)
class Finished:
    """The run ended as it should, `lost` gone. `peak_memory` in bytes, of the whole process."""

    iterations: int
    lost: str
    parameters: int
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class Stopped:
    """The user stopped the run; what was decided is kept."""

    iterations: int


@dataclass(frozen=True)
class Paused:
    """As Stopped, by someone who means to go on."""

    iterations: int


@dataclass(frozen=True)
class Failed:
    """The run could not go on. `message` is for people."""

    message: str


Event = (
    Loading
    | Started
    | Progress
    | Skipped
    | Warned
    | Evaluated
    | Scored
    | Removed
    | Refitted
    | VocabularyPruned
    | RemovalUndone
    | TargetExtended
    | Forked
    | Exported
    | Finished
    | Stopped
    | Paused
    | Failed
)
_TYPES = {t.__name__: t for t in typing.get_args(Event)}
ENDINGS = (Finished, Stopped, Paused, Failed)
# What the user did to a run that its recipe alone does not tell.
STEERING = (RemovalUndone, TargetExtended, Forked)


def is_superseded(event: Event, undone: RemovalUndone) -> bool:
    """Whether `event`, told before `undone`, no longer counts."""
    if isinstance(event, Exported):
        return event.iterations >= undone.iteration
    return (
        isinstance(event, Removed | Scored | Evaluated | Refitted | VocabularyPruned)
        and event.iteration >= undone.iteration
    )


def effective_events(events: Iterable[Event]) -> list[Event]:
    """The events that still count, in order: none that was taken back."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, RemovalUndone):
            found = [e for e in found if not is_superseded(e, event)]
        found.append(event)
    return found


def removals(events: Iterable[Event]) -> list[Removed]:
    """The removals that count, in order."""
    return [e for e in effective_events(events) if isinstance(e, Removed)]


def to_line(event: Event, at: float) -> str:
    """`event` as one line of JSON (no line break); `at` is the time in seconds since 1970."""
    return json.dumps({"event": type(event).__name__, "at": round(at, 3), **dataclasses.asdict(event)})


def from_line(line: str) -> tuple[Event, float]:
    """Read `to_line` back: the event and its time.

    Raises:
        UserError: the line is not an event this version knows.
    """
    try:
        values = json.loads(line)
        kind = _TYPES[values.pop("event")]
        at = values.pop("at")
        if kind is Evaluated:
            values["tasks"] = [TaskResult(**t) for t in values["tasks"]]
            values["texts"] = [TextResult(**t) for t in values.get("texts", ())]
        if kind in (Removed, RemovalUndone):
            values["units"] = [Units(u["kind"], u["block"], tuple(u["units"])) for u in values["units"]]
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return kind(**values), at
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"This run was written by another version of PIP Studio: cannot read {line[:80]!r}."
        ) from None
