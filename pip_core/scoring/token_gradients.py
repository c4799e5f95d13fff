"""What methods see of the vocabulary: gradients at its logits, and of its rows.

A row of the vocabulary is met twice: at the input where its token is read, and at the output, in the
sum over all tokens that a prediction is normalised by. A token that no text holds still takes part in
the second, so that every row has a score.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from transformers import PreTrainedModel

from ..data.perturbation import Pair
from ..structure.families import tables_of
from .base import POSITIONS, backpropagate, gradient_at, gradients_for, predictions


@torch.no_grad()
def logit_gradients(
    model: PreTrainedModel, ids: torch.Tensor, words: torch.Tensor, count: int
) -> torch.Tensor:
    """The loss's gradient at the logits, word by word: `(count, V)`, float32.

    The loss is the mean next-token cross-entropy in nats. What a word is predicted by is that word's;
    gradients are added up. They are known from the forward pass.

    Args:
        ids: `(T,)` token ids.
        words: `(T,)` word index of each token, below `count`.
    """
    total = torch.zeros(count, tables_of(model)[0].weight.shape[0], device=model.device)
    parts = words[1:].to(model.device).split(POSITIONS)
    for (logits, targets), where in zip(predictions(model, ids), parts, strict=True):
        total.index_add_(0, where, gradient_at(logits, targets))
    return total / (len(ids) - 1)


def rows_by_gradient(
    model: PreTrainedModel,
    pairs: Sequence[Pair],
    perturbed: bool,
    fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    finish: Callable[[torch.Tensor], torch.Tensor],
) -> Generator[int, None, torch.Tensor]:
    """A score for every row of the vocabulary from the rows' own gradients, mean over pairs: `(V,)`.

    Args:
        perturbed: whether the gradient is that of `L(s) - L(s~)`, or else of `L(s)`.
        fold: rows and their gradients, `(V, d)` each, to a number per row; added up over a model's tables.
        finish: what is done to a pair's sums.
    """
    weights = list({id(t.weight): t.weight for t in tables_of(model)}.values())
    total = torch.zeros(weights[0].shape[0])
    for done, pair in enumerate(pairs, 1):
        views, signs = ((pair.clean.ids,), (1.0,))
        if perturbed:
            views, signs = (pair.clean.ids, pair.other.ids), (1.0, -1.0)
        with torch.enable_grad(), gradients_for(model, weights):
            backpropagate(model, views, signs)
        found = torch.zeros_like(total)
        for weight in weights:
            found += fold(weight.detach().float(), weight.grad.float()).cpu()
            weight.grad = None
        total += finish(found)
        yield done
    return total / len(pairs)
