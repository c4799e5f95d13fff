"""Block influence: the angle by which a block or half turns the residual stream.

Source: ShortGPT (Men et al., arXiv 2403.03853). A block whose output is nearly its input does little.
For halves the same is measured around the half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..core.float64 import double
from ..core.units import DEPTH
from ..data.feeding import ScoringPass
from ..structure.sites import Site
from .activation_hooks import capture_stream
from .base import AT_ONCE, Batch, Scorer, Scores


class BlockInfluence(Scorer):
    """`1 - mean over tokens of cos(h_in, h_out)`."""

    name = "block-influence"
    title = "Block influence (ShortGPT)"
    paper = "Men et al., arXiv 2403.03853"
    summary = (
        "Measures the angle between a block's input and its output, token by token. The block that turns "
        "the text's representation least is removed first; one forward pass is all it takes."
    )
    kinds = DEPTH
    usual: ClassVar = {"step": AT_ONCE}

    def cost(self, sites: int) -> float:
        return 1.0

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("turned", "tokens")

    def __init__(self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]) -> None:
        self.model, self.blocks, self.sites = model, blocks, sites
        # A nearly straight block's score is a small difference of numbers near one: float64.
        self.turned = torch.zeros(len(sites), dtype=torch.float64)
        self.tokens = 0

    def add(self, batch: Batch) -> None:
        def on_activation(index: int, before: torch.Tensor, after: torch.Tensor) -> None:
            cosine = F.cosine_similarity(double(before), double(after))
            self.turned[index] += float((1 - cosine).sum())

        for pair in batch:
            capture_stream(self.model, self.blocks, self.sites, pair.clean.ids, on_activation)
            self.tokens += len(pair.clean.ids)

    def scores(self) -> Scores:
        return list((self.turned / self.tokens).float().split(1))
