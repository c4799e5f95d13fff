"""SLEB: the loss of the model without a block, tried out for every block.

Source: Song et al., ICML 2024, arXiv 2402.09025. The model that is left is measured again after
every removal, so a removal costs a pass for each block. What comes before the missing block is the
same as in the whole model, so it is computed once and handed in: half the work, the same numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from ..core.units import BLOCKS
from ..data.perturbation import Pair
from ..structure.sites import Site
from .base import Scorer, Scores, loss_of


class Sleb(Scorer):
    """`mean over texts of the loss of the model without this block`, in nats."""

    name = "sleb"
    title = "SLEB"
    paper = "Song et al., ICML 2024, arXiv 2402.09025"
    summary = (
        "Leaves out each block in turn and measures the loss; the block whose absence hurts least goes, "
        "and all others are tried again. Thorough, and slow: a pass for every block and removal."
    )
    kinds = (BLOCKS,)

    def cost(self, sites: int) -> float:
        # The whole model once, then for each block what comes after it.
        return 1 + sites / 2

    def score(
        self,
        model: PreTrainedModel,
        blocks: Sequence[nn.Module],
        sites: Sequence[Site],
        pairs: Sequence[Pair],
    ) -> Generator[int, None, Scores]:
        totals = torch.zeros(len(sites), dtype=torch.float64)
        for done, pair in enumerate(pairs):
            inputs, outputs = _record(model, blocks, pair.clean.ids)
            for index, site in enumerate(sites):
                with _without(blocks, site.position, inputs, outputs):
                    totals[index] += loss_of(model, pair.clean.ids)
                yield done
            yield done + 1
        return list((totals / len(pairs)).float().split(1))


def _record(model: PreTrainedModel, blocks: Sequence[nn.Module], ids: torch.Tensor) -> tuple[list, list]:
    """What every block is given and what it answers, in one pass over a text."""
    inputs, outputs = [], []

    def keep(block: nn.Module, args: tuple, kwargs: dict, output) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])
        outputs.append(output)

    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(keep, with_kwargs=True).remove)
        loss_of(model, ids)
    return inputs, outputs


@contextlib.contextmanager
def _without(blocks: Sequence[nn.Module], position: int, inputs: list, outputs: list) -> Iterator[None]:
    """Make the block at `position` hand on its input, and those before it answer as recorded."""

    def answer(said, *args, **kwargs):
        return said

    found, recorded = inputs[position], outputs[position]
    handed_on = (found, *recorded[1:]) if isinstance(recorded, tuple) else found
    for block, said in zip(blocks, (*outputs[:position], handed_on), strict=False):
        block.forward = partial(answer, said)
    try:
        yield
    finally:
        for block in blocks[: position + 1]:
            del block.forward
