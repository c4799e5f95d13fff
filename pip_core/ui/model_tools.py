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
from . import chatting
from .html import problem
from .inspection import disagreements, speed
from .shown import recipe_of

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

    def chat(self, run_id: str, prompt: str, tokens: str) -> Iterator[tuple[str, str, str]]:
        """Both answers as they grow, and what there is to say of them: (dense, pruned, note).

        Args:
            prompt: where it is empty, the first that suits the model.
            tokens: the most that each writes, one of `chatting.LENGTHS`.
        """
        try:
            models = self._models(run_id)
            if tokens not in chatting.LENGTHS:
                raise UserError(f"Longest answer: choose one of {', '.join(chatting.LENGTHS)}.")
            prompt = prompt.strip() or prompts_for(self.queue, run_id)[0]
            for step in self.processes.ask("chat", *models, prompt=prompt, tokens=int(tokens)):
                if isinstance(step, Status):
                    yield *chatting.nothing_said(), f"<p class='line'>{escape(step.text)}</p>"
                else:
                    yield chatting.drawn(prompt, *step)
        except UserError as error:
            yield *chatting.nothing_said(), problem(error)

    def predictions(self, run_id: str, text: str) -> Iterator[str]:
        """Where the two models' predictions of a text differ."""
        try:
            yield _line("Asking both models …")
            for step in self.processes.ask("divergence", *self._models(run_id), text=text):
                yield _line(step.text) if isinstance(step, Status) else disagreements(step)
        except UserError as error:
            yield problem(error)

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
            yield problem(error)


def _line(text: str) -> str:
    return f"<p class='line'>{escape(text)}</p>"


def prompts_for(queue: RunQueue, run_id: str) -> tuple[str, ...]:
    """Prompts that suit a run's exported model, first what it was asked on the way; none without one."""
    folder, recipe = queue.folder(run_id), recipe_of(queue, run_id)
    if folder is None or recipe is None or not (folder / MODEL).is_dir():
        return ()
    asked = [sample.prompt for sample in queue.summary(run_id)[0].samples.values()]
    return tuple(dict.fromkeys((*asked[-1:], *chatting.suited(recipe.model, folder / MODEL))))
