"""The state of a run in short: the status line, the tiles, the log."""

from __future__ import annotations

import time
from html import escape

from ..core import events as ev
from ..core.figures import percent
from ..core.public_text import public
from ..reporting.messages import format_duration
from ..reporting.run_summary import RunSummary
from . import verdict
from .difference_text import kept_words
from .html import empty, millions

# state -> (tone of the dot, words)
STATES = {
    "none": ("idle", "Ready"),
    "waiting": ("idle", "Queued"),
    "starting": ("live", "Starting …"),
    "running": ("live", "Running"),
    "stopping": ("live", "Stopping after this step"),
    "finished": ("good", "Finished"),
    "paused": ("idle", "Paused"),
    "stopped": ("idle", "Stopped"),
    "failed": ("bad", "Failed"),
    "interrupted": ("bad", "Ended unexpectedly"),
    "damaged": ("bad", "Damaged"),
    "newer": ("bad", "Made by a newer version"),
}


# Of the dot, by the verdict on what came out.
TONES = {"good": "good", "worse": "warn", "bad": "bad"}
# The bar of a run that has not finished is never full.
MOST_HALTED = 0.95


def status(summary: RunSummary, state: str, reason: str | None = None, place: int | None = None) -> str:
    """One line and a bar: what is happening, how far it is, and how long it takes.

    Args:
        reason: why the worker ended, where that is known.
        place: the run's place in the queue, where it waits.
    """
    tone, words = STATES[state]
    detail, progress = "", summary.progress
    # Of a run that is not running the share of its removals; of a running one the share of its time.
    # Stages follow the last of them, so a bar that is full says that all is done.
    share = min(len(summary.removals) / summary.planned, MOST_HALTED) if summary.planned else 0.0
    if state == "none":
        detail = "Press Prune to start. You can watch every step here."
    elif state == "waiting" and place:
        detail = "You are next." if place == 1 else f"Number {place} in the queue."
        detail += " The run starts by itself when the machine is free."
    elif state == "interrupted":
        killed = "It was killed, or memory ran out. Press Resume to continue; no removal is lost."
        detail = public(reason or killed)
    elif state in ("failed", "damaged", "newer") and isinstance(summary.ending, ev.Failed):
        detail = public(summary.ending.message)
    elif state in ("stopped", "paused"):
        detail = _halted(words, len(summary.removals), summary.planned)
    elif state == "finished" and isinstance(summary.ending, ev.Finished):
        tone = TONES[verdict.tone(summary)]
        detail = f"Removed {summary.ending.removed_description} in {format_duration(summary.worked)}. "
        if summary.early:
            words = f"Exported after {len(summary.removals)} of {summary.planned} iterations"
            detail += "Resume to continue to the target."
        else:
            share = 1.0
            detail += "The checkpoint was loaded again and verified."
    elif isinstance(progress, ev.Loading):
        words, share = progress.what[0].upper() + progress.what[1:], 0.0
        if progress.total:
            share = progress.done / progress.total
            detail = f"{progress.done / 1e6:.0f} of {progress.total / 1e6:.0f} MB"
    elif isinstance(progress, ev.Progress):
        # Of all workers: one that resumes a run goes on where the last one ended.
        share = summary.worked / max(summary.worked + progress.remaining, 1e-9)
        if state == "running":
            words = _activity(summary, progress)
        detail = (
            f"about {format_duration(progress.remaining)} left · {format_duration(summary.worked)} elapsed"
        )
        if (pace := seconds_per_iteration(summary)) is not None:
            detail += f" · {pace:.0f} s per iteration"
    return (
        f"<div class='status {tone}' data-state='{state}'><span class='dot'></span>"
        f"<b>{escape(words)}</b><span class='detail' title='{escape(detail)}'>{escape(detail)}</span>"
        f"<progress max='1' value='{share:.3f}' aria-label='share of the run that is done'></progress></div>"
    )


def _halted(words: str, done: int, planned: int) -> str:
    if not done:
        return f"{words} before the first removal. Resume to continue."
    return f"{done} of {planned} iterations are done and kept. Resume to continue."


def seconds_per_iteration(summary: RunSummary) -> float | None:
    """Mean seconds per iteration: its scoring and the measurement after it. None before the first."""
    spent = [
        max(s.seconds for (i, _), s in summary.scored.items() if i == iteration) + measured.seconds
        for iteration, measured in summary.evaluated.items()
        if any(i == iteration for i, _ in summary.scored)
    ]
    return sum(spent) / len(spent) if spent else None


def tiles(summary: RunSummary) -> str:
    """Four figures, of the dense model and now, each with a note."""
    dense, now = summary.dense, summary.latest
    if summary.started is None or dense is None or now is None:
        names = ("parameters", "accuracy", "perplexity", "weights in memory")
        return _tiles([(name, "–", "") for name in names])
    left = summary.parameters or now.parameters
    kept = left / dense.parameters
    width = {"bfloat16": 2, "float16": 2}.get(summary.started.dtype, 4)
    size = [f"{count * width / 1e6:.0f}" for count in (dense.parameters, left)]
    return _tiles(
        [
            (
                "parameters",
                _change(millions(dense.parameters), millions(left)),
                f"{percent(1 - kept)} fewer",
            ),
            ("accuracy", _change(percent(dense.accuracy), percent(now.accuracy)), kept_words(dense, now)),
            (
                "perplexity",
                _change(f"{dense.perplexity:,.1f}", f"{now.perplexity:,.1f}"),
                f"± {now.perplexity_se:,.1f}, {now.windows} windows of {now.window_tokens} tokens",
            ),
            (
                "weights in memory",
                f"{_change(*size)} MB",
                f"in {summary.started.dtype}",
            ),
        ]
    )


def log(summary: RunSummary) -> str:
    """The log: a sentence for every event, newest first."""
    if not summary.sentences:
        return empty("Every step appears here as a sentence.")
    items = "".join(
        f"<li><time>{time.strftime('%H:%M:%S', time.localtime(at))}</time> <span>{escape(text)}</span></li>"
        for at, text in ((at, public(text)) for at, text in reversed(summary.sentences))
    )
    return f"<ol class='log' tabindex='0' aria-label='Log, newest first'>{items}</ol>"


def latest_message(summary: RunSummary) -> str:
    """The newest sentence, for screen readers."""
    return escape(public(summary.sentences[-1][1])) if summary.sentences else ""


def _tiles(body: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<div class='tile'><span>{name}</span><b>{value}</b><small>{escape(note)}&nbsp;</small></div>"
        for name, value, note in body
    )
    return f"<div class='tiles'>{cells}</div>"


def _change(before: str, now: str) -> str:
    return now if before == now else f"<em>{before} →</em> {now}"


def _activity(summary: RunSummary, progress: ev.Progress) -> str:
    """What a worker is doing, and how far it is with that."""
    stage = progress.stage[:1].upper() + progress.stage[1:]
    share = percent(progress.done / progress.total, 0) if progress.total else ""
    if progress.iteration == 0:
        return f"{stage} the whole model · {share}"
    count = (
        "" if progress.total < 2 else share if progress.total > 999 else f"{progress.done}/{progress.total}"
    )
    if progress.iteration == len(summary.removals) == summary.planned:
        return f"{stage} the finished model" + (f" · {count}" if count else "")
    return f"Iteration {progress.iteration} of {summary.planned} · {progress.stage} {count}"
