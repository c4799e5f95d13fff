"""Measuring a loaded model as a run does: perplexity and every task, as events."""

from __future__ import annotations

from collections.abc import Generator

from . import events as ev
from .checkpoint import Loaded
from .clock import MEASURING, Clock
from .evaluation import Bench, text_windows
from .recipe import Recipe
from .streams import mapped
from .tasks import Pages, Task


def bench_for(recipe: Recipe, loaded: Loaded, tasks: list[Task | Pages], heldout: list[str]) -> Bench:
    """Texts and tasks, tokenised and packed for a model.

    Raises:
        UserError: too little held-back text, or no task that this model can be asked.
    """
    tokens = min(recipe.perplexity_tokens, context_of(loaded))
    windows = text_windows(heldout, loaded.tokenizer, tokens, recipe.perplexity_windows)
    return Bench(tasks, windows, loaded.tokenizer, loaded.model.config)


def context_of(loaded: Loaded) -> int:
    """The longest input the model reads, in tokens."""
    # Models with rotary positions and no stated limit read as far as they are asked to.
    return getattr(loaded.model.config, "max_position_embeddings", None) or 2**30


def measure(
    loaded: Loaded, bench: Bench, iteration: int, clock: Clock, depth: float
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

    return (yield from mapped(bench.measure(loaded.model, iteration), step))
