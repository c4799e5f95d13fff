"""Numbers in float64, on devices that have none as well: there the processor computes with them."""

from __future__ import annotations

import torch

from .accelerator import has_float64


def double(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64: on its own device, or on the processor where the device has no such numbers."""
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()


def total(tensor: torch.Tensor) -> float:
    """The sum of all numbers, added up in float64. Where the device has none, each row is added up in the
    tensor's own format first, which little is lost by, and brings little to the processor."""
    if has_float64(tensor.device):
        return float(tensor.sum(dtype=torch.float64))
    rows = tensor.float().sum(dim=-1) if tensor.dim() else tensor
    return float(rows.cpu().sum(dtype=torch.float64))
