"""Both models of a run at work: answering, expecting, and being timed. No gradio."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..core.device import user_message
from ..core.errors import UserError
from ..inspection import chat, latency
from ..inspection.divergence import divergence
from ..runs import run_directory
from ..runs.queue import RunQueue
from .html import problem
from .inspection import disagreements, speed

ROUNDS = 5
READ, WRITE = 128, 32


def _models(studio: RunQueue, run_id: str) -> tuple[str, str, float]:
    """The references of a run's two models, and when the pruned one was written."""
    folder = studio.folder(run_id)
    if folder is None or not (folder / run_directory.MODEL).is_dir():
        raise UserError("There is no pruned model yet: finish a run, or export it as it is.")
    pruned = folder / run_directory.MODEL
    return run_directory.recipe_of(folder).model, str(pruned), pruned.stat().st_mtime


def _said(error: Exception) -> str:
    """What to tell of an error; a fault of this program is raised."""
    if (message := user_message(error)) is None:
        raise error
    return message


def answers(studio: RunQueue, run_id: str, prompt: str) -> Iterator[tuple[str, str]]:
    """HTML of both answers as they grow: (dense, pruned)."""
    try:
        found = _models(studio, run_id)
        yield _answer("dense model", "", "reading both models …"), _answer("pruned model", "", "")
        for dense, pruned in chat.answers(*found, prompt):
            yield (
                _answer("dense model", dense.text, dense.speed),
                _answer("pruned model", pruned.text, pruned.speed),
            )
    except Exception as error:
        yield problem(_said(error)), ""


def no_answers() -> tuple[str, str]:
    return _answer("dense model", "", ""), _answer("pruned model", "", "")


def expectations(studio: RunQueue, run_id: str, text: str) -> Iterator[str]:
    """HTML of where the two models expect different things of a text."""
    try:
        found = _models(studio, run_id)
        yield "<p class='line'>Reading both models …</p>"
        dense, pruned = chat.both(*found)
        yield disagreements(divergence(dense.model, pruned.model, dense.tokenizer, text, pruned.tokenizer))
    except Exception as error:
        yield problem(_said(error))


def speeds(studio: RunQueue, run_id: str) -> Iterator[str]:
    """HTML of what both models take, measured now."""
    try:
        dense, pruned = chat.both(*_models(studio, run_id))
        work = latency.compare_latency(dense, pruned, READ, WRITE, ROUNDS)
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                yield speed(end.value)
                return
            yield f"<p class='line'>Taking turns: round {step.done} of {step.total} …</p>"
    except Exception as error:
        yield problem(_said(error))


def _answer(who: str, text: str, note: str) -> str:
    return (
        f"<div class='answer'><h3>{who} <small>{escape(note)}</small></h3>"
        f"<p>{escape(text) or '<span class=empty>What it answers will stand here.</span>'}</p></div>"
    )
