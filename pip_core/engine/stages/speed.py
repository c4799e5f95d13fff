"""Speed: the exported model's speed and memory beside the dense model's, measured in turn at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ...checkpoints.load import load, load_folder
from ...core.accelerator import free_bytes
from ...core.device import is_out_of_memory, number_name
from ...core.errors import UserError
from ...core.events import Event
from ...core.figures import percent
from ...core.progress import drain, map_progress
from ...core.settings import AUTO, Settings, choice
from ...core.timed import Timed
from ...inspection.latency import WARM_UP, Spread, compare_latency
from ...reporting.description import Description
from ..context import Context
from ..stage import LITTLE, Cost, Stage
from ..state import RunState

OFF, ON = "off", "on"
# A prompt that is read, tokens that are written, and how often both models do so.
PROMPT_TOKENS, NEW_TOKENS, ROUNDS = 64, 16, 5
# Of one token after another, beside many at once.
DECODING = 30
# Of the weights of both models, what they take while they are loaded.
ROOM = 1.3


class SpeedSettings(Settings):
    """Whether speed is measured."""

    speed: Literal["auto", "on", "off"] = choice(
        AUTO,
        (AUTO, ON, OFF),
        "whether speed and memory of the exported model are measured beside the dense model's at the end; "
        f"auto does where that takes under {percent(LITTLE, 0)} of the run",
        "Speed and memory",
        "Measured at the end, beside the whole model; auto skips it where that takes long",
    )


class Speed(Stage):
    """Measure both models in turn."""

    name = "speed"
    title = "Speed"
    by_one_process = True
    Settings = SpeedSettings
    Result = Timed
    incidental = True

    @property
    def enabled(self) -> bool:
        return self.recipe.speed != OFF

    def estimate(self, context: Context) -> Cost:
        work = self._work(context) if context.exporting and self._worth(context) else 0.0
        return Cost({"timing": work})

    def _worth(self, context: Context) -> bool:
        return self.recipe.speed == ON or context.is_little(self._work(context))

    def _work(self, context: Context) -> float:
        each = PROMPT_TOKENS + NEW_TOKENS * DECODING
        return (ROUNDS + WARM_UP) * each * (context.depth(0) + context.depth(context.planned))

    def needed(self, state: RunState) -> bool:
        return state.out is not None and bool(state.removals) and self._worth(state)

    def run(self, state: RunState) -> Iterator[Event]:
        count, out = len(state.removals), str(state.out)
        needed = ROOM * state.sizes.weights * 2
        if free_bytes(state.loaded.model.device) < needed:
            reason = f"both models together need {needed / 1e9:.1f} GB of memory, and less is free."
            yield Timed(count, skipped=reason)
            return
        number = number_name(state.loaded.model.dtype)
        try:
            dense = load_folder(state.loaded.source, self.recipe.dtype, number)
            # As others will load it, and not as it was cut in memory.
            pruned = drain(load(out, self.recipe.dtype, number))
            rounds = compare_latency(dense, pruned, PROMPT_TOKENS, NEW_TOKENS, ROUNDS)
            steps = map_progress(rounds, lambda step: step.done)
            total = ROUNDS + WARM_UP
            found = yield from state.follow(steps, "timing", total, self._work(state))
        except UserError as error:
            yield Timed(count, skipped=str(error))
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            yield Timed(count, skipped="memory ran out.")
            return
        yield Timed(
            count,
            _figures(found.prefill_ratio),
            _figures(found.decode_ratio),
            found.dense.weights_memory,
            found.pruned.weights_memory,
            ROUNDS,
            found.device,
            found.threads,
        )

    @classmethod
    def describe(cls, result: Timed) -> Description:
        return Description(result.sentence(), "", headline=_headline(result))


def _figures(found: Spread) -> tuple[float, float, float]:
    return round(found.median, 4), round(found.low, 4), round(found.high, 4)


def _headline(result: Timed) -> str:
    """Faster or slower, where the rounds agree on it."""
    if result.skipped:
        return ""
    median, low, high = result.writing
    if low <= 1.0 <= high:
        return "about as fast"
    return f"{median:.2f}x faster" if median > 1 else f"{1 / median:.2f}x slower"
