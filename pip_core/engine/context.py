"""What is known of a run before its model is loaded: recipe, anatomy, budget, history, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from ..budget.budget import budget_for
from ..budget.pruning_budget import PruningBudget
from ..checkpoints.load import config_of
from ..core.cached import cached_property
from ..core.device import memory_at_hand, memory_of_all
from ..core.events import Event, Failed, SettingsChanged
from ..core.network import NotDownloaded
from ..core.process_group import current
from ..core.recipe import DEMO, DISPATCHED, RESIDENT, STREAMED, Recipe
from ..core.settings import AUTO
from ..data.calibration import CalibrationText
from ..data.corpora import documents
from ..evaluation.tasks import SHIPPED, Measured, load_task, load_tasks
from ..scoring import Scorer, get_scorer
from ..structure.anatomy import Anatomy, anatomy_of
from .replay import ReplayState
from .sizes import ModelSizes, sizes_of
from .stage import LITTLE, LITTLE_OF_DEMO, Cost, Stage

# Of plain English text, for estimates.
CHARACTERS_PER_TOKEN = 4.3
# Of a standard task, for estimates: characters of an item with all its choices, and items of a whole task.
CHARACTERS_PER_ITEM, USUAL_ITEMS = 600.0, 2000


class Context:
    """What is known of a run before its model is loaded. Texts and tasks are read once, when first needed.

    Attributes:
        stages: those that the recipe asks for, in their order, without `left_out`; `asked` are all of them.
        past: what the run continues from.
        failed: stages that change the model and failed when they were last run, and why.
        left_out: those of them that an export of what is pruned so far does without, so that the removals
            can be exported whatever fails after them; what one of them left, it may still give.
        exporting: whether a checkpoint will be written.
        pruning: whether more units may be removed.
        placement: where the weights are, see `core.recipe`; found out where it was not given.
        dense_scores: (kind, block) -> scores of the dense model's units on the views of the first removal,
            where a stage before it has found them.
    """

    def __init__(
        self,
        recipe: Recipe,
        stages: Sequence[Stage],
        history: Sequence[Event] = (),
        exporting: bool = True,
        pruning: bool = True,
        anatomy: Anatomy | None = None,
        placement: str = "",
    ) -> None:
        self.recipe = recipe
        self.history = list(history)
        failed = _failed_stages(self.history)
        asked = [stage for stage in stages if stage.enabled]
        self.failed = {s: failed[s.name] for s in asked if s.changes_model and s.name in failed}
        self.left_out = {} if pruning else self.failed
        self.asked = asked
        self.stages = [stage for stage in asked if stage not in self.left_out]
        self.past = ReplayState.of(self.history)
        self.exporting = exporting
        self.pruning = pruning
        self._anatomy = anatomy
        if placement:
            self.__dict__["placement"] = placement
        self.dense_scores: dict[tuple[str, int], torch.Tensor] = {}

    @cached_property
    def scorer(self) -> Scorer:
        return get_scorer(self.recipe.method)

    @cached_property
    def anatomy(self) -> Anatomy:
        return self._anatomy or anatomy_of(config_of(self.recipe.model))

    @cached_property
    def budget(self) -> PruningBudget:
        """What the recipe will remove.

        Raises:
            UserError: see `budget_for`.
        """
        return budget_for(self.recipe, self.anatomy, self.scorer, self.past.pinned_units)

    @cached_property
    def sizes(self) -> ModelSizes:
        found = sizes_of(self.recipe.model, self.recipe.dtype)
        return replace(found, placement=self.placement, resident_blocks=self.resident_blocks)

    @cached_property
    def placement(self) -> str:
        """Where the model's weights are while it is computed with: as the recipe says, or the first that fits
        of one device, of all devices with what is beside them, and of the disk."""
        if self.recipe.placement != AUTO:
            return self.recipe.placement
        whole = self._placed(RESIDENT)
        if whole.peak_memory <= self._at_hand[0]:
            return RESIDENT
        most = self._most_blocks
        if whole.not_streamed:
            return DISPATCHED if most == len(self.anatomy.blocks) else RESIDENT
        return DISPATCHED if most else STREAMED

    @cached_property
    def resident_blocks(self) -> int:
        """How many blocks stay where they are computed with."""
        if self.placement == DISPATCHED:
            return self._most_blocks
        return len(self.anatomy.blocks) if self.placement == RESIDENT else 0

    @property
    def offloads(self) -> bool:
        """Whether some blocks are brought to where they are computed with, and given up again."""
        return self.resident_blocks < len(self.anatomy.blocks)

    @cached_property
    def placement_words(self) -> str:
        """Where the weights are and what memory that takes, before the run; empty where they are resident."""
        if self.placement == RESIDENT:
            return ""
        one, together = (bytes_ / 1e9 for bytes_ in self._at_hand)
        needed, count = self.peak_memory / 1e9, len(self.anatomy.blocks)
        if self.placement == STREAMED:
            return f"streaming the model from disk, block by block: {needed:.1f} GB of {one:.1f} GB"
        return (
            f"spreading the model over devices, memory and disk, {self.resident_blocks} of {count} blocks on "
            f"the devices that compute: {needed:.1f} GB of {together:.1f} GB"
        )

    @cached_property
    def _at_hand(self) -> tuple[float, float]:
        """Bytes at hand on the device that computes, and on all together; of several processes the least."""
        one = memory_at_hand()
        found = current().gather((one, max(one, memory_of_all())))
        return min(one for one, _ in found), min(together for _, together in found)

    @cached_property
    def _most_blocks(self) -> int:
        """As many blocks as fit on all devices together, beside what a run needs without them."""
        count = len(self.anatomy.blocks)
        fits = (n for n in range(count, 0, -1) if self._placed(DISPATCHED, n).peak_memory <= self._at_hand[1])
        return next(fits, 0)

    def _placed(self, placement: str, resident_blocks: int | None = None) -> Context:
        """The same run with its weights elsewhere."""
        found = Context(
            self.recipe,
            self.stages,
            self.history,
            self.exporting,
            self.pruning,
            self.anatomy,
            placement,
        )
        if resident_blocks is not None:
            found.__dict__["resident_blocks"] = resident_blocks
        return found

    @property
    def not_streamed(self) -> str:
        """What in this run needs the whole model in memory, in words; empty where nothing does."""
        if needing := [stage.title for stage in self.stages if stage.needs_whole_model]:
            return f"'{needing[0]}' needs the whole model in memory"
        if self.budget.uneven:
            return f"a model of a shape of its own is written from memory ({self.budget.uneven})"
        if self.sizes.expert_weights:
            return "the experts of this model are stored one by one, and computed with together"
        return ""

    @property
    def peak_memory(self) -> float:
        """Bytes that the run needs at its peak."""
        return max(sum((stage.estimate(self) for stage in self.stages), Cost()).memory.values(), default=0.0)

    @cached_property
    def tasks(self) -> list[Measured]:
        return load_tasks(self.recipe.tasks, self.recipe.items)

    @cached_property
    def heldout(self) -> list[str]:
        """Documents that perplexity is measured on."""
        return documents(self.recipe.heldout, "held-out text")

    @cached_property
    def calibration_text(self) -> CalibrationText:
        """The text to calibrate on."""
        return CalibrationText.read(self.recipe)

    @property
    def contents(self) -> dict[str, str]:
        """What the stages read, see `Stage.contents`."""
        return {what: found for stage in self.stages for what, found in stage.contents(self).items()}

    @property
    def decided(self) -> int:
        """Iterations that are decided."""
        return len(self.past.removals)

    def budget_by(self, settled: Mapping[str, Any]) -> PruningBudget:
        """What the recipe would remove with other settings.

        Raises:
            UserError: see `budget_for`.
        """
        recipe = self.recipe.replace(**settled)
        return budget_for(recipe, self.anatomy, self.scorer, self.past.pinned_units)

    @property
    def planned(self) -> int:
        """Iterations there will be in all."""
        return max(self.budget.iterations, self.decided) if self.pruning else self.decided

    @property
    def measured_iterations(self) -> set[int]:
        """Iterations that need not be measured again, before the stages that follow the last removal."""
        return {e.iteration for e in self.past.measured}

    @property
    def final_iterations(self) -> set[int]:
        """And after them."""
        return {e.iteration for e in self.past.final}

    @property
    def changing(self) -> bool:
        """Whether a stage after the last removal changes the model."""
        return any(stage.changes_model for stage in self.stages)

    @property
    def finishing(self) -> bool:
        """Whether the stages that change the model after the last removal are still to be run, or again."""
        anything = self.planned or (self.pruning and self.budget.tokens)
        return bool(anything) and (self.exporting or self.planned not in self.final_iterations)

    def depth(self, iteration: int) -> float:
        """How many dense blocks the blocks that are left after an iteration amount to."""
        whole = self.budget.share_of_work(self.anatomy)
        if not self.budget.iterations:  # tokens alone
            return len(self.anatomy.blocks)
        return len(self.anatomy.blocks) * max(0.0, 1 - whole * iteration / self.budget.iterations)

    @property
    def measurement_tokens(self) -> float:
        """Tokens that one measurement reads, estimated."""
        recipe = self.recipe
        characters = sum(_task_characters(name, recipe.items) for name in recipe.tasks)
        return recipe.perplexity_windows * recipe.perplexity_tokens + characters / CHARACTERS_PER_TOKEN

    @cached_property
    def whole_work(self) -> float:
        """Token-blocks of the whole run, from its beginning, without what stages do beside its point."""
        run = Context(self.recipe, self.stages, anatomy=self.anatomy, placement=RESIDENT)
        return sum(sum(s.estimate(run).work.values()) for s in run.stages if not s.incidental)

    def is_little(self, work: float) -> bool:
        """Whether so many token-blocks are a small part of the run."""
        share = LITTLE_OF_DEMO if self.recipe.model == DEMO else LITTLE
        return work <= share * self.whole_work

    @property
    def substitution_tokens(self) -> int:
        """Calibration tokens on which it is found out what can be given back of a block; 0 for none."""
        return max((stage.substitution_tokens(self) for stage in self.stages), default=0)


def _failed_stages(history: Sequence[Event]) -> dict[str, str]:
    """Name -> message of the stages that failed when they were last run."""
    found: dict[str, str] = {}
    for event in history:
        if isinstance(event, Failed) and event.stage:
            found[event.stage] = event.message
        elif isinstance(event, SettingsChanged):
            found.clear()
        elif event.result_of:
            found.pop(event.result_of, None)
    return found


@cache
def _shipped_characters(name: str, items: int) -> int:
    """As `_task_characters`, of a task that is shipped: an estimate asks for it many times."""
    return load_task(name, items).characters


def _task_characters(name: str, items: int) -> float:
    """Characters that a task's items hold, or where it is not on this machine yet about so many."""
    try:
        return _shipped_characters(name, items) if name in SHIPPED else load_task(name, items).characters
    except NotDownloaded:
        return (items or USUAL_ITEMS) * CHARACTERS_PER_ITEM
