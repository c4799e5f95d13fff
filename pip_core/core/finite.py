"""Checks that numbers are finite, and JSON that holds no NaN or infinity."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from .errors import UserError

# Numbers that are looked at together.
NUMBERS = 2**20


class NotFinite(UserError):
    """A result is NaN or infinity."""


def check_finite(values: torch.Tensor, name: str) -> None:
    """Refuse NaN and infinity.

    Args:
        values: any shape and number format.
        name: what the values are, in the plural, as the sentence names them ("the model's logits").

    Raises:
        NotFinite: a value is.
    """
    if not bool(values.isfinite().all()):
        raise NotFinite(
            f"Not finite numbers (NaN or infinity): {name}. The model is damaged, or its numbers overflow: "
            "choose the number format float32, or remove less."
        )


def nonfinite_weight(model: nn.Module) -> str:
    """Name of the first parameter that holds NaN or infinity; empty where all are finite.

    Parameters without data (on the meta device) are passed over.
    """
    for name, weight in model.named_parameters():
        if weight.is_meta:
            continue
        if not all(map(_all_finite, weight.detach().reshape(-1).split(NUMBERS))):
            return name
    return ""


def _all_finite(values: torch.Tensor) -> bool:
    """A sum is finite only if every term is, and needs no memory; where it overflows, the terms decide."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def to_json(value: Any, **options: Any) -> str:
    """`value` as JSON that every reader accepts (`json.dumps` also writes NaN, which is no JSON).

    Args:
        options: handed to `json.dumps`.

    Raises:
        UserError: a number is not finite.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError as error:
        if "JSON compliant" not in str(error):
            raise
        raise UserError(
            "A result is not a finite number (NaN or infinity) and cannot be written down. Choose the number "
            "format float32, or remove less."
        ) from None
