"""SLEB: the loss of the model without a block, tried out for every block.

Source: Song et al., ICML 2024, arXiv 2402.09025. The remaining model is measured again after every
removal, so a removal costs a pass for each block. The blocks before the missing one compute the same
as in the whole model, so this is done once per text and their outputs are reused: half the work, the
same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import BLOCKS
from ..data.feeding import ScoringPass
from ..structure.families import blocks_of
from ..structure.hooks import Args, Hooks, Kwargs, blocks_answering, hidden_states, with_first
from ..structure.sites import Site
from .base import Batch, Scorer, Scores, loss_of


class Sleb(Scorer):
    """`mean over texts of the loss of the model without this block`, in nats."""

    name = "sleb"
    title = "SLEB"
    paper = "Song et al., ICML 2024, arXiv 2402.09025"
    summary = (
        "Leaves out each block in turn and measures the loss; the block whose absence raises it least is "
        "removed, and all others are tried again. Thorough, and slow: a pass for every block and removal."
    )
    kinds = (BLOCKS,)

    def cost(self, sites: int) -> float:
        # The whole model once, then for each block what comes after it.
        return 1 + sites / 2

    def begin(
        self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]
    ) -> ScoringPass[Scores]:
        return _Pass(model, blocks, sites)


class _Pass:
    sums: ClassVar[tuple[str, ...]] = ("totals", "texts")

    def __init__(self, model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Site]) -> None:
        self.model, self.blocks, self.sites = model, blocks, sites
        self.totals = torch.zeros(len(sites), dtype=torch.float64)
        self.texts = 0

    def add(self, batch: Batch) -> Iterator[None]:
        stack = blocks_of(self.model)
        for pair in batch:
            inputs, outputs = self._record(pair.clean.ids)
            for index, site in enumerate(self.sites):
                answers = dict(enumerate(outputs[: site.position]))
                answers[site.position] = with_first(outputs[site.position], inputs[site.position])
                with blocks_answering(stack, answers):
                    self.totals[index] += loss_of(self.model, pair.clean.ids)
                yield
            self.texts += 1

    def scores(self) -> Scores:
        return list((self.totals / self.texts).float().split(1))

    def _record(self, ids: torch.Tensor) -> tuple[list[torch.Tensor], list[object]]:
        """The inputs and the outputs of every block in one pass over a text."""
        inputs: list[torch.Tensor] = []
        outputs: list[object] = []

        def on_block(args: Args, kwargs: Kwargs, output: object) -> None:
            inputs.append(hidden_states(args, kwargs))
            outputs.append(output)

        with Hooks() as hooks:
            for block in self.blocks:
                hooks.after(block, on_block)
            loss_of(self.model, ids)
        return inputs, outputs
