"""How fast a model would be with less in it: a model of that shape is made with weights of no meaning, and
takes turns with the dense one. How long a product takes does not depend on what the weights are."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import nn
from transformers import PreTrainedModel

from ..budget.aims import DOES, READING
from ..budget.pruning_budget import PruningBudget
from ..core.errors import UserError
from ..core.events import Event
from ..core.units import BLOCKS, Units
from ..inspection.latency import WARM_UP, Spread, speed_ratios
from ..structure.families import skeleton, tables_of
from ..structure.shape import Shape
from ..structure.surgery import reshape
from .context import Context
from .state import RunState

# A prompt that is read, tokens that are written, how often both models do so, and how often at the most where
# the rounds disagree.
PROMPT_TOKENS, NEW_TOKENS, ROUNDS, MOST_ROUNDS = 64, 16, 7, 21
# Of one token after another, beside many at once.
DECODING = 30
# Of a value that stands for every weight: no zero, and nothing that overflows.
WEIGHT = 0.01
# Of what is to be gained: how far apart the middle half of the rounds may be.
STEADY = 0.5


def timing_work(context: Context) -> float:
    """Work of one comparison with the dense model, in token-blocks."""
    each = PROMPT_TOKENS + NEW_TOKENS * DECODING
    return (ROUNDS + WARM_UP) * each * (context.depth(0) + context.depth(context.planned))


def speed_with(
    state: RunState, budget: PruningBudget, what: str, times: float
) -> Generator[Event, None, Spread]:
    """How many times as fast a model would be with what a budget removes.

    Args:
        what: `READING` or `WRITING`.
        times: how fast it should be, which says how exact this has to be.

    Raises:
        UserError: the machine cannot measure it steadily.
    """
    model = model_of_shape(state, budget)
    rounds, work = ROUNDS, timing_work(state)
    while True:
        steps = speed_ratios(
            state.loaded.model, model, min(PROMPT_TOKENS, state.loaded.context // 2), NEW_TOKENS, rounds
        )
        reading, writing = yield from state.follow(steps, "timing", rounds + WARM_UP, work)
        found = reading if what == READING else writing
        if found.high - found.low <= STEADY * (times - 1):
            return found
        if rounds == MOST_ROUNDS:
            raise UserError(
                f"This machine cannot measure now how fast a model {DOES[what]}: in the middle half of "
                f"{rounds} rounds a smaller one was {found.low:.2f} to {found.high:.2f} times as fast, and "
                f"{times:g} times is asked for. Try it again when less else is running, or state a share of "
                "the parameters (target) instead.",
                "target_speedup",
            )
        rounds = MOST_ROUNDS


def model_of_shape(state: RunState, budget: PruningBudget) -> PreTrainedModel:
    """A model of the shape that a budget leads to, on the dense model's device and in its format. Which units
    are gone makes no difference; the last are."""
    anatomy, dense = state.anatomy, state.loaded.model
    model = skeleton(state.loaded.config).eval()
    whole = Shape.dense(anatomy)
    first, then = budget.phases or (budget, budget)
    gone = [Units(BLOCKS, b, (0,)) for b in whole.blocks[len(whole.blocks) - first.depth_units :]]
    left = whole.without(gone)
    gone = [
        Units(kind, layer.block, layer.kept[kind][-count:])
        for layer in left.layers
        for kind, count in then.width_units.items()
        if kind in layer.kept
    ]
    reshape(model, anatomy, whole, left.without(gone))
    rows = anatomy.vocabulary - budget.tokens
    known: dict[int, tuple[torch.Tensor, nn.Parameter]] = {}
    tables = {id(table) for table in tables_of(model)}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in known:  # a tied weight stays one
                shape = (rows, *weight.shape[1:]) if id(module) in tables else weight.shape
                made = torch.full(shape, WEIGHT, dtype=dense.dtype, device=dense.device)
                known[id(weight)] = weight, nn.Parameter(made, requires_grad=False)
            module._parameters[name] = known[id(weight)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                value = WEIGHT if buffer.is_floating_point() else int(buffer.dtype == torch.bool)
                module._buffers[name] = torch.full_like(buffer, value, device=dense.device)
    return model
