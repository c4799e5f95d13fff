"""Divergence of two models' next-token predictions over a text, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.errors import UserError
from ..core.finite import check_finite

TOP = 3
LONGEST = 512
# What a decoder writes for a letter of which not all tokens are there yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Place:
    """One token of a text, and the predictions of both models for it.

    Attributes:
        before: the text before the token.
        token: the token's text.
        divergence: Kullback-Leibler divergence `KL(p_K || q) = sum over K of p_K log(p_K / q)` in nats. K
            are the tokens that both models have; `p_K` is the dense model's prediction renormalised over
            K; `q` is the pruned model's prediction over all of its tokens. Without a reduction of the
            vocabulary K is the whole vocabulary, and this is KL(p || q).
        dense, pruned: the likeliest tokens of `p_K` and of `q` with their probabilities, likeliest first.
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
        text: its first 512 tokens are read, or as many as the model can read.
        fewer: the pruned model's tokenizer, where its vocabulary was reduced; both models then read the
            text in its tokens.

    Raises:
        UserError: a text of fewer than two tokens, or logits that are not finite.
    """
    context = getattr(dense.config, "max_position_embeddings", None) or LONGEST
    fewer = fewer or tokenizer
    ids = fewer(text, return_tensors="pt")["input_ids"][:, : min(LONGEST, context)]
    if ids.shape[1] < 2:
        raise UserError("Write at least two words to compare what the models expect.", "text")
    dense_ids, shared, shared_dense = ids, None, None
    numbers, fewer_numbers = tokenizer.get_vocab(), fewer.get_vocab()
    if fewer_numbers != numbers:
        # The tokens that both have, by their ids in the pruned and in the dense model.
        pairs = sorted((i, numbers[token]) for token, i in fewer_numbers.items())
        shared, shared_dense = torch.tensor(pairs).T.contiguous()
        dense_ids = shared_dense[torch.searchsorted(shared, ids)]
    log_p = _log_probabilities(dense, dense_ids)
    log_q = _log_probabilities(pruned, ids)
    if shared is not None:
        log_p, log_q = log_p[:, shared_dense].log_softmax(-1), log_q[:, shared]
    values = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0).tolist()
    best = [log.exp().topk(TOP, dim=-1) for log in (log_p, log_q)]

    def text_of(token_ids: torch.Tensor | list[int]) -> str:
        return str(fewer.decode(token_ids))

    tokens = _as_written(fewer, ids[0].tolist())
    return [
        Place(
            # As it was written: a token that only marks its beginning is no part of it.
            str(fewer.decode(ids[0, : place + 1], skip_special_tokens=True)).rstrip(UNFINISHED),
            tokens[place + 1],
            values[place],
            *(
                tuple(
                    (text_of([i if shared is None else int(shared[i])]), round(p, 4))
                    for i, p in zip(b.indices[place].tolist(), b.values[place].tolist(), strict=True)
                )
                for b in best
            ),
        )
        for place in range(ids.shape[1] - 1)
    ]


def _as_written(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """What each token adds to the text. Letters that take several tokens come with the last of them."""
    pieces, before = [], ""
    for count in range(1, len(ids) + 1):
        now = str(tokenizer.decode(ids[:count])).rstrip(UNFINISHED)
        own = str(tokenizer.decode(ids[count - 1 : count]))
        pieces.append(now[len(before) :] if now.startswith(before) else own)
        before = now
    return pieces


@torch.inference_mode()
def _log_probabilities(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token after every token but the last: `(T - 1, vocabulary)`, float32."""
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits[0, :-1].float().cpu()
    check_finite(logits, "the logits of one of the models")
    return logits.log_softmax(-1)
