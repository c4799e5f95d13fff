"""What a run reads, for a loaded model; measuring it as a run does, as events."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ..checkpoints.load import Loaded
from ..core import events as ev
from ..core.progress import map_progress
from ..core.recipe import Recipe
from ..data.calibration import Calibration, CalibrationText
from ..data.contamination import overlap
from ..data.corpora import title
from ..evaluation.evaluator import Evaluator, text_windows
from ..evaluation.tasks import Pages, Task
from .clock import MEASURING, Clock


def evaluator_for(recipe: Recipe, loaded: Loaded, tasks: list[Task | Pages], heldout: list[str]) -> Evaluator:
    """Texts and tasks, tokenised and packed for a model.

    Raises:
        UserError: too little held-back text, or no task that this model can be asked.
    """
    tokens = min(recipe.perplexity_tokens, context_of(loaded))
    windows = text_windows(heldout, loaded.tokenizer, tokens, recipe.perplexity_windows)
    return Evaluator(tasks, windows, loaded.tokenizer, loaded.model.config)


def warnings(
    recipe: Recipe, tasks: list[Task | Pages], heldout: list[str], text: CalibrationText
) -> Iterator[ev.Warned]:
    """Calibration text in what is measured, and texts and items that are there twice."""
    for warning in text.warnings():
        yield ev.Warned(warning)
    measured = {f"documents of the held-back text '{title(recipe.heldout)}'": heldout}
    for task in tasks:
        if isinstance(task, Pages):
            measured[f"documents of {task.name}"] = list(task.pages)
            continue
        measured[f"items of {task.name}"] = [f"{i.prompt} {i.choices[i.gold]}" for i in task.items]
        if task.duplicates:
            yield ev.Warned(
                f"{task.duplicates} of the {len(task.items)} items of {task.name} are the same as an earlier "
                "one; each counts."
            )
    for what, found in measured.items():
        shared = overlap((d for domain in text.domains for d in domain.documents), found)
        if said := shared.sentence(what):
            yield ev.Warned(said)


def calibration_for(recipe: Recipe, loaded: Loaded, text: CalibrationText) -> Calibration:
    """The calibration text, for a loaded model."""
    return Calibration(text, recipe, loaded.tokenizer, context_of(loaded), loaded.model.device)


def context_of(loaded: Loaded) -> int:
    """The longest input the model reads, in tokens."""
    # Models with rotary positions and no stated limit read as far as they are asked to.
    return getattr(loaded.model.config, "max_position_embeddings", None) or 2**30


def measure(
    loaded: Loaded, bench: Evaluator, iteration: int, clock: Clock, depth: float
) -> Generator[ev.Event, None, ev.Evaluated]:
    """Perplexity and every task for the model as it stands.

    Args:
        depth: how many dense blocks the model's blocks amount to, for the clock.
    """
    done = 0
    clock.skip()

    def step(tokens: int) -> ev.Progress:
        nonlocal done
        done += tokens
        clock.step(MEASURING, tokens * depth)
        return ev.Progress("measuring", iteration, done, bench.tokens, clock.elapsed, clock.remaining())

    return (yield from map_progress(bench.measure(loaded.model, iteration), step))
