"""The way in which attention is computed while it is learnt and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

FUSED, PRODUCTS = "sdpa", "eager"


@contextmanager
def fast_attention(*models: PreTrainedModel) -> Iterator[None]:
    """Within this context attention is computed as products and a softmax where that is faster.

    torch's fused attention for processors is slow in bfloat16: measured on SmolLM2-135M at rows of 256
    tokens, it was a quarter of a step of learning. With the products a step takes 17 % less time, and writing
    32 % less. They keep about 6 bytes for each head and pair of positions of a row, in every block.
    """
    changed = [
        model
        for model in models
        if model.config._attn_implementation == FUSED
        and model.device.type == "cpu"
        and model.dtype == torch.bfloat16
    ]
    for model in changed:
        model.set_attn_implementation(PRODUCTS)
    try:
        yield
    finally:
        for model in changed:
            model.set_attn_implementation(FUSED)
