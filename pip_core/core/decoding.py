"""One step of writing with a cache, for models of every release of transformers that is supported."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel


def read_on(model: PreTrainedModel, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Read on from a cache.

    Args:
        ids: the tokens that follow it, `(B, T)`.
        cache: what an earlier step returned; None for the beginning.

    Returns:
        Logits after the last token, `(B, V)`, and the cache with `ids` in it.
    """
    known = inspect.signature(model.forward).parameters
    # As generate() does: only the last position needs logits.
    last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    name = "cache" if "cache" in known else "past_key_values"  # its name before transformers 5.24
    out = model(input_ids=ids, use_cache=True, **{name: cache}, **last)
    return out.logits[:, -1], getattr(out, name)
