"""The way in which attention is computed in bfloat16 on a processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FUSED = "sdpa"
# Queries are taken in parts, at most so many and of at least so many tokens, of which each reads the keys up
# to its own end alone.
PARTS, SHORTEST = 8, 64
# What changes the weights of attention in ways that are left to torch's own.
OTHERS = ("position_bias", "softcap", "s_aux", "head_mask")


@contextmanager
def fast_attention(*models: PreTrainedModel) -> Iterator[None]:
    """Within this context attention is computed as products and a softmax where that is faster.

    torch's fused attention for processors is no faster in bfloat16 than in float32. Measured at the shapes of
    SmolLM2-135M, the products take 0.5 to 0.7 of its time forwards, and 0.35 to 0.5 with a backward pass, for
    which they keep about a byte and a quarter for each head and pair of positions of a row, in every block.
    """
    if not any(
        model.config._attn_implementation == FUSED
        and model.device.type == "cpu"
        and model.dtype == torch.bfloat16
        for model in models
    ):
        yield
        return
    fused = ALL_ATTENTION_FUNCTIONS[FUSED]

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **given: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention as transformers asks for it: query `(B, H, T, d)`, key and value `(B, G, S, d)`; no mask
        says that every token reads those up to itself. Returns `(B, T, H, d)`."""
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        length, width = query.shape[2:]
        plain = attention_mask is None and not dropout and all(given.get(name) is None for name in OTHERS)
        known = query.dtype == torch.bfloat16 and query.device.type == "cpu" and value.shape[-1] == width
        if not (plain and known and (length == 1 or (causal and length == key.shape[2]))):
            if is_causal is not None:
                given["is_causal"] = is_causal
            return fused(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **given)
        scale = width**-0.5 if scaling is None else scaling
        read = Causal.apply if length > 1 else _one
        return read(query, key, value, scale).transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS[FUSED] = attend
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[FUSED] = fused


def _one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of one token to all that are there; shapes as in `Causal`."""
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    weights = torch.matmul(grouped, key.transpose(2, 3)).float().mul_(scale).softmax(-1).to(query.dtype)
    return torch.matmul(weights, value).view(rows, heads, 1, width)


class Causal(torch.autograd.Function):
    """Attention of every token to those up to itself, the softmax in float32.

    With `S = scale Q K'`, `P = softmax(S)`, `O = P V` and the gradient `G` at O: `dV = P' G`,
    `dS = P * (G V' - rowsum(P * G V'))`, `dQ = scale dS K`, `dK = scale dS' Q`. Heads that share a key are
    rows of one product.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Query `(B, H, T, d)`, key and value `(B, G, T, d)`; returns `(B, H, T, d)`."""
        rows, heads, length, width = query.shape
        groups = key.shape[1]
        key, value = key.contiguous(), value.contiguous()
        query = query.reshape(rows, groups, heads // groups, length, width)
        found, kept = torch.empty_like(query, memory_format=torch.contiguous_format), []
        for start, end in _parts(length):
            asked = query[:, :, :, start:end].flatten(2, 3)
            weights = torch.matmul(asked, key[:, :, :end].transpose(2, 3)).float().mul_(scale)
            weights = weights.view(rows, groups, -1, end - start, end)
            later = torch.ones(end - start, end - start, dtype=torch.bool).triu_(1)
            weights[..., start:end].masked_fill_(later, float("-inf"))
            part = weights.softmax(-1).to(query.dtype).flatten(2, 3)
            kept.append(part)
            read = torch.matmul(part, value[:, :, :end])
            found[:, :, :, start:end] = read.view(rows, groups, -1, end - start, width)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale = scale
        return found.view(rows, heads, length, width)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        gradient = gradient.reshape(query.shape)
        at_query = torch.empty_like(query)
        at_key, at_value = (torch.zeros(key.shape, dtype=torch.float32) for _ in range(2))
        for (start, end), part in zip(_parts(query.shape[3]), kept, strict=True):
            asked = query[:, :, :, start:end].flatten(2, 3)
            given = gradient[:, :, :, start:end].flatten(2, 3)
            at_value[:, :, :end] += torch.matmul(part.transpose(2, 3), given)
            at_part = torch.matmul(given, value[:, :, :end].transpose(2, 3)).float()
            at_part -= (at_part * part).sum(-1, keepdim=True)
            at_part = at_part.mul_(part).mul_(ctx.scale).to(query.dtype)
            read = torch.matmul(at_part, key[:, :, :end])
            at_query[:, :, :, start:end] = read.view(*query.shape[:3], end - start, -1)
            at_key[:, :, :end] += torch.matmul(at_part.transpose(2, 3), asked)
        return at_query.flatten(1, 2), at_key.to(key.dtype), at_value.to(value.dtype), None


def _parts(length: int) -> list[tuple[int, int]]:
    """Beginnings and ends of the parts of so many queries."""
    each = max(SHORTEST, -(-length // PARTS))
    return [(start, min(start + each, length)) for start in range(0, length, each)]
