"""Batches of rows of tokens, as `Calibration.rows` gives them: how many they hold, and the first of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def count_tokens(rows: Sequence[torch.Tensor]) -> int:
    """Tokens in batches of token ids."""
    return sum(part.numel() for part in rows)


def first_batches(rows: Sequence[torch.Tensor], wanted: int) -> list[torch.Tensor]:
    """The first batches, as many as hold `wanted` tokens; all of them where these hold fewer."""
    found: list[torch.Tensor] = []
    for part in rows:
        if count_tokens(found) >= wanted:
            break
        found.append(part)
    return found
