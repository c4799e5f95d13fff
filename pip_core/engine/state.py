"""A run under way: the model it works on, and how far it has come."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..budget.allocation import complete
from ..budget.pruning_budget import current_sites
from ..checkpoints.checksum import weights_sha256
from ..checkpoints.load import Loaded, load_folder
from ..core import events as ev
from ..core.decisions import Decided, settings_of
from ..core.device import number_name
from ..core.errors import UserError
from ..core.process_group import current
from ..core.progress import drain, map_progress
from ..core.units import BLOCKS, Units
from ..data.calibration import Calibration
from ..data.rows import first_batches
from ..evaluation.evaluator import Evaluator
from ..reconstruction.linear_substitute import Substitute, apply_substitute, substitutes
from ..structure.anatomy import anatomy_of
from ..structure.families import blocks_of, residual_scale, row_parameters
from ..structure.shape import Shape
from ..structure.sites import Site
from ..structure.surgery import reshape, verify_config_matches
from ..structure.vocabulary import VocabularySubset
from .clock import Clock
from .context import Context
from .identity import weights_changed
from .stage import Cost, Stage

Result = TypeVar("Result")


class RunState(Context):
    """What a run works on, and how far it has come.

    Attributes:
        out: folder for the exported checkpoint; None where nothing is exported.
        scratch: folder for what a stage continues from; None where nothing is kept.
        loaded: the model, its tokenizer and where they came from; set by the first stage.
        shape: what remains of the model's blocks now.
        evaluator: texts and tasks, tokenised for the model.
        calibration: the calibration text, for the model's tokenizer.
        removals, measured: decided so far, and what was measured, by iteration.
        final: what was measured of the finished model, by iteration.
        results: stage -> what it came to in this run.
        warnings: what makes the figures say less than they seem to.
        refit_rows: batches of token ids that a refit will read; none without one.
        changed: whether the model was changed after the last removal.
        also_removed: what was removed beside units, in words.
        partial: folder beside `out` in which the checkpoint is made; None before that.
        token_subset: the tokens that are left, where some were removed.
        reproducible: whether the exported recipe alone leads to the exported model.
        cut_short: whether a stage was ended before it was done, which the recipe does not state.
    """

    loaded: Loaded
    evaluator: Evaluator
    calibration: Calibration
    shape: Shape
    started: ev.Started

    def __init__(self, context: Context, out: Path | None, scratch: Path | None = None) -> None:
        self.__dict__.update(context.__dict__)
        self.out, self.scratch = out, scratch
        self.partial: Path | None = None
        self.clock = Clock({})
        self.removals: list[ev.Removed] = []
        self.measured = {e.iteration: e for e in self.past.measured}
        # What was measured without a stage says nothing of what it is with it, and the other way round.
        self.final = {} if self.failed else {e.iteration: e for e in self.past.final}
        self.results: dict[str, ev.Event] = {e.result_of: e for e in self.past.decided}
        self.warnings: list[str] = []
        self.refit_rows: list[torch.Tensor] = []
        self.substitutes: dict[int, Substitute] = {}
        # Without a stage that it was pruned with, it is not what was measured then.
        self.changed = bool(self.left_out)
        self.also_removed: list[str] = []
        self.token_subset: VocabularySubset | None = None
        self.reproducible, self.cut_short = True, False
        self._began = time.monotonic()

    # How far it has come

    @property
    def decided(self) -> int:
        return max(len(self.removals), len(self.past.removals))

    @property
    def measured_iterations(self) -> set[int]:
        return set(self.measured)

    @property
    def final_iterations(self) -> set[int]:
        return set(self.final)

    @property
    def measurement_tokens(self) -> float:
        return self.evaluator.tokens

    @property
    def removed_parameters(self) -> int:
        """Parameters of units that were removed."""
        return self.anatomy.parameters - self.shape.parameters(self.anatomy)

    @property
    def parameters(self) -> int:
        """Parameters that are left, counted on the model."""
        return sum(p.numel() for p in self.loaded.model.parameters())

    @property
    def removed_description(self) -> str:
        """What was removed, in words."""
        units = (
            [self.shape.removed_description(self.anatomy)] if self.removals or not self.also_removed else []
        )
        return " and ".join([*units, *self.also_removed])

    @property
    def depth_left(self) -> float:
        """How many dense blocks the blocks that are left amount to."""
        dense = self.anatomy.parameters - self.anatomy.embedding_parameters
        return len(self.anatomy.blocks) * (1 - self.removed_parameters / dense)

    @property
    def substitution_rows(self) -> list[torch.Tensor]:
        """Of the rows that a refit will read those on which substitutes of blocks are found; none where
        nothing is handed over."""
        return first_batches(self.refit_rows, self.substitution_tokens)

    @property
    def complete(self) -> bool:
        """Whether no unit has to be removed any more."""
        return complete(self.recipe, self.budget, self.removed_parameters, self.sites, self.past.pinned_units)

    @property
    def sites(self) -> list[Site]:
        """Where something may still be removed."""
        return current_sites(self.recipe, self.budget, self.anatomy, self.shape, self.past.pinned_units)

    @property
    def finishing(self) -> bool:
        if self.pruning and not self.complete:
            return super().finishing
        count = len(self.removals)
        # Where tokens alone are removed, there is no removal of a unit before.
        anything = count or (self.pruning and self.budget.tokens and not self.budget.iterations)
        return bool(anything) and (self.out is not None or count not in self.final)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    # What stages do to the model

    def settle_model(self) -> None:
        """Take anatomy and budget from the model that was loaded: before the weights of a model of the Hub
        are here, only what its config says is known."""
        if row_parameters(self.loaded.model) == self.anatomy.row_parameters:
            return
        self._anatomy = anatomy_of(self.loaded.config)
        for name in ("anatomy", "budget", "sizes"):
            self.__dict__.pop(name, None)

    def settle(self, decision: Decided, later: Sequence[Stage]) -> None:
        """Go on by what was decided: recipe, budget, and the stages that are still to come."""
        self.recipe = self.recipe.replace(**settings_of(decision))
        self.__dict__.pop("budget", None)
        for stage in self.stages:
            stage.recipe = self.recipe
        self.stages = [stage for stage in self.stages if stage.enabled or stage not in later]
        for stage in later:
            if stage.enabled:
                stage.prepare(self)

    def load_dense(self) -> Loaded:
        """The dense model, to be beside the one that is pruned, and in its number format.

        Raises:
            UserError: its files are gone, or hold other weights than the run began with.
        """
        source, number = self.loaded.source, number_name(self.loaded.model.dtype)
        if not source.folder.is_dir():
            raise UserError(
                f"The files of {source.name} are not there any more, and this needs the whole model beside "
                "what is left of it. Put them back and resume the run; nothing decided is lost."
            )
        if weights_sha256(source.folder) != source.weights_sha256:
            raise weights_changed(source.name)
        return load_folder(
            source, self.recipe.dtype, number, self.placement, resident_blocks=self.resident_blocks
        )

    def reshape(self, shape: Shape) -> None:
        """Bring the model into `shape`."""
        reshape(self.loaded.model, self.anatomy, self.shape, shape)
        self.shape = shape
        self.substitutes = {}
        # On the way to fewer heads a config may pass through numbers that it cannot state.
        if self.recipe.units == (BLOCKS,):
            verify_config_matches(self.loaded.model)

    def remove(self, units: Iterable[Units]) -> None:
        """Remove units. Where substitutes of blocks are looked for, the block before takes over from a block
        what it can, so that the next is chosen, and measured, on a model that is as good as it will be."""
        removed = list(units)
        absorbed = [u for u in removed if self.substitution_rows and u.kind == BLOCKS]
        for one in absorbed:
            self._absorb_into_previous(one)
        if rest := [u for u in removed if u not in absorbed]:
            self.reshape(self.shape.without(rest))

    def _absorb_into_previous(self, units: Units) -> None:
        position, model = self.shape.blocks.index(units.block), self.loaded.model
        # Scoring has found it already, except where a run is resumed.
        known = self.substitutes or drain(
            substitutes(model, self.anatomy, self.shape, self.substitution_rows, [position])
        )
        if position in known:
            apply_substitute(blocks_of(model), position, known[position], residual_scale(model.config))
        self.reshape(self.shape.without([units]))

    def as_read(self, rows: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Batches of rows as the model reads them now, and the same text by the dense model's ids; equal
        where no token was removed. A model with fewer tokens splits the text into more."""
        if self.token_subset is None:
            return list(rows), list(rows)
        size, length = rows[0].shape
        ids = torch.cat([self.token_subset.retokenize(row) for part in rows for row in part])
        new = ids[: len(ids) // length * length].view(-1, length)
        return list(new.split(size)), list(self.token_subset.kept[new].split(size))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        """Let every stage say what is wrong before any weight is read.

        Raises:
            UserError: see `Stage.check_tokenizer`.
        """
        for stage in self.stages:
            stage.check_tokenizer(tokenizer, config)

    def discard_partial(self) -> None:
        """Delete the checkpoint that was being made, where it was not put in its place."""
        if self.partial is not None:
            shutil.rmtree(self.partial, ignore_errors=True)

    # What stages say

    def measure(self, final: bool = False) -> Iterator[ev.Event]:
        """Measure the model as it stands, unless that was done before."""
        iteration, known = len(self.removals), self.final if final else self.measured
        if iteration in known:
            return
        steps = self.evaluator.measure(self.loaded.model, iteration)
        work = self.evaluator.tokens * self.depth_left
        result = yield from self.follow(steps, "measuring", self.evaluator.tokens, work, added=True)
        known[iteration] = replace(result, final=final)
        yield known[iteration]

    def observe(self) -> Iterator[ev.Event]:
        """Let every stage look at the model as it stands."""
        for stage in self.stages:
            if current().first or not stage.by_one_process:
                yield from stage.observe(self)

    def follow(
        self,
        steps: Generator[int, None, Result],
        word: str,
        total: int,
        work: float,
        iteration: int | None = None,
        added: bool = False,
        start: int = 0,
    ) -> Generator[ev.Event, None, Result]:
        """Drain `steps`, reporting progress and keeping time.

        Args:
            steps: yields how many of `total` are done, or with `added` how many more.
            word: what is being done, and the kind of work the clock counts.
            work: all of it, in token-blocks.
            iteration: that it belongs to; the number of removals where it is left out.
            start: how many were done by an earlier attempt.
        """
        number = len(self.removals) if iteration is None else iteration
        done = start
        self.clock.skip()

        def step(count: int) -> ev.Progress:
            nonlocal done
            before, done = done, min(done + count if added else count, total)
            if done > before:
                self.clock.step(word, work * (done - before) / total)
            return ev.Progress(word, number, done, total, self.clock.elapsed, self.clock.remaining())

        return (yield from map_progress(steps, step))

    def plan(self, stages: Iterable[Stage]) -> None:
        """Tell the clock what is still to be done."""
        left = sum((stage.estimate(self) for stage in stages), Cost())
        self.clock.planned, self.clock.fixed = dict(left.work), left.seconds
