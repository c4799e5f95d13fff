"""Text that the dense model writes itself, to be learnt from where there is no better.

Each row begins with a few tokens of a text and goes on as the model predicts, drawn from all of its
predictions (temperature 1): so what is learnt from is what the dense model knows, in the words that it uses.
Self-data distillation: arXiv 2410.09982.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from transformers import PreTrainedModel

from ..core.decoding import read_on
from .attention import fast_attention

# Rows that are written at a time, and tokens that each begins with.
WRITING_ROWS, BEGINNING = 32, 8


def beginnings(rows: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Beginnings for `count` rows, `(count, BEGINNING)`, drawn from anywhere in `rows` `(N, T)`."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(rows), (count,), generator=generator)
    width = min(BEGINNING, rows.shape[1])
    start = torch.randint(rows.shape[1] - width + 1, (count,), generator=generator)
    return torch.stack([rows[i, s : s + width] for i, s in zip(which.tolist(), start.tolist(), strict=True)])


def write_batch(
    dense: PreTrainedModel, begun: torch.Tensor, length: int, known: int, seed: int
) -> Generator[int, None, torch.Tensor]:
    """Continue rows.

    Args:
        begun: beginnings, int64 `(B, t)` with t at least 1.
        length: of a whole row, in tokens.
        known: how many ids have a token; the rows of some models' embeddings are more.

    Yields:
        How many tokens were written, after every one of a row. No gradient mode is held across a yield.

    Returns:
        Token ids on the CPU, int64 `(B, length)`.
    """
    generator = torch.Generator(dense.device).manual_seed(seed)
    written, cache, given = [begun], None, begun
    with fast_attention(dense):
        for _ in range(length - begun.shape[1]):
            with torch.no_grad():
                logits, cache = read_on(dense, given.to(dense.device), cache)
                chances = logits[:, :known].float().softmax(-1)
            given = torch.multinomial(chances, 1, generator=generator)
            written.append(given)
            yield len(begun)
    return torch.cat([part.cpu() for part in written], 1)
