"""Estimates before a run: what a recipe removes, the memory it needs, and roughly how long it takes here.

Works from the model's config alone; no weights are downloaded or made. The time is that of matrix
products of the model's own shapes, timed on this machine for a fraction of a second; the memory is counted
from the same shapes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import psutil
import torch
from torch import nn

from ..budget.budget import budget_for
from ..checkpoints.load import config_of
from ..checkpoints.reference import cached_by_checkpoint
from ..core.device import device, fast_bfloat16
from ..core.errors import UserError
from ..core.recipe import AUTO, EVERY, Recipe
from ..core.units import BLOCKS, CHANNELS
from ..engine.refitting import (
    LEAST,
    PASSES,
    least_tokens,
    look_memory,
    look_tokens,
    refit_memory,
    usual_tokens,
)
from ..engine.schedule import looking_work, looks_ahead, scoring_work, token_work
from ..evaluation.evaluator import BATCH_TOKENS
from ..evaluation.tasks import load_task
from ..scoring import get_scorer
from ..structure.anatomy import Anatomy, anatomy_of
from ..structure.families import blocks_of, skeleton
from ..structure.shape import Shape
from ..structure.sites import sites_of

# Everything that is not a matrix product (attention, norms, loss, Python), as a share of those;
# measured on SmolLM2-135M in bfloat16 with 128-token windows.
OVERHEAD = 0.9
CHARACTERS_PER_TOKEN = 4.3
LOAD_AND_EXPORT_SECONDS = 20.0
PROBE_TOKENS = 160
# For each distinct matrix shape; a model has half a dozen.
PROBE_SECONDS = 0.15
# What Python and the libraries take by themselves, measured.
FOOTPRINT_BYTES = 435e6
# A perturbed view has about so many more tokens than the clean one.
LONGER = 1.15


@dataclass(frozen=True)
class Plan:
    """What a recipe will do.

    Attributes:
        goal: what will go, in words; `share` of all parameters.
        uneven: why the result needs this project's loader; empty for an ordinary checkpoint.
        seconds: for the whole run on this machine, roughly.
        memory: bytes the run needs at its peak, roughly; `available` are free now.
    """

    anatomy: Anatomy
    goal: str
    share: float
    iterations: int
    uneven: str
    seconds: float
    memory: float
    available: int


@cached_by_checkpoint(maxsize=32)
def anatomy_for(reference: str) -> Anatomy:
    """The anatomy of a model reference.

    Raises:
        UserError: as `load.config_of` and `anatomy.anatomy_of`.
    """
    return anatomy_of(config_of(reference))


def resolve_auto_units(recipe: Recipe, given: Mapping = MappingProxyType({})) -> Recipe:
    """A recipe whose usual units its model or method cannot lose, or not as far as its target, with the
    first that can go instead: whole blocks, or channels. Units that are not the usual ones stay.

    Args:
        given: settings that somebody chose; units among them stay too, unless they are `auto`.

    Raises:
        UserError: as `anatomy_for`, or an unknown method.
    """
    anatomy, scorer = anatomy_for(recipe.model), get_scorer(recipe.method)
    ways = [recipe]
    if "units" in recipe.automatic() and tuple(given.get("units", (AUTO,))) == (AUTO,):
        ways += [replace(recipe, units=units) for units in ((BLOCKS,), (CHANNELS,))]
    for way in ways:
        try:
            budget_for(way, anatomy, scorer)
        except UserError:
            continue
        return way
    # None can: what is wrong with the recipe as it is, is what should be told.
    return recipe


def make_plan(recipe: Recipe) -> Plan:
    """Plan a recipe.

    Raises:
        UserError: a model that cannot be pruned, or a target that cannot be met.
    """
    anatomy = anatomy_for(recipe.model)
    scorer = get_scorer(recipe.method)
    goal = budget_for(recipe, anatomy, scorer)
    per_token = seconds_per_token(recipe.model, recipe.dtype)
    sites = len(sites_of(anatomy, Shape.dense(anatomy), recipe.units))
    scoring = scoring_work(recipe, scorer, 1, sites)
    measuring = recipe.perplexity_windows * recipe.perplexity_tokens + sum(
        _task_tokens(name, recipe.items) for name in recipe.tasks
    )
    whole = goal.of_blocks(anatomy)
    read, looked = 0, 0
    if recipe.refit:
        least, _ = _refit_sizes(recipe.model)
        read = usual_tokens(recipe, least)
        looked = look_tokens(read, least)
    scoring += looking_work(recipe, scorer, 1, looked)
    seconds, ends = measuring * per_token, recipe.refit or bool(goal.tokens)
    for done in range(goal.iterations):
        left = 1 - whole * done / goal.iterations
        scored = scoring * left if done >= goal.asked else 0
        measured = recipe.measure == EVERY or (done == goal.iterations - 1 and not ends)
        seconds += (scored + measured * measuring * (left - whole / goal.iterations)) * per_token
    needs = memory_for(recipe, int(recipe.window_tokens * LONGER))
    ending = measuring * ends + read * PASSES
    if goal.tokens:
        ending += token_work(recipe, scorer, 1)
    seconds += ending * (1 - whole) * per_token
    return Plan(
        anatomy,
        goal.words,
        goal.share,
        goal.iterations,
        goal.uneven,
        seconds + LOAD_AND_EXPORT_SECONDS,
        max(needs.values()),
        available_memory(),
    )


def available_memory() -> int:
    """Bytes free for a model on the device that would compute."""
    if device().type == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


@lru_cache(maxsize=64)
def _task_tokens(name: str, items: int) -> float:
    return load_task(name, items).characters / CHARACTERS_PER_TOKEN


@cached_by_checkpoint(maxsize=32)
def number_format(reference: str, dtype: str) -> torch.dtype:
    """The format a model would be computed in, see `load.load`."""
    stored = config_of(reference).dtype or torch.float32
    fast = dtype == "bfloat16" or (dtype == "auto" and stored == torch.bfloat16 and fast_bfloat16())
    return torch.bfloat16 if fast else torch.float32


def memory_for(recipe: Recipe, tokens: int) -> Mapping[str, float]:
    """Bytes each stage of a recipe needs at its peak, see `memory_of`; with a refit, that of both models."""
    found = dict(memory_of(recipe.model, recipe.dtype, tokens))
    if recipe.vocabulary:
        # A gradient for every word and row, of both views; at most as many words as tokens.
        found["scoring"] += 2 * 4 * tokens * anatomy_for(recipe.model).vocabulary
    if recipe.refit:
        least, width = _refit_sizes(recipe.model)
        read, number = usual_tokens(recipe, least), number_format(recipe.model, recipe.dtype)
        sizes, inputs = (found["weights"], number.itemsize), least // LEAST
        found["refit"] = FOOTPRINT_BYTES + refit_memory(*sizes, read, width, inputs)
        if looks_ahead(recipe, get_scorer(recipe.method)):
            given = len(anatomy_for(recipe.model).blocks) * inputs * width * number.itemsize
            looked = look_memory(*sizes, look_tokens(read, least), width, inputs)
            found["looking"] = FOOTPRINT_BYTES + given + looked
            found["scoring"] += given
    return found


@cached_by_checkpoint(maxsize=32)
def _refit_sizes(reference: str) -> tuple[int, int]:
    """The least tokens that a refit of the model reads, and the width of its residual stream."""
    model = skeleton(config_of(reference))
    return least_tokens(model, anatomy_for(reference)), model.config.hidden_size


@cached_by_checkpoint(maxsize=32)
def memory_of(reference: str, dtype: str, tokens: int) -> Mapping[str, float]:
    """Bytes that scoring and evaluation need at their peak, libraries included, counted from shapes.

    Scoring is `pip-gate` on one view of `tokens` tokens, the most of the methods shipped: the
    weights, what every matrix reads and writes, and the logits with their gradient.
    """
    config, number = config_of(reference), number_format(reference, dtype)
    model = skeleton(config)
    parameters = sum(p.numel() for p in model.parameters())
    moved = [_moved(block, config.hidden_size) for block in blocks_of(model)]
    words = config.vocab_size
    weights = FOOTPRINT_BYTES + parameters * number.itemsize
    return {
        "weights": parameters * number.itemsize,
        "scoring": weights + tokens * number.itemsize * (sum(moved) + 2 * words),
        "evaluation": weights + BATCH_TOKENS * (number.itemsize * (max(moved) + words) + 4 * words / 8),
    }


def _moved(block: nn.Module, width: int) -> int:
    """Numbers a token leaves behind in a block: what its matrices read and write, and its norms."""
    return 6 * width + sum(sum(p.shape) for p in block.parameters() if p.dim() == 2)


@cached_by_checkpoint(maxsize=32)
def seconds_per_token(reference: str, dtype: str) -> float:
    """Seconds a forward pass takes for one token: every distinct matrix shape is timed once."""
    config, number = config_of(reference), number_format(reference, dtype)
    counts: dict[torch.Size, int] = {}
    model = skeleton(config)
    for weight in blocks_of(model).parameters():
        if weight.dim() == 2:
            counts[weight.shape] = counts.get(weight.shape, 0) + 1
        elif weight.dim() == 3:
            # Of a mixture's experts a token passes through a few.
            used = getattr(config, "num_experts_per_tok", weight.shape[0])
            counts[weight.shape[1:]] = counts.get(weight.shape[1:], 0) + used
    head = model.get_output_embeddings()
    if head is not None:
        counts[head.weight.shape] = counts.get(head.weight.shape, 0) + 1
    total = 0.0
    with torch.inference_mode():
        for shape, count in counts.items():
            # A giant matrix is timed on a slice of it.
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
