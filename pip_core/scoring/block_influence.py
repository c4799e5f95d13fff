"""Block influence: how far a block or half turns the residual stream.

Source: ShortGPT (Men et al., arXiv 2403.03853). A block that hands on nearly what it was given does
little. For halves the same is measured around the half.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..core.units import DEPTH
from ..data.perturbation import Pair
from ..structure.sites import Site
from .activation_hooks import capture_stream
from .base import AT_ONCE, Scorer, Scores


class BlockInfluence(Scorer):
    """`1 - mean over tokens of cos(h_in, h_out)`."""

    name = "block-influence"
    title = "Block influence (ShortGPT)"
    paper = "Men et al., arXiv 2403.03853"
    summary = (
        "Measures the angle between what enters a block and what leaves it, token by token. What turns "
        "the text's representation least goes first; one forward pass is all it takes."
    )
    kinds = DEPTH
    usual: ClassVar = {"step": AT_ONCE}

    def cost(self, sites: int) -> float:
        return 1.0

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        # A nearly straight block's score is a small difference of numbers near one: float64.
        turned = torch.zeros(len(sites), dtype=torch.float64)

        def see(index: int, before: torch.Tensor, after: torch.Tensor) -> None:
            turned[index] += float((1 - F.cosine_similarity(before.double(), after.double())).sum())

        for done, pair in enumerate(pairs, 1):
            capture_stream(model, blocks, sites, pair.clean.ids, see)
            yield done
        tokens = sum(len(pair.clean.ids) for pair in pairs)
        return list((turned / tokens).float().split(1))
