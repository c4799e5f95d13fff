"""Refit: the output projections of what is left are solved anew, by least squares towards the dense model."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Mapping

import torch
from transformers import PreTrainedModel

from ...core.errors import UserError
from ...core.events import Event, Progress, StageResult, event
from ...core.figures import percent
from ...core.recipe import DEMO, OURS
from ...core.settings import AUTO, Auto, Settings, switch, whole
from ...core.units import BLOCKS
from ...data.calibration import BATCH_ROWS, ROW_TOKENS
from ...data.rows import count_tokens
from ...reconstruction.refit import Outcome, refit, widest
from ...reporting.description import Description
from ...scoring import get_scorer
from ...structure.anatomy import Anatomy
from ..context import Context
from ..sizes import ModelSizes
from ..stage import Cost, Stage
from ..state import RunState

# Tokens per input of the widest projection: below the first a regression would learn the text by heart;
# the second is what is read where the recipe does not say.
LEAST, USUAL = 4, 32
# Tokens per input that what a refit could give back of a block is judged on, while blocks are scored.
LOOK = 8
# Forward passes of a block that solving it is worth: the dense one, what is left of it, and the products
# of what reaches its projections.
PASSES = 4


class RefitSettings(Settings):
    """Whether what is left is repaired by least squares, and on how much text."""

    hands_over = frozenset({"refit", "refit_tokens"})

    refit: bool | Auto = switch(
        AUTO,
        "repair without training: after the last removal solve the output projections of what is left anew, "
        "by "
        "least squares towards the dense model; pip-gate then scores blocks by what that cannot give back",
        "Repair without training (least squares)",
        "Refits the parts that stay to the whole model; auto goes by the method",
    )
    refit_tokens: int = whole(
        0,
        0,
        100_000_000,
        "calibration tokens the refit reads; 0 is the usual: 32 for each input of the widest projection",
        "Repair tokens",
        "Of the calibration text; 0 = automatic",
    )

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        return {"refit": method == OURS and model != DEMO}


@event
class Refitted(StageResult):
    """What was left after `iteration` removals was refitted on `tokens` of the calibration text:
    `projections` of its `halves` (attentions and MLPs) could be solved, and `not_solved` says in words why
    others could not; `changed` of them were, the others being best as they are (None: in a run of an older
    version, all).

    `before` and `after` are how far its last hidden states are from the dense model's on the first
    batch of those tokens, as a share of their length.
    """

    tokens: int
    projections: int
    halves: int
    not_solved: str
    before: float
    after: float
    seconds: float
    changed: int | None = None

    def sentence(self) -> str:
        return f"{self._words()} It took {self.seconds:.0f} s."

    def _words(self) -> str:
        left = f" Left as they were: {self.not_solved}." if self.not_solved else ""
        changed = self.projections if self.changed is None else self.changed
        if changed < self.projections:
            same = self.projections - changed
            left = f" {same} layers were left as they were: refitting did not help on held-out text.{left}"
        return (
            f"{changed} of the {self.halves} output projections that are left were solved anew on "
            f"{self.tokens:,} tokens; the distance to the whole model's last hidden states went from "
            f"{percent(self.before, 0)} to {percent(self.after, 0)} there.{left}"
        )


class Refit(Stage):
    """Solve the output projections of what is left anew."""

    name = "refit"
    title = "Repair"
    Settings = RefitSettings
    Result = Refitted
    changes_model = True
    weights_only = True

    def __init__(self, recipe) -> None:
        super().__init__(recipe)
        self.rows: list[torch.Tensor] = []

    @property
    def enabled(self) -> bool:
        return bool(self.recipe.refit)

    @property
    def idle(self) -> Collection[str]:
        return () if self.enabled else ("refit_tokens",)

    @property
    def hands_over(self) -> bool:
        return BLOCKS in self.recipe.units and get_scorer(self.recipe.method).accounts_for_refit

    def substitution_tokens(self, context: Context) -> int:
        if not self.hands_over:
            return 0
        return min(self._tokens(context.sizes), LOOK * context.sizes.widest_inputs)

    def _tokens(self, sizes: ModelSizes) -> int:
        """Tokens that are read: those of the text, once it is there."""
        wanted = self.recipe.refit_tokens or USUAL * sizes.widest_inputs
        return count_tokens(self.rows) or wanted

    def prepare(self, state: RunState) -> None:
        least = least_tokens(state.loaded.model, state.anatomy)
        wanted = self.recipe.refit_tokens or USUAL // LEAST * least
        if not least:
            raise UserError(
                "This model cannot be repaired by least squares: its blocks hold no attention or MLP that "
                "ends in a projection of its own. Switch the repair off.",
                "refit",
            )
        why = f"for this model ({LEAST} for each input of its widest projection)"
        if wanted < least:
            raise UserError(
                f"The refit needs at least {least:,} tokens {why}, and is given {wanted:,}. Choose more "
                "repair tokens, or 0 for the usual number.",
                "refit_tokens",
            )
        needed = self.recipe.refit_tokens or least
        reason = "as asked for" if self.recipe.refit_tokens else why
        self.rows = state.calibration.rows(wanted, needed, f"The refit needs {needed:,} tokens {reason}")
        state.refit_rows = self.rows

    def needed(self, state: RunState) -> bool:
        # Without a unit removed every projection is as the dense model has it.
        return super().needed(state) and bool(state.removals)

    def estimate(self, context: Context) -> Cost:
        sizes, tokens = context.sizes, self._tokens(context.sizes)
        left = context.depth(context.planned)
        work = (tokens * PASSES + _ready_tokens(tokens)) * left
        work *= bool(context.finishing and context.planned)
        memory = {"refit": _memory(sizes, tokens)}
        if looked := self.substitution_tokens(context):
            memory["looking"] = _looking_memory(sizes, looked, len(context.anatomy.blocks))
        return Cost({"refitting": work}, memory=memory)

    def run(self, state: RunState) -> Iterator[Event]:
        began, iteration = time.monotonic(), len(state.removals)
        parts, same = state.as_read(self.rows)
        blocks = len(state.shape.layers)
        work = count_tokens(parts) * PASSES * state.depth_left
        yield Progress("refitting", iteration, 0, blocks, state.clock.elapsed, state.clock.remaining())
        state.clock.skip()
        steps = self._solve(state, parts, same)
        next(steps)  # before the first block
        state.clock.step("refitting", _ready_tokens(count_tokens(parts)) * state.depth_left)
        found = yield from state.follow(steps, "refitting", blocks, work)
        state.changed = True
        yield Refitted(
            iteration,
            count_tokens(parts),
            found.projections,
            found.halves,
            found.left,
            found.before,
            found.after,
            time.monotonic() - began,
            found.moved,
        )

    def _solve(
        self, state: RunState, parts: list[torch.Tensor], same: list[torch.Tensor]
    ) -> Generator[int, None, Outcome]:
        """Refit the model in memory, with the dense one loaded beside it for as long as that takes."""
        pruned, dense = state.loaded.model, state.load_dense().model
        here, there = ([part.to(pruned.device) for part in rows] for rows in (parts, same))
        return (yield from refit(dense, pruned, state.anatomy, state.shape, here, there))

    @classmethod
    def describe(cls, result: Refitted) -> Description:
        return Description(result.sentence(), "refitted", (f"Repair: {result._words()}",))


def least_tokens(model: PreTrainedModel, anatomy: Anatomy) -> int:
    """Calibration tokens below which the refit of a model (weights or none) is refused."""
    return LEAST * widest(model, anatomy)


def _ready_tokens(tokens: int) -> int:
    """Tokens that the pruned model reads in full, to tell how far it is from the dense one, before the first
    block is solved."""
    return min(tokens, BATCH_ROWS * ROW_TOKENS)


def _memory(sizes: ModelSizes, tokens: int) -> float:
    """Bytes at the peak of a refit: both models (the file that the second is read from stays mapped), their
    streams, what attentions add, what reaches a projection, one regression, a batch inside a block."""
    streams = tokens * (4 * sizes.width + sizes.widest_inputs) * sizes.itemsize
    return sizes.resident + 2 * sizes.held + streams + _regression(sizes) + _batch(sizes)


def _looking_memory(sizes: ModelSizes, tokens: int, blocks: int) -> float:
    """Bytes at the peak of finding substitutes: these, a stream, what reaches two projections, one
    regression, a batch inside a block."""
    given = blocks * sizes.widest_inputs * sizes.width * sizes.itemsize
    kept = tokens * (sizes.width + 2 * sizes.widest_inputs) * sizes.itemsize
    return sizes.resident + given + kept + _regression(sizes) + _batch(sizes)


def _batch(sizes: ModelSizes) -> int:
    return BATCH_ROWS * ROW_TOKENS * sizes.itemsize * 8 * max(sizes.widest_inputs, sizes.width)


def _regression(sizes: ModelSizes) -> int:
    """Sums in two halves of the text, and solving them."""
    inputs = sizes.widest_inputs
    return inputs * inputs * (2 * 4 + 4 + 8 + 8) + inputs * sizes.width * 4 * 8
