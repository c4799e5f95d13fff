"""Measure a model as it is, without pruning anything."""

from __future__ import annotations

from collections.abc import Iterator

from ..checkpoints.load import load
from ..core import events as ev
from ..core.progress import map_progress
from ..core.recipe import Recipe
from .clock import Clock
from .context import Context
from .stages.measure import evaluator_for


def evaluate_model(model: str, **settings: object) -> ev.Evaluated:
    """Measure a model: its perplexity, and its accuracy on tasks, each with a standard error.

        found = pip_core.evaluate("my-run", tasks=("arc_easy", "facts"), items=200)
        print(f"{found.accuracy:.1%} ± {found.accuracy_se:.1%}, perplexity {found.perplexity:.2f}")

    Args:
        model: model reference, or the folder of a run, as for `pip_core.load`.
        settings: any setting of a recipe that bears on measuring, such as `tasks`, `heldout`, `dtype`,
            `items` (per task, by default all) and `perplexity_windows` (by default the whole text).

    Raises:
        UserError: no such model, task or text, or a setting that no recipe has.
    """
    recipe = Recipe(**{"items": 0, "perplexity_windows": 0, **settings, "model": str(model)})
    return next(event for event in evaluate(recipe) if isinstance(event, ev.Evaluated))


def evaluate(recipe: Recipe) -> Iterator[ev.Event]:
    """Measure the recipe's model as it is, as a stream of events that ends with Evaluated.

    Raises:
        UserError: as for `run`. Other exceptions can be told by `core.device.user_message`.
    """
    context = Context(recipe, [])
    _ = context.tasks, context.heldout  # what is wrong with them is said before a model is loaded
    loaded = yield from load(
        recipe.model,
        recipe.dtype,
        placement=context.placement,
        resident_blocks=context.resident_blocks,
    )
    evaluator = evaluator_for(recipe, loaded, context.tasks, context.heldout)
    yield from evaluator.skipped
    clock, done = Clock({"measuring": evaluator.tokens}), 0

    def step(tokens: int) -> ev.Progress:
        nonlocal done
        done += tokens
        clock.step("measuring", tokens)
        return ev.Progress("measuring", 0, done, evaluator.tokens, clock.elapsed, clock.remaining())

    yield (yield from map_progress(evaluator.measure(loaded.model, 0), step))
