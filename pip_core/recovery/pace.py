"""How fast this machine learns and writes, timed on the models at hand, and what fits into a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..core.accelerator import synchronize
from .attention import fast_attention
from .distillation import divergence, learn, predicting_only
from .optimiser import Optimiser, learning, pass_rows
from .text import WRITING_ROWS, write_batch

# Tokens that are written of each row to see how long that takes.
WRITTEN = 4


@dataclass(frozen=True)
class Pace:
    """Seconds for a token: learnt from, written by the dense model, and looked at by both models."""

    learning: float
    writing: float
    looking: float

    def tokens(self, seconds: float, step: int, most: int, beside: Callable[[int], tuple[int, int]]) -> int:
        """How many tokens are learnt from in a time: the largest whole number of steps that fits, at least
        one.

        Args:
            step: tokens in one step; `most` is the largest answer.
            beside: how many tokens are written and looked at where so many are learnt from.
        """
        low, high = 1, max(1, most // step)
        while low < high:
            middle = (low + high + 1) // 2
            written, looked = beside(middle * step)
            takes = middle * step * self.learning + written * self.writing + looked * self.looking
            low, high = (middle, high) if takes <= seconds else (low, middle - 1)
        return low * step


def measure(
    pruned: PreTrainedModel,
    dense: PreTrainedModel,
    ids: torch.Tensor,
    same: torch.Tensor,
    kept: torch.Tensor | None,
    writes: bool,
) -> Generator[None, None, Pace]:
    """Time a step of learning, whose rate is 0, so that nothing is learnt; writing and looking too.

    Args:
        ids: the rows of a step as the pruned model reads them, `(B, T)`; `same` and `kept` as in `learn`.
        writes: whether the dense model will write.

    Yields:
        After every pass.

    Raises:
        Diverged: the gradients are not finite.
    """
    with (
        learning(pruned) as weights,
        fast_attention(pruned, dense),
        predicting_only(dense, kept) as left,
    ):
        optimiser, began = Optimiser(weights), 0.0
        rows = pass_rows(pruned.device)
        passes = list(zip(ids.split(rows), same.split(rows), strict=True))
        # The first pass is not timed: it makes room that later ones find.
        for number, (part, as_dense) in enumerate((passes[0], *passes)):
            if number == 1:
                optimiser.forget()
                began = _now(pruned)
            learn(pruned, dense, part.to(pruned.device), as_dense, left, ids.numel())
            optimiser.collect()
            yield
        optimiser.step(0.0)
        learnt = _now(pruned) - began
    began = _now(pruned)
    divergence(pruned, dense, passes[0][0].to(pruned.device), passes[0][1], kept)
    looked = _now(pruned) - began
    yield
    written = (yield from _write(dense, same)) if writes else 0.0
    return Pace(learnt / ids.numel(), written, looked / passes[0][0].numel())


def _write(dense: PreTrainedModel, rows: torch.Tensor) -> Generator[None, None, float]:
    """Seconds for a token, in the middle of rows."""
    half = rows.shape[1] // 2
    begun = rows[torch.arange(WRITING_ROWS) % len(rows), :half]
    steps = write_batch(dense, begun, half + 1 + WRITTEN, dense.config.vocab_size, 0)
    next(steps)  # what they begin with is read at once
    began = _now(dense)
    for _ in steps:
        yield
    return (_now(dense) - began) / (WRITING_ROWS * WRITTEN)


def _now(model: PreTrainedModel) -> float:
    synchronize(model.device)
    return time.monotonic()
