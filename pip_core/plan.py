"""Before a run: what a recipe will remove, and roughly how long that takes on this machine.

Works from the model's config alone; no weights are downloaded or made. The time is that of the
model's own matrix shapes, multiplied here and now for a fraction of a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from .allocate import budget
from .checkpoint import config_of
from .families import blocks_of
from .machine import device, fast_bfloat16
from .recipe import Recipe
from .scorers import method
from .tasks import load_task

# Everything that is not a matrix product (attention, norms, loss, Python), as a share of those;
# measured on SmolLM2-135M in bfloat16 with 128-token windows.
OVERHEAD = 0.9
CHARACTERS_PER_TOKEN = 4.3
LOAD_AND_EXPORT_SECONDS = 20.0
PROBE_TOKENS = 160
# For each distinct matrix shape; a model has half a dozen.
PROBE_SECONDS = 0.15


@dataclass(frozen=True)
class Facts:
    """A model's shape, from its config: parameters in all and per block, number of blocks."""

    model_type: str
    blocks: int
    parameters: int
    block_parameters: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a recipe will do: blocks and share of parameters to go, and seconds, roughly."""

    facts: Facts
    count: int
    share: float
    seconds: float


@lru_cache(maxsize=32)
def facts_of(reference: str) -> Facts:
    """The shape of a model reference.

    Raises:
        UserError: as `checkpoint.config_of`.
    """
    skeleton = _skeleton(config_of(reference))
    blocks = blocks_of(skeleton)
    costs = tuple(sum(p.numel() for p in b.parameters()) for b in blocks)
    total = sum(p.numel() for p in skeleton.parameters())
    return Facts(skeleton.config.model_type, len(blocks), total, costs)


def make_plan(recipe: Recipe) -> Plan:
    """Plan a recipe.

    Raises:
        UserError: a model that cannot be pruned, or a target that cannot be met.
    """
    facts = facts_of(recipe.model)
    planned = budget(facts.block_parameters, facts.parameters, recipe.target)
    scorer = method(recipe.method)
    per_token = _seconds_per_token(recipe.model, recipe.dtype)
    scoring = recipe.windows * recipe.window_tokens * scorer.passes
    measuring = recipe.perplexity_windows * recipe.perplexity_tokens + sum(
        _task_tokens(name, recipe.items) for name in recipe.tasks
    )
    seconds = measuring * per_token
    for gone in range(planned.count):
        left = 1 - gone / facts.blocks
        seconds += (scoring * left + measuring * (left - 1 / facts.blocks)) * per_token
    return Plan(facts, planned.count, planned.share, seconds + LOAD_AND_EXPORT_SECONDS)


def _skeleton(config: PreTrainedConfig) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@lru_cache(maxsize=64)
def _task_tokens(name: str, items: int) -> float:
    return load_task(name, items).characters / CHARACTERS_PER_TOKEN


@lru_cache(maxsize=32)
def _seconds_per_token(reference: str, dtype: str) -> float:
    """Seconds a forward pass takes for one token: every distinct matrix shape is timed once."""
    config = config_of(reference)
    stored = config.dtype or torch.float32
    fast = dtype == "bfloat16" or (dtype == "auto" and stored == torch.bfloat16 and fast_bfloat16())
    number = torch.bfloat16 if fast else torch.float32
    counts: dict[torch.Size, int] = {}
    skeleton = _skeleton(config)
    for weight in blocks_of(skeleton).parameters():
        if weight.dim() == 2:
            counts[weight.shape] = counts.get(weight.shape, 0) + 1
    head = skeleton.get_output_embeddings()
    if head is not None:
        counts[head.weight.shape] = counts.get(head.weight.shape, 0) + 1
    total = 0.0
    with torch.inference_mode():
        for shape, count in counts.items():
            # A giant head is timed on a slice of it.
            rows = min(shape[0], 8192)
            weight = torch.full((rows, shape[1]), 0.01, dtype=number, device=device())
            x = torch.full((PROBE_TOKENS, shape[1]), 0.01, dtype=number, device=device())
            # The best of many: what another program takes meanwhile is not the model's cost.
            until, each = time.perf_counter() + PROBE_SECONDS, float("inf")
            while time.perf_counter() < until or each == float("inf"):
                each = min(each, _timed(x, weight))
            total += count * each * shape[0] / rows
    return total / PROBE_TOKENS * (1 + OVERHEAD)


def _timed(x: torch.Tensor, weight: torch.Tensor) -> float:
    started = time.perf_counter()
    float((x @ weight.T)[0, 0])
    return time.perf_counter() - started
