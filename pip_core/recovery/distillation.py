"""What a pruned model learns from: the dense model's predictions of the next token.

The loss is `KL(p_K || q)` per position: `q` the pruned model's prediction over its tokens K, `p_K` the dense
model's restricted to K and renormalised (all of it where no token was removed). Its gradient at the pruned
model's logits is `q - p_K`. It is written down directly, some positions at a time, so that neither a float32
copy of all logits nor a graph of the softmax ever exists.

Knowledge distillation: Hinton et al. (arXiv 1503.02531); after pruning: Muralidharan et al., "Minitron"
(arXiv 2407.14679).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.accelerator import at_once
from ..core.repeatable import repeatable_attention

# Positions whose predictions a processor turns into float32 at a time: 16 x 50,000 words are 3 MB, which stay
# in its cache.
POSITIONS = 16
# Log-probability that what is held for impossible is taken for, so that it adds nothing and no infinity.
IMPOSSIBLE = -1e4


@contextmanager
def predicting_only(dense: PreTrainedModel, kept: torch.Tensor | None) -> Iterator[torch.Tensor | None]:
    """Within this context the dense model predicts no other tokens than `kept` where its head allows that:
    what would be thrown away is not computed.

    Yields:
        What is still to be picked from its predictions: `kept`, or None.
    """
    head = dense.get_output_embeddings()
    if kept is None or type(head) is not nn.Linear or len(head.weight) <= int(kept.max()):
        yield kept
        return
    fewer = nn.Linear(head.in_features, len(kept), head.bias is not None, device="meta")
    for name, weight in head.named_parameters():
        rows = weight.detach()[kept.to(weight.device)]
        setattr(fewer, name, nn.Parameter(rows, requires_grad=False))
    dense.set_output_embeddings(fewer)
    try:
        yield None if dense.get_output_embeddings() is fewer else kept
    finally:
        dense.set_output_embeddings(head)


def learn(
    pruned: PreTrainedModel,
    dense: PreTrainedModel,
    ids: torch.Tensor,
    same: torch.Tensor,
    kept: torch.Tensor | None,
    positions: int,
) -> float:
    """Add the gradient of the loss on a batch to the gradients of the pruned model's weights.

    Args:
        ids: what the pruned model reads, int64 `(B, T)`; `same` the same text by the dense model's ids.
        kept: dense ids of the pruned model's tokens, `(K,)`; None where no token was removed.
        positions: number of positions that the loss is the mean over, which may be those of several batches.

    Returns:
        The sum of the loss over the batch's positions, in nats.
    """
    wanted = _logits(dense, same)
    with torch.enable_grad(), repeatable_attention(ids.device):
        logits = pruned(input_ids=ids, use_cache=False).logits
    found = logits.detach().flatten(0, 1)
    gradient = torch.empty_like(found)
    parts = []
    for part, log_p, log_q in _compared(wanted, found, kept):
        p = log_p.exp()
        parts.append(_divergence(p, log_p, log_q))
        gradient[part] = log_q.exp_().sub_(p).div_(positions)
    del wanted
    logits.backward(gradient.view_as(logits))
    return _sum(parts)


def divergence(
    pruned: PreTrainedModel,
    dense: PreTrainedModel,
    ids: torch.Tensor,
    same: torch.Tensor,
    kept: torch.Tensor | None,
) -> float:
    """The sum of the loss over a batch's positions in nats, nothing learnt; arguments as for `learn`."""
    wanted, found = _logits(dense, same), _logits(pruned, ids)
    parts = _compared(wanted, found, kept)
    return _sum([_divergence(log_p.exp(), log_p, log_q) for _, log_p, log_q in parts])


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits after every token of a batch, `(B * T, V)`, in the model's number format."""
    return model(input_ids=ids.to(model.device), use_cache=False).logits.flatten(0, 1)


@torch.no_grad()
def _compared(
    wanted: torch.Tensor, found: torch.Tensor, kept: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Some positions at a time: which, and the log-probabilities of the dense model and of the pruned one;
    both float32 `(P, K)`."""
    count = at_once(POSITIONS, found.device)
    for start in range(0, len(found), count):
        part = slice(start, min(start + count, len(found)))
        target = wanted[part] if kept is None else wanted[part].index_select(1, kept.to(wanted.device))
        yield part, _log_probabilities(target.to(found.device)), _log_probabilities(found[part])


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1).clamp_(min=IMPOSSIBLE)


def _divergence(p: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return log_p.sub(log_q).mul_(p).sum()


def _sum(parts: Sequence[torch.Tensor]) -> float:
    """The sum of single numbers, for which a device is waited for once."""
    return sum(torch.stack(list(parts)).tolist())
