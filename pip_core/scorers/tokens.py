"""What methods see of the vocabulary: gradients at gates on its rows, and of the rows themselves.

A row of the vocabulary is met twice: at the input where its token is read, and at the output, in the
sum over all tokens that a prediction is normalised by. A token that no text holds still takes part in
the second, so that every row has a score.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence

import torch
from transformers import PreTrainedModel

from ..families import tables_of
from ..views import Pair
from .base import backpropagate, gradients_for


def token_gates(model: PreTrainedModel, ids: torch.Tensor, words: torch.Tensor, count: int) -> torch.Tensor:
    """The loss's gradient at a gate z = 1 on every row of the vocabulary: `(count, V)`, float32.

    A gate multiplies what the embeddings give for its token, and the token's logit. What a word is read
    by, and what it is predicted by, are that word's; products are added up.

    Args:
        ids: `(T,)` token ids.
        words: `(T,)` word index of each token, below `count`.
    """
    embeddings, *head = tables_of(model)
    total = torch.zeros(count, embeddings.weight.shape[0])

    def on_embeddings(module, args: tuple, given: torch.Tensor) -> None:
        given.requires_grad_()
        rows = given.detach()

        def at(gradient: torch.Tensor) -> None:
            products = (rows.float() * gradient.float()).sum(dim=-1)[0, : len(ids)]
            total.index_put_((words, ids), products.cpu(), accumulate=True)

        given.register_hook(at)

    def on_head(module, args: tuple, given: torch.Tensor) -> None:
        logits = given.detach()

        def at(gradient: torch.Tensor) -> None:
            # One place at a time: a float32 copy of all logits would be the largest thing in memory.
            for place, word in enumerate(words[1:].tolist()):
                total[word] += (logits[0, place].float() * gradient[0, place].float()).cpu()

        given.register_hook(at)

    with torch.enable_grad(), gradients_for(model, ()), contextlib.ExitStack() as stack:
        stack.callback(embeddings.register_forward_hook(on_embeddings).remove)
        for module in head:
            stack.callback(module.register_forward_hook(on_head).remove)
        backpropagate(model, (ids,), (1.0,))
    return total


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
