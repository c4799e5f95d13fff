"""What every scoring method is, and what they share: the loss, and which weights ask for gradients.

A scorer knows no family and no engine. It is given a model, the sites to score and the calibration
pairs, and answers with one 1-D tensor of `site.size` scores per site; larger means keep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..rows import rows_of
from ..sites import Site
from ..views import Pair

Scores = list[torch.Tensor]


class Scorer(Protocol):
    """A scoring method: plain facts for the reader, and one function.

    Attributes:
        name: id in recipes and on the command line.
        title: what people read.
        paper: where the method comes from.
        summary: two sentences for the page and the model card.
        passes: cost of one calibration pair, in forward passes over one view.
    """

    name: str
    title: str
    paper: str
    summary: str
    passes: float

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        """Score every site.

        Args:
            model: in evaluation mode; left as it was found.
            blocks: the decoder blocks as they stand; `sites[i].position` indexes them.
            pairs: calibration pairs.

        Yields:
            How many pairs are done, after each step. No gradient mode is held across a yield.

        Returns:
            One float32 tensor of shape `(site.size,)` per site.
        """
        ...


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over rows of the mean next-token cross-entropy, without a float32 copy of the logits.

    The gradient is computed beside the loss, some positions at a time, so that a vocabulary of
    50,000 words costs one logits-sized gradient in the model's own format and nothing more.
    """

    POSITIONS = 64

    @staticmethod
    def forward(ctx, logits, targets, weights):
        # logits (N, V); targets (N,); weights (N,): the factor of each position in the loss.
        grad = torch.empty_like(logits)
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for start in range(0, len(logits), _ChunkedCrossEntropy.POSITIONS):
            part = slice(start, start + _ChunkedCrossEntropy.POSITIONS)
            logp = F.log_softmax(logits[part].float(), dim=-1)
            total -= (logp.gather(1, targets[part, None])[:, 0] * weights[part]).sum()
            logp.exp_()
            logp.scatter_add_(1, targets[part, None], -torch.ones_like(targets[part, None], dtype=logp.dtype))
            grad[part] = logp * weights[part, None]
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx, upstream):
        (grad,) = ctx.saved_tensors
        return grad * upstream.to(grad.dtype), None, None


def signed_loss(model: PreTrainedModel, ids: Sequence[torch.Tensor], signs: Sequence[float]) -> torch.Tensor:
    """`sum_i signs[i] * L(ids[i])`, L the mean next-token cross-entropy in nats (METHODS: L(s; w)).

    With signs (1, -1) its gradient is exactly the difference of the two views' gradients.
    """
    rows, lengths = rows_of(ids)
    rows = rows.to(model.device)
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    steps = torch.arange(rows.shape[1] - 1)
    inside = steps[None, :] < (lengths - 1)[:, None]
    weights = inside * (torch.tensor(signs) / (lengths - 1))[:, None]
    return _ChunkedCrossEntropy.apply(
        logits.reshape(-1, logits.shape[-1]),
        rows[:, 1:].reshape(-1),
        weights.reshape(-1).to(rows.device),
    )


@contextlib.contextmanager
def gradients_for(model: nn.Module, wanted: Iterable[nn.Parameter]) -> Iterator[None]:
    """Ask for gradients of the `wanted` weights and of no other, for a while."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    chosen = {id(p) for p in wanted}
    for p, _ in before:
        p.requires_grad_(id(p) in chosen)
    try:
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)
