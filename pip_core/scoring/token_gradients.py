"""Gradients of the vocabulary: at its logits, and of its rows.

A row of the vocabulary is used twice: at the input where its token is read, and at the output, in the
sum over all tokens that normalises a prediction. A token that no text holds still takes part in the
second, so that every row has a score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ..structure.families import embedding_weight, token_weights
from .base import Batch, backpropagate, gradient_at, gradient_of, gradients_for, predictions


@torch.no_grad()
def logit_gradients(
    model: PreTrainedModel, ids: torch.Tensor, words: torch.Tensor, count: int
) -> torch.Tensor:
    """The loss's gradient at the logits, word by word: `(count, V)`, float32.

    The loss is the mean next-token cross-entropy in nats. The gradients at the logits that predict a word's
    tokens are added up. They follow from the forward pass alone.

    Args:
        ids: `(T,)` token ids.
        words: `(T,)` word index of each token, below `count`.
    """
    total = torch.zeros(count, embedding_weight(model).shape[0], device=model.device)
    start = 1
    for logits, targets in predictions(model, ids):
        total.index_add_(0, words[start : start + len(targets)], gradient_at(logits, targets))
        start += len(targets)
    return total / (len(ids) - 1)


class RowGradients:
    """Scores the rows of the vocabulary by their own gradients, mean over pairs; see `ScoringPass`.

    Args:
        fold: rows and their gradients, `(V, d)` each, to a number per row; added up over a model's tables.
        finish: applied to a pair's sums.
        perturbed: whether the gradient is that of `L(s) - L(s~)`, or else of `L(s)`.
    """

    sums: ClassVar[tuple[str, ...]] = ("total", "pairs")

    def __init__(
        self,
        model: PreTrainedModel,
        fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        finish: Callable[[torch.Tensor], torch.Tensor],
        perturbed: bool = False,
    ) -> None:
        self.model, self.fold, self.finish, self.perturbed = model, fold, finish, perturbed
        self.weights = token_weights(model)
        self.total = torch.zeros(self.weights[0].shape[0])
        self.pairs = 0

    def add(self, batch: Batch) -> None:
        for pair in batch:
            views, signs = [pair.clean.ids], [1.0]
            if self.perturbed:
                views, signs = [*views, pair.perturbed.ids], [1.0, -1.0]
            with torch.enable_grad(), gradients_for(self.model, self.weights):
                backpropagate(self.model, views, signs)
            found = torch.zeros_like(self.total)
            for weight in self.weights:
                found += self.fold(weight.detach().float(), gradient_of(weight).float()).cpu()
                weight.grad = None
            self.total += self.finish(found)
            self.pairs += 1

    def scores(self) -> torch.Tensor:
        return self.total / self.pairs
