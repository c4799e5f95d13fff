"""Measuring a loaded model as a run does: perplexity and every task, as events."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch

from . import events as ev
from .checkpoint import Loaded
from .clock import MEASURING, Clock
from .evaluation import TaskBatches, mean_accuracy, perplexity, text_windows
from .recipe import Recipe
from .streams import mapped
from .tasks import Task


@dataclass
class Bench:
    """What a run measures with, prepared once: windows for perplexity, and packed tasks."""

    windows: torch.Tensor
    tasks: list[TaskBatches]

    @property
    def tokens(self) -> int:
        return self.windows.numel() + sum(t.tokens for t in self.tasks)


def bench_for(recipe: Recipe, loaded: Loaded, tasks: list[Task], heldout: list[str]) -> Bench:
    """Texts and tasks, tokenised and packed for a model.

    Raises:
        UserError: too little held-back text.
    """
    context = context_of(loaded)
    tokens = min(recipe.perplexity_tokens, context)
    return Bench(
        text_windows(heldout, loaded.tokenizer, tokens, recipe.perplexity_windows),
        [TaskBatches(task, loaded.tokenizer, context) for task in tasks],
    )


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
    model, began, done = loaded.model, time.monotonic(), 0
    clock.skip()

    def step(tokens: int) -> ev.Progress:
        nonlocal done
        done += tokens
        clock.step(MEASURING, tokens * depth)
        return ev.Progress("measuring", iteration, done, bench.tokens, clock.elapsed, clock.remaining())

    ppl = yield from mapped(perplexity(model, bench.windows), lambda n: step(n * bench.windows.shape[1]))
    results = []
    for task in bench.tasks:
        results.append((yield from mapped(task.measure(model), step)))
    mean, se = mean_accuracy(results)
    return ev.Evaluated(
        iteration,
        model.config.num_hidden_layers,
        sum(p.numel() for p in model.parameters()),
        ppl.value,
        ppl.se,
        ppl.windows,
        ppl.window_tokens,
        mean,
        se,
        tuple(results),
        time.monotonic() - began,
    )
