"""A run at a glance: the status line, the tiles, the log."""

from __future__ import annotations

import time
from html import escape

from ..core import events as ev
from ..reporting.messages import format_duration
from ..reporting.run_summary import RunSummary
from .html import empty, millions
from .retention_text import kept_words

# state -> (tone of the dot, words)
STATES = {
    "none": ("idle", "Ready"),
    "waiting": ("idle", "Waiting in line"),
    "starting": ("live", "Starting the worker"),
    "running": ("live", "Running"),
    "stopping": ("live", "Stopping after this batch"),
    "finished": ("good", "Finished"),
    "paused": ("idle", "Paused"),
    "stopped": ("idle", "Stopped"),
    "failed": ("bad", "Failed"),
    "interrupted": ("bad", "The worker ended unexpectedly"),
}


def status(story: RunSummary, state: str, reason: str | None = None, place: int | None = None) -> str:
    """One line: what is happening, how far, how long; and a bar.

    Args:
        reason: why the worker ended, where it could say.
        place: its place in line, where it waits.
    """
    tone, words = STATES[state]
    detail, progress = "", story.progress
    # Of what does not go on, what is decided; of what does, the share of its time.
    share = len(story.removals) / story.planned if story.planned else 0.0
    if state == "none":
        detail = "The form is filled in: press Prune, and everything that happens is drawn here."
    elif state == "waiting":
        detail = f"Number {place} in line; it starts by itself when the machine is free." if place else ""
    elif state == "interrupted":
        detail = reason or "It was killed, or the machine ran out of memory."
        if "nothing decided is lost" not in detail:
            detail += " Nothing decided is lost: press Resume."
    elif state == "failed" and isinstance(story.ending, ev.Failed):
        detail = story.ending.message
    elif state in ("stopped", "paused"):
        detail = f"{len(story.removals)} of {story.planned} iterations are decided and kept. Resume goes on."
    elif state == "finished" and isinstance(story.ending, ev.Finished):
        share = 1.0
        detail = (
            f"{story.ending.removed_description} removed in {format_duration(story.ending.seconds)}; the "
            "export was loaded again and verified."
        )
    elif isinstance(progress, ev.Loading):
        words, share = progress.what[0].upper() + progress.what[1:], 0.0
        if progress.total:
            share = progress.done / progress.total
            detail = f"{progress.done / 1e6:.0f} of {progress.total / 1e6:.0f} MB"
    elif isinstance(progress, ev.Progress):
        share = _share_done(progress)
        if state == "running":
            words = _where(story, progress)
        detail = (
            f"about {format_duration(progress.remaining)} left · {format_duration(progress.elapsed)} elapsed"
        )
        if (pace := seconds_per_iteration(story)) is not None:
            detail += f" · {pace:.0f} s per iteration"
    return (
        f"<div class='status {tone}' data-state='{state}'><span class='dot'></span>"
        f"<b>{escape(words)}</b><span class='detail' title='{escape(detail)}'>{escape(detail)}</span>"
        f"<progress max='1' value='{share:.3f}' aria-label='share of the run that is done'></progress></div>"
    )


def seconds_per_iteration(story: RunSummary) -> float | None:
    """Mean seconds an iteration took: its scoring and the measurement after it."""
    spent = [
        max(s.seconds for (i, _), s in story.scored.items() if i == iteration) + measured.seconds
        for iteration, measured in story.evaluated.items()
        if any(i == iteration for i, _ in story.scored)
    ]
    return sum(spent) / len(spent) if spent else None


def tiles(story: RunSummary) -> str:
    """Four numbers, dense and now, with what they mean."""
    dense, now = story.dense, story.latest
    if story.started is None or dense is None or now is None:
        names = ("parameters", "accuracy", "perplexity", "weights in memory")
        return _tiles([(name, "–", "") for name in names])
    kept = now.parameters / dense.parameters
    width = {"bfloat16": 2, "float16": 2}.get(story.started.dtype, 4)
    size = [f"{p.parameters * width / 1e6:.0f}" for p in (dense, now)]
    return _tiles(
        [
            (
                "parameters",
                _change(millions(dense.parameters), millions(now.parameters)),
                f"{1 - kept:.1%} fewer",
            ),
            ("accuracy", _change(f"{dense.accuracy:.1%}", f"{now.accuracy:.1%}"), kept_words(dense, now)),
            (
                "perplexity",
                _change(f"{dense.perplexity:.1f}", f"{now.perplexity:.1f}"),
                f"± {now.perplexity_se:.1f}, {now.windows} windows of {now.window_tokens} tokens",
            ),
            (
                "weights in memory",
                f"{_change(*size)} MB",
                f"in {story.started.dtype}",
            ),
        ]
    )


def log(story: RunSummary) -> str:
    """What happened, as sentences, newest first."""
    if not story.sentences:
        return empty("What happens will be told here, in sentences.")
    items = "".join(
        f"<li><time>{time.strftime('%H:%M:%S', time.localtime(at))}</time> <span>{escape(text)}</span></li>"
        for at, text in reversed(story.sentences)
    )
    return f"<ol class='log' tabindex='0' aria-label='What happened, newest first'>{items}</ol>"


def said(story: RunSummary) -> str:
    """The newest sentence, to be read aloud."""
    return escape(story.sentences[-1][1]) if story.sentences else ""


def _tiles(body: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<div class='tile'><span>{name}</span><b>{value}</b><small>{escape(note)}&nbsp;</small></div>"
        for name, value, note in body
    )
    return f"<div class='tiles'>{cells}</div>"


def _change(before: str, now: str) -> str:
    return now if before == now else f"<em>{before} →</em> {now}"


def _where(story: RunSummary, progress: ev.Progress) -> str:
    if progress.stage == "exporting":
        return "Exporting and verifying"
    done = f"{progress.done / progress.total:.0%}"
    if progress.iteration == 0:
        return f"Measuring the dense model · {done}"
    count = done if progress.stage == "measuring" else f"{progress.done}/{progress.total}"
    return f"Iteration {progress.iteration} of {story.planned} · {progress.stage} {count}"


def _share_done(progress: ev.Progress) -> float:
    whole = progress.elapsed + progress.remaining
    return progress.elapsed / whole if whole else 0.0
