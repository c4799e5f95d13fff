"""Both models of a run in use: chat, predictions, speed. Other processes hold them. No gradio."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..core.errors import UserError
from ..inspection.latency import Step
from ..inspection.processes import ModelProcesses
from ..inspection.server import Status
from ..runs.files import MODEL
from ..runs.queue import RunQueue
from .html import problem
from .inspection import disagreements, speed

ROUNDS = 5
PROMPT_TOKENS, NEW_TOKENS = 128, 32


class ModelTools:
    """Questions about the two models of a run, answered as HTML that grows."""

    def __init__(self, queue: RunQueue, processes: ModelProcesses) -> None:
        self.queue, self.processes = queue, processes

    def _models(self, run_id: str) -> tuple[str, str, float]:
        """References of a run's dense and pruned model, and when the pruned one was written.

        Raises:
            UserError: there is no pruned model yet, or the run cannot be read.
        """
        folder = self.queue.folder(run_id)
        if folder is None or not (folder / MODEL).is_dir():
            raise UserError("There is no pruned model yet. Finish a run first, or export it as it is now.")
        return self.queue.recipe(run_id).model, str(folder / MODEL), (folder / MODEL).stat().st_mtime

    def chat(self, run_id: str, prompt: str) -> Iterator[tuple[str, str]]:
        """Both answers as they grow: (dense, pruned)."""
        try:
            for step in self.processes.ask("chat", *self._models(run_id), prompt=prompt):
                if isinstance(step, Status):
                    yield _answer("dense model", "", step.text), _answer("pruned model", "", "")
                else:
                    dense, pruned = step
                    yield (
                        _answer("dense model", dense.text, dense.speed),
                        _answer("pruned model", pruned.text, pruned.speed),
                    )
        except UserError as error:
            yield problem(str(error)), ""

    def predictions(self, run_id: str, text: str) -> Iterator[str]:
        """Where the two models' predictions of a text differ."""
        try:
            yield _line("Asking both models …")
            for step in self.processes.ask("divergence", *self._models(run_id), text=text):
                yield _line(step.text) if isinstance(step, Status) else disagreements(step)
        except UserError as error:
            yield problem(str(error))

    def speeds(self, run_id: str) -> Iterator[str]:
        """Speed and memory of both models, measured now."""
        settings = {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS, "rounds": ROUNDS}
        try:
            yield _line("Starting to measure …")
            for step in self.processes.ask("latency", *self._models(run_id), **settings):
                if isinstance(step, Status):
                    yield _line(step.text)
                elif isinstance(step, Step):
                    yield _line(f"Measuring both in turn: round {step.done} of {step.total} …")
                else:
                    yield speed(step)
        except UserError as error:
            yield problem(str(error))


def no_answers() -> dict[str, str]:
    """Component -> what is shown in the place of an answer before the first question."""
    return {f"{who}-answer": _answer(f"{who} model", "", "") for who in ("dense", "pruned")}


def _line(text: str) -> str:
    return f"<p class='line'>{escape(text)}</p>"


def _answer(who: str, text: str, note: str) -> str:
    return (
        f"<div class='answer'><h3>{who} <small>{escape(note)}</small></h3>"
        f"<p>{escape(text) or '<span class=empty>The answer appears here.</span>'}</p></div>"
    )
