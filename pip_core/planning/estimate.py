"""Before a run: what a recipe will remove, what it needs, and roughly how long it takes here.

Works from the model's config alone; no weights are downloaded or made. What there is to do and what it needs
are the stages' own estimates, as the clock of a run has them; the speed is that of the model's own matrix
shapes, multiplied here and now for a fraction of a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

import torch

from ..budget.budget import budget_for, joining
from ..checkpoints.load import config_of
from ..checkpoints.reference import cached_by_checkpoint
from ..core import lent_gpu
from ..core.accelerator import device, free_bytes
from ..core.errors import UserError
from ..core.recipe import Recipe
from ..core.settings import AUTO, MEASURED
from ..core.units import BLOCKS, CHANNELS
from ..engine.aim import aimed
from ..engine.context import Context
from ..engine.sizes import number_format
from ..engine.stage import Cost
from ..engine.stages import stages_for
from ..scoring import get_scorer
from ..structure.anatomy import Anatomy, anatomy_of
from ..structure.families import blocks_of, skeleton

# Everything that is not a matrix product (attention, norms, Python), as that many softmaxes over a hidden
# state in every block: 20 to 33 in SmolLM2-135M and the demo model, in float32 and bfloat16, on one thread.
SOFTMAXES = 30
PROBE_TOKENS = 160
# Of a model that is streamed: bytes read from disk in a second, of a usual one, and its work as a multiple of
# that of a model in memory.
READ_SPEED, RECOMPUTED = 1e9, 1.25
# Of the vocabulary, where the division is measured and the tokens that must stay are not known yet.
MOST = 0.999
# For each distinct matrix shape (a model has half a dozen) and the softmax: processor time, fewest times, and
# most weights.
PROBE_SECONDS, PROBE_TIMES, PROBE_WEIGHTS = 0.06, 5, 4_000_000


@dataclass(frozen=True)
class Plan:
    """What a recipe will do.

    Attributes:
        goal: what will be removed, in words; `share` of all parameters.
        uneven: why the result needs this project's loader; empty for an ordinary checkpoint.
        stages: titles of the stages that change the model after the last removal.
        seconds: for the whole run on this machine, roughly.
        memory: bytes the run needs at its peak, roughly; `available` are free now.
        alone: what would go to meet the target by one kind of units or by tokens alone, of those that the
            run weighs against each other; none where it weighs nothing.
        joining: kinds of units that may join where they are measured to cost less.
        placement: where the model's weights are meanwhile, see `core.recipe`.
        resident_blocks: how many blocks stay where they are computed with.
    """

    anatomy: Anatomy
    goal: str
    share: float
    iterations: int
    uneven: str
    stages: tuple[str, ...]
    alone: tuple[str, ...]
    joining: tuple[str, ...]
    seconds: float
    memory: float
    available: int
    placement: str
    resident_blocks: int


@cached_by_checkpoint(maxsize=32)
def anatomy_for(reference: str) -> Anatomy:
    """The anatomy of a model reference, as its config stands now.

    Raises:
        UserError: as `checkpoints.load.config_of` and `structure.anatomy.anatomy_of`.
    """
    return anatomy_of(config_of(reference))


def resolve_auto_units(recipe: Recipe, given: Mapping = MappingProxyType({})) -> Recipe:
    """A recipe whose usual units its model or method cannot lose, or not as far as its target, with the
    first that can be removed instead: whole blocks, or channels. Units that are not the usual ones stay. A
    target in bytes is put as the share that it is.

    Args:
        given: settings that somebody chose; units among them stay too, unless they are `auto`.

    Raises:
        UserError: as `anatomy_for`, or an unknown method.
    """
    recipe = aimed(recipe)
    anatomy, scorer = anatomy_for(recipe.model), get_scorer(recipe.method)
    ways = [recipe]
    if "units" in recipe.automatic() and tuple(given.get("units", (AUTO,))) == (AUTO,):
        ways += [recipe.replace(units=units) for units in ((BLOCKS,), (CHANNELS,))]
    for way in ways:
        try:
            budget_for(way, anatomy, scorer)
        except UserError:
            continue
        return way
    # None can: what is wrong with the recipe as it is, is what should be said.
    return recipe


def make_plan(recipe: Recipe) -> Plan:
    """Plan a recipe.

    Raises:
        UserError: a model that cannot be pruned, or a target that cannot be met.
    """
    recipe = aimed(recipe)
    return plan_of(Context(recipe, stages_for(recipe), anatomy=anatomy_for(recipe.model)))


def plan_of(context: Context) -> Plan:
    """Plan a run of which nothing is done yet.

    Raises:
        UserError: as `make_plan`.
    """
    recipe, budget, cost = context.recipe, context.budget, total_cost(context)
    blocks = len(context.anatomy.blocks)
    per_block = seconds_per_token(recipe.model, recipe.dtype) / blocks
    if read := blocks - context.resident_blocks:
        # Such a block is read for every window, and computed once more for a backward pass.
        reading = context.sizes.weights / blocks / (recipe.window_tokens * READ_SPEED)
        per_block += read / blocks * (per_block * (RECOMPUTED - 1) + reading)
    return Plan(
        context.anatomy,
        budget.description,
        budget.share,
        budget.iterations,
        budget.uneven,
        tuple(stage.title for stage in context.stages if stage.changes_model),
        tuple(_alone(context)),
        _joining(context),
        cost.seconds + sum(cost.work.values()) * per_block,
        max(cost.memory.values()),
        available_memory(),
        context.placement,
        context.resident_blocks,
    )


def _alone(context: Context) -> Iterator[str]:
    """What each of the kinds that are weighed would give for the target, where it can meet it."""
    if context.recipe.vocabulary != MEASURED:
        return
    kinds = [*context.recipe.units, *_joining(context)]
    ways: list[dict[str, object]] = [{"units": (kind,), "vocabulary": 0.0} for kind in kinds]
    if context.scorer.scores_tokens:
        ways.insert(0, {"vocabulary": 1.0, "vocabulary_limit": MOST})
    for way in ways:
        with suppress(UserError):
            yield context.budget_by(way).description


def _joining(context: Context) -> tuple[str, ...]:
    """Kinds that the recipe does not name and weighs nevertheless."""
    if context.recipe.vocabulary != MEASURED:
        return ()
    return joining(context.recipe, context.anatomy, context.scorer)


def total_cost(context: Context) -> Cost:
    """What all stages of a run take together."""
    return sum((stage.estimate(context) for stage in context.stages), Cost())


def memory_for(recipe: Recipe) -> Mapping[str, float]:
    """Bytes at the peak, by what needs them ("weights", "scoring", ...), of every stage of a recipe.

    Raises:
        UserError: as `make_plan`.
    """
    context = Context(recipe, stages_for(recipe), anatomy=anatomy_for(recipe.model))
    return total_cost(context).memory


def available_memory() -> int:
    """Bytes free for a model on the device that would compute."""
    return int(free_bytes(device()))


@cached_by_checkpoint(maxsize=32)
def seconds_per_token(reference: str, dtype: str) -> float:
    """Seconds a forward pass takes for one token: every distinct matrix shape is timed once, where the device
    that will compute is this process's."""
    config = config_of(reference)
    number = number_format(config, dtype)
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
    if lent_gpu.elsewhere():  # nothing can be timed here
        products = sum(count * math.prod(shape) for shape, count in counts.items())
        return lent_gpu.seconds_per_token(products, len(blocks_of(model)))
    seconds = sum(count * _product_seconds(shape, number) for shape, count in counts.items())
    width = model.config.hidden_size
    x = torch.full((PROBE_TOKENS, width), 0.01, dtype=number, device=device())
    seconds += len(blocks_of(model)) * SOFTMAXES * _best_seconds(lambda: x.softmax(-1))
    return seconds / PROBE_TOKENS


def _product_seconds(shape: torch.Size, number: torch.dtype) -> float:
    """Seconds that `PROBE_TOKENS` rows take through a matrix."""
    # A giant matrix is timed on a slice of it.
    rows = min(shape[0], max(1, PROBE_WEIGHTS // shape[1]))
    weight = torch.full((rows, shape[1]), 0.01, dtype=number, device=device())
    x = torch.full((PROBE_TOKENS, shape[1]), 0.01, dtype=number, device=device())
    return _best_seconds(lambda: x @ weight.T) * shape[0] / rows


@torch.inference_mode()
def _best_seconds(compute: Callable[[], torch.Tensor]) -> float:
    """Seconds that something takes, the best of many times: what another program takes meanwhile is not the
    model's cost."""
    # On a processor by this thread's own time, which stands still while another program runs in its place.
    clock = time.thread_time if device().type == "cpu" else time.perf_counter
    compute()[0, 0].item()  # the first time it is made ready
    best, done, until = math.inf, 0, clock() + PROBE_SECONDS
    while done < PROBE_TIMES or clock() < until:
        started = clock()
        compute()[0, 0].item()  # is waited for
        best, done = min(best, clock() - started), done + 1
    return best
