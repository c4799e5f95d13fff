"""Proof that surgery changed no weight that stays: checksums of the kept slices, before and after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from ..core.errors import UserError
from .families import tables_of

# Integers of the width of a number, to read its bits.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def kept_sums(model: PreTrainedModel, kept: torch.Tensor | None = None) -> dict[str, int]:
    """Checksum of every weight of `model`, by name; of the tables of tokens only the rows `kept`.

    Tables that are one weight under two names appear under both, so a checksum tells whether one was put in
    the place of the other. The weights are not copied.

    Args:
        kept: rows of the tables, int64 `(K,)`; by default all.
    """
    tables = {id(p) for table in tables_of(model) for p in table.parameters()}
    return {
        name: _checksum(weight, kept if id(weight) in tables else None)
        for name, weight in model.named_parameters(remove_duplicate=False)
    }


def check_kept(model: PreTrainedModel, before: Mapping[str, int]) -> None:
    """Compare every weight of `model` with what it was before surgery.

    Args:
        before: checksums of the slices that were to be kept, from `kept_sums`.

    Raises:
        UserError: a weight that was not chosen has changed, or is gone.
    """
    after = kept_sums(model)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            raise UserError(
                f"Cutting this model ({model.config.model_type}) changed a weight that was to stay as it is "
                f"({name}); nothing was written. Please report it."
            )


def _checksum(weight: torch.Tensor, rows: torch.Tensor | None) -> int:
    """A sum over the bits of all numbers that depends on their row; 64 bits, wrapping around."""
    bits = weight.detach().contiguous().view(BITS[weight.element_size()])
    sums = bits.flatten(1).sum(1, dtype=torch.int64) if bits.dim() > 1 else bits.to(torch.int64)
    if rows is not None:
        sums = sums[rows.to(sums.device)]
    places = torch.arange(1, len(sums) + 1, device=sums.device)
    return int((sums * places).sum())
