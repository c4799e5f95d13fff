"""Measure: perplexity on held-out text and accuracy on tasks, of the dense and of the finished model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import field_validator

from ...checkpoints.load import Loaded
from ...core.accelerator import at_once, device
from ...core.events import Evaluated, Event
from ...core.recipe import DEMO, END, EVERY, HELDOUT, STORIES_HELDOUT, Recipe
from ...core.settings import AUTO, Names, Settings, choice, setting, text, whole
from ...evaluation.evaluator import BATCH_TOKENS, Evaluator, text_windows
from ...evaluation.tasks import STORY_TASKS, TASKS, Measured
from ..context import Context
from ..identity import digest
from ..stage import Cost, Stage
from ..state import RunState


class MeasureSettings(Settings):
    """With what the model is measured, and when."""

    measures = frozenset({"tasks", "items", "heldout", "perplexity_windows", "perplexity_tokens"})
    beside_auto = frozenset({"tasks"})

    measure: Literal["every", "end"] = choice(
        EVERY,
        (EVERY, END),
        "when to measure, after every iteration or what comes out at the end",
        "Measure",
        "After every iteration, or at the end only",
        called={EVERY: "every iteration", END: "at the end"},
    )
    tasks: Names = setting(
        (AUTO,),
        "tasks: shipped or standard names, NAME=PATH, or paths of files",
        "a list of names",
        "Tasks",
        "Auto picks some; or a file, or NAME=FILE",
    )
    items: int = whole(
        60,
        0,
        1_000_000,
        "items measured per task; 0 means all of them",
        "Items per task",
        "Questions asked of each task; 0 = all",
    )
    heldout: str = text(
        AUTO,
        "text for perplexity, as for calibration",
        "Held-out text",
        "For perplexity; auto picks one for this model",
    )
    perplexity_windows: int = whole(
        8,
        0,
        1_000_000,
        "windows for perplexity; 0 means the whole text",
        "Held-out windows",
        "Passages for perplexity; 0 = the whole text",
    )
    perplexity_tokens: int = whole(
        256,
        8,
        8192,
        "length of a perplexity window, in tokens",
        "Held-out window length, tokens",
        "Of a passage for perplexity",
    )

    @field_validator("tasks")
    @classmethod
    def _some_task(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if not tasks:
            raise ValueError(f"Tasks: choose at least one, for example {TASKS[0]}.")
        return tasks

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        demo = model == DEMO
        return {"heldout": STORIES_HELDOUT if demo else HELDOUT, "tasks": STORY_TASKS if demo else TASKS}


class Measure(Stage):
    """Measure the dense model, before anything is removed."""

    name = "measure"
    title = "Measure"
    Settings = MeasureSettings
    invalidated_by = ()

    def check(self, context: Context) -> None:
        _ = context.tasks, context.heldout  # read now, so that what is wrong with them is said now

    def contents(self, context: Context) -> Mapping[str, str]:
        found = {f"tasks:{task.name}": f"{self.recipe.items} {task.digest}" for task in context.tasks}
        return {**found, "heldout": digest(context.heldout)}

    def prepare(self, state: RunState) -> None:
        state.evaluator = evaluator_for(self.recipe, state.loaded, state.tasks, state.heldout)

    def estimate(self, context: Context) -> Cost:
        missing = 0 not in context.measured_iterations
        work = context.measurement_tokens * context.depth(0) * missing
        return Cost({"measuring": work}, memory={"evaluation": _memory(context)})

    def run(self, state: RunState) -> Iterator[Event]:
        yield from state.evaluator.skipped
        yield from state.measure()


class MeasureFinished(Stage):
    """Measure the finished model, with exactly the weights that are written."""

    name = "measure-finished"
    title = "Measure the finished model"
    Result = Evaluated

    def estimate(self, context: Context) -> Cost:
        if not context.changing or not context.finishing or context.planned in context.final_iterations:
            return Cost()
        return Cost({"measuring": context.measurement_tokens * context.depth(context.planned)})

    def run(self, state: RunState) -> Iterator[Event]:
        # A stage that could have changed the model may have left it as it was.
        yield from state.measure(final=state.changed)


def _memory(context: Context) -> float:
    sizes = context.sizes
    each = sizes.itemsize * (max(sizes.block_activations) + sizes.vocabulary) + 4 * sizes.vocabulary / 8
    return sizes.resident + at_once(BATCH_TOKENS, device()) * each


def evaluator_for(
    recipe: Recipe, loaded: Loaded, tasks: Sequence[Measured], heldout: Sequence[str]
) -> Evaluator:
    """Texts and tasks, tokenised and packed for a model.

    Raises:
        UserError: too little held-out text, or no task that this model can be asked.
    """
    tokens = min(recipe.perplexity_tokens, loaded.context)
    windows = text_windows(heldout, loaded.tokenizer, tokens, recipe.perplexity_windows)
    return Evaluator(tasks, windows, loaded.tokenizer, loaded.model.config)
