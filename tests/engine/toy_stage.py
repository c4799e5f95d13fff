"""A stage of our own, as a plugin would bring it: it scales the last norm of what is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from pip_core.core.events import Event, StageResult, event
from pip_core.core.settings import Settings, setting
from pip_core.engine.context import Context
from pip_core.engine.stage import Cost, Stage
from pip_core.engine.state import RunState
from pip_core.reporting.description import Description

# While this file is missing, a stage told of it does not end; so a test can kill it on the way.
WAIT_FOR = "TOY_WAITS_FOR"
STEPS = 4


class ToySettings(Settings):
    """How much is scaled."""

    toy_factor: float = setting(1.0, "factor of the last norm, 1 for none", "a number above 0", gt=0)


@event
class Scaled(StageResult):
    """The last norm was scaled."""

    factor: float

    def sentence(self) -> str:
        return f"The last norm was scaled by {self.factor:g}."


class Toy(Stage):
    """Scale the last norm."""

    name = "toy"
    title = "Toy scaling"
    Settings = ToySettings
    Result = Scaled
    after = "refit"
    changes_model = True

    @property
    def enabled(self) -> bool:
        return self.recipe.toy_factor != 1.0

    def estimate(self, context: Context) -> Cost:
        return Cost({"toying": 1000.0 * context.finishing}, memory={"toying": 1.0})

    def run(self, state: RunState) -> Iterator[Event]:
        yield from state.follow(self._scale(state), "toying", STEPS, 1000.0)
        state.changed = True
        yield Scaled(len(state.removals), self.recipe.toy_factor)

    def _scale(self, state: RunState) -> Iterator[int]:
        waited = os.environ.get(WAIT_FOR)
        while waited and not Path(waited).exists():
            yield 0
        with torch.no_grad():
            state.loaded.model.base_model.norm.weight.mul_(self.recipe.toy_factor)
        yield from range(1, STEPS + 1)

    @classmethod
    def describe(cls, result: Event) -> Description:
        return Description(
            result.sentence(),
            "last norm scaled",
            (f"Toy: {result.sentence()}",),
            "The last norm was scaled",
            (("factors", (f"{result.factor:g}",)),),
            "A norm that is scaled makes all logits larger.",
        )
