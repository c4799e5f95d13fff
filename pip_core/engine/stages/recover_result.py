"""What recovery came to, and whether a later one goes on from there."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.curve import CurvePoint
from ...core.events import (
    Event,
    Exported,
    RemovalUndone,
    Removed,
    SettingsChanged,
    StageResult,
    effective_events,
    event,
)
from ...recovery.trainer import Outcome
from ...recovery.watch import Look

ENDED_THERE = "It was ended there to be exported."
# Settings that may change between a recovery and one that goes on from it.
LONGER = frozenset(("recover", "recover_tokens", "recover_minutes"))


@event
class Recovered(StageResult):
    """What was left after `iteration` removals learnt from the dense model on `tokens` of `text`.

    `before` and `after` are the mean divergences of its predictions from the dense model's on held-out text,
    in nats per token; `answers_before` and `answers_after` the mean log-probabilities of the right answers to
    `questions` that it is not measured on. `kept` tells after how many tokens it was best: these weights were
    kept, and 0 means that it is as it was. `ended` says why learning ended early; empty where it did not.
    `earlier` are the tokens that it had learnt from in recoveries that this one went on from.
    """

    tokens: int
    kept: int
    text: str
    before: float
    after: float
    questions: int
    answers_before: float
    answers_after: float
    seconds: float
    ended: str = ""
    earlier: int = 0

    def sentence(self) -> str:
        return f"{self._words()} It took {self.seconds:.0f} s."

    def _words(self) -> str:
        early = f" {self.ended}" if self.ended else ""
        if not self.tokens:
            was = " after the earlier recovery" if self.earlier else ""
            return f"Nothing was learnt: what was left is as it was{was}.{early}"
        if not self.kept and self.earlier:
            return (
                f"Further recovery helped nothing: what was left is as it was after the earlier one.{early}"
            )
        if not self.kept:
            return f"Recovery helped nothing: what was left is as it was.{early}"
        best = f" It was best after {self.kept:,}, and that was kept." if self.kept < self.tokens else ""
        further = f"{self.earlier:,} and then " if self.earlier else ""
        asked = (
            f", and the mean log-probability of right answers from {self.answers_before:.3f} to "
            f"{self.answers_after:.3f} on {self.questions} questions"
            if self.questions
            else ""
        )
        return (
            f"What was left learnt from the whole model on {further}{self.tokens:,} tokens of {self.text}: "
            f"the divergence of its predictions on held-out text went from {self.before:.3f} to "
            f"{self.after:.3f} nats per token{asked}.{best}{early}"
        )


@event
class Paced(StageResult):
    """How many `tokens` recovery learns from in the `minutes` that it is given, with those that it goes on
    from, by the speeds that were measured at its beginning: seconds for each token that is learnt from,
    looked at by both models, and written by the dense model (0 where it writes nothing)."""

    minutes: int
    tokens: int
    learning: float
    looking: float
    writing: float

    def sentence(self) -> str:
        written = f" and {1 / self.writing:.0f} written" if self.writing else ""
        return (
            f"{self.minutes:,} minutes of recovery are {self.tokens:,} tokens here: in a timed step "
            f"{1 / self.learning:.0f} tokens a second were learnt from{written}. A resumed run keeps to it."
        )


def tokens_in_time(history: Sequence[Event]) -> int:
    """The tokens that a run found its minutes to be; 0 where it has not.

    Args:
        history: all events of the run, oldest first.
    """
    return next((one.tokens for one in reversed(effective_events(history)) if isinstance(one, Paced)), 0)


def learnt_before(history: Sequence[Event]) -> int:
    """Tokens that the exported model of a run had learnt from when somebody asked for a longer recovery of
    it; 0 where it had not, where something was removed or undone since, or where it is to learn otherwise.

    Args:
        history: all events of the run, oldest first.
    """
    return _earlier(history)[0]


def begins_anew(history: Sequence[Event], tokens: int) -> str:
    """Why a recovery does not go on from the one before it, as a sentence; empty where there is none.

    Args:
        history: all events of the run, oldest first.
        tokens: that are to be learnt from, in all.
    """
    learnt, others = _earlier(history)
    if not (learnt or others):
        return ""
    why = f"{tokens:,} tokens in all are not clearly more than the {learnt:,} of that one"
    if others:
        why = f"it is to learn otherwise ({', '.join(others)})"
    return (
        f"Recovery begins anew, with what was left before the earlier one: {why}. Only a longer one goes on "
        "from there."
    )


def _earlier(history: Sequence[Event]) -> tuple[int, list[str]]:
    """As `learnt_before`, and the settings that were changed so that it is not gone on from."""
    learnt, others = 0, frozenset[str]()
    exported = asked = False
    for one in history:
        if isinstance(one, Recovered):
            learnt, others = one.earlier + one.tokens if one.kept or one.earlier else 0, frozenset()
            exported = asked = False
        elif isinstance(one, Exported):
            # A second export, or one before what was asked for is done, is of a model without recovery.
            learnt = 0 if exported or asked or one.uneven else learnt
            exported = True
        elif isinstance(one, SettingsChanged) and set(one.changed) <= LONGER:
            asked = True
        elif isinstance(one, SettingsChanged):
            others |= set(one.changed) - LONGER if learnt or others else frozenset()
            learnt = 0
        elif isinstance(one, Removed | RemovalUndone):
            learnt, others = 0, frozenset()
    return (learnt if exported and asked else 0), sorted(others)


def point_of(iteration: int, look: Look, before: int, speed: float) -> CurvePoint:
    """A look at the state as a point of the chart.

    Args:
        before: tokens of the recovery that this one goes on from.
        speed: tokens per second; 0 where it is not known.
    """
    values = [("divergence, held-out text", look.heldout)]
    if look.loss is not None:
        values.append(("divergence, text learnt from", look.loss))
    if look.answers:
        values.append(("right answers, -log p", -look.right))
    note = f"{speed:.0f} tokens/s" if speed else ""
    names = ("Recovery", "tokens learnt from", "nats")
    return CurvePoint(iteration, *names, float(before + look.tokens), tuple(values), note)


def why_ended(outcome: Outcome, cut_short: bool) -> str:
    """Why learning ended early, as a sentence; empty where it did not."""
    if outcome.fault:
        return outcome.fault
    if cut_short:
        return ENDED_THERE
    return "It ended because it did not help any more." if outcome.settled else ""
