"""Sizes of a model, from its config alone: what its weights and its activations take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from ..checkpoints.load import config_of
from ..checkpoints.reference import cached_by_checkpoint
from ..checkpoints.tokenizer_size import tokenizer_bytes
from ..core.device import fast_bfloat16
from ..core.recipe import RESIDENT
from ..reconstruction.refit import widest
from ..structure.anatomy import anatomy_of
from ..structure.families import blocks_of, skeleton

# What Python and the libraries take by themselves, measured.
FOOTPRINT_BYTES = 435e6
# What a tokenizer takes in memory for each byte of its file while it is read, measured: 5.3 GB for 290 MB.
TOKENIZER_FACTOR = 18


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a dense model.

    Attributes:
        number: the format it is computed in.
        weights: bytes of its weights; `held` of them are in memory at a time.
        block_activations: numbers a token leaves behind in each block: what its matrices read and write, and
            its norms.
        vocabulary: rows of the vocabulary.
        width: of the residual stream.
        widest_inputs: inputs of the widest projection that a refit may solve; 0 where there is none.
        streamed: bytes of the weights in memory where blocks are read when they are used: one block, and what
            is outside the blocks.
        block: bytes of the largest block; of a dispatched model `resident_blocks` stay in memory.
        expert_weights: whether the experts of a mixture are one weight.
        placement: where the weights are.
        tokenizer: bytes of the file that its tokenizer is read from.
    """

    number: torch.dtype
    weights: int
    block_activations: tuple[int, ...]
    vocabulary: int
    width: int
    widest_inputs: int
    streamed: int = 0
    expert_weights: bool = False
    placement: str = RESIDENT
    tokenizer: int = 0
    block: int = 0
    resident_blocks: int = 0

    @property
    def held(self) -> int:
        if self.placement == RESIDENT:
            return self.weights
        return min(self.weights + self.block, self.streamed + self.resident_blocks * self.block)

    @property
    def kept_activations(self) -> int:
        """Numbers a token leaves behind for a backward pass. Of blocks that are read when they are used these
        are what enters each, and one block's."""
        if self.placement == RESIDENT:
            return sum(self.block_activations)
        kept, read = (
            sorted(self.block_activations)[-self.resident_blocks :] if self.resident_blocks else [],
            len(self.block_activations) - self.resident_blocks,
        )
        return sum(kept) + (max(self.block_activations) + 2 * read * self.width if read else 0)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.number.itemsize

    @property
    def resident(self) -> float:
        """Bytes of the weights in memory, of the tokenizer and of the libraries."""
        return FOOTPRINT_BYTES + self.held + TOKENIZER_FACTOR * self.tokenizer


def number_format(config: PreTrainedConfig, dtype: str) -> torch.dtype:
    """The format a model of this config is computed in, see `checkpoints.load`."""
    stored = config.dtype or torch.float32
    fast = dtype == "bfloat16" or (dtype == "auto" and stored == torch.bfloat16 and fast_bfloat16())
    return torch.bfloat16 if fast else torch.float32


@cached_by_checkpoint(maxsize=32)
def sizes_of(reference: str, dtype: str) -> ModelSizes:
    """Sizes of the model a reference names, as its config stands now.

    Raises:
        UserError: a model that cannot be pruned.
    """
    config = config_of(reference)
    number, model = number_format(config, dtype), skeleton(config)
    parameters = sum(p.numel() for p in model.parameters())
    width = model.config.hidden_size
    blocks = [sum(p.numel() for p in block.parameters()) for block in blocks_of(model)]
    return ModelSizes(
        number,
        parameters * number.itemsize,
        tuple(_activations(block, width) for block in blocks_of(model)),
        config.vocab_size,
        width,
        widest(model, anatomy_of(config)),
        (parameters - sum(blocks) + max(blocks)) * number.itemsize,
        any(p.dim() == 3 for p in blocks_of(model).parameters()),
        tokenizer=tokenizer_bytes(reference),
        block=max(blocks) * number.itemsize,
    )


def _activations(block: nn.Module, width: int) -> int:
    return 6 * width + sum(sum(p.shape) for p in block.parameters() if p.dim() == 2)
