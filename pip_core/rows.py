"""Token rows of unequal length, side by side in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Rows are filled up to a multiple of this many tokens: the CPU's matrix kernels are compiled and
# kept once per shape, and a new shape for every window costs both time and memory.
MULTIPLE = 16


def rows_of(ids: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put token rows of unequal length side by side.

    Returns:
        `(rows, lengths)`: rows `(B, T)` filled on the right with each row's own last token (causal
        attention never looks there), lengths `(B,)`.
    """
    lengths = torch.tensor([len(i) for i in ids])
    longest = -int(-lengths.max() // MULTIPLE) * MULTIPLE
    rows = torch.stack([torch.cat([i, i[-1:].expand(longest - len(i))]) for i in ids])
    return rows, lengths
