"""Where two models of one family expect different things of a text, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.errors import UserError

TOP = 3
LONGEST = 512


@dataclass(frozen=True)
class Place:
    """One token of a text, and what each model expected there.

    Attributes:
        before: the text up to it.
        token: as it stands in the text.
        divergence: Kullback-Leibler divergence of the pruned model's prediction from the dense
            model's, `sum p_dense log(p_dense / p_pruned)` over the tokens that both have, in nats.
        dense, pruned: the likeliest tokens and their probabilities, likeliest first.
    """

    before: str
    token: str
    divergence: float
    dense: tuple[tuple[str, float], ...]
    pruned: tuple[tuple[str, float], ...]


def divergence(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    fewer: PreTrainedTokenizerBase | None = None,
) -> list[Place]:
    """Compare two models' next-token predictions over a text, from its second token on.

    Args:
        tokenizer: the dense model's.
        text: its first 512 tokens are read, or as many as the model reads.
        fewer: the pruned model's tokenizer, where that has fewer tokens: both models then read the text as
            this one spells it.

    Raises:
        UserError: a text of fewer than two tokens.
    """
    context = getattr(dense.config, "max_position_embeddings", None) or LONGEST
    fewer = fewer or tokenizer
    ids = fewer(text, return_tensors="pt")["input_ids"][:, : min(LONGEST, context)]
    if ids.shape[1] < 2:
        raise UserError("Write at least two words to compare what the models expect.")
    # Every token that the pruned model has, by its number there and in the dense model.
    numbers = tokenizer.get_vocab()
    here, there = torch.tensor(
        sorted((i, numbers[token]) for token, i in fewer.get_vocab().items())
    ).T.contiguous()
    rows = there[torch.searchsorted(here, ids)]
    expected = [_log_probabilities(dense, rows, there), _log_probabilities(pruned, ids, here)]
    divergence = (expected[0].exp() * (expected[0] - expected[1])).sum(-1).clamp(min=0).tolist()
    best = [e.exp().topk(TOP, dim=-1) for e in expected]
    tokens = [fewer.decode([i]) for i in ids[0].tolist()]
    return [
        Place(
            fewer.decode(ids[0, : place + 1]),
            tokens[place + 1],
            divergence[place],
            *(
                tuple(
                    (fewer.decode([int(here[i])]), round(p, 4))
                    for i, p in zip(b.indices[place].tolist(), b.values[place].tolist(), strict=True)
                )
                for b in best
            ),
        )
        for place in range(ids.shape[1] - 1)
    ]


@torch.inference_mode()
def _log_probabilities(model: PreTrainedModel, ids: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token, one of `words`, after every token but the last: `(T - 1, words)`,
    float32."""
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits
    return logits[0, :-1, words.to(logits.device)].float().log_softmax(-1).cpu()
