"""A run under way: the model it works on, how far it has come, and what an iteration does to it."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from ..budget.allocation import NOTHING_LEFT, choose, complete, nearest_to_largest
from ..budget.budget import PruningBudget, sites_now
from ..checkpoints.load import Loaded
from ..core import events as ev
from ..core.errors import UserError
from ..core.progress import drain, map_progress
from ..core.recipe import Recipe
from ..core.units import BLOCKS, Units, group
from ..data.calibration import Calibration
from ..evaluation.evaluator import Evaluator
from ..reconstruction.linear_substitute import Substitute, apply_substitute, substitutes
from ..scoring import Scorer
from ..structure.anatomy import Anatomy
from ..structure.families import blocks_of, residual_scale
from ..structure.shape import Shape
from ..structure.sites import Site
from ..structure.surgery import reshape, verify_config_matches
from .clock import SCORING, Clock
from .measuring import measure
from .replay import ReplayState
from .schedule import looking_work, scoring_work

Result = TypeVar("Result")


@dataclass
class RunState:
    """What a run works on, and how far it has come.

    Attributes:
        past: what it goes on from.
        shape: what remains of the model's blocks now.
        warned: what makes the figures say less than they seem to.
        rows: batches of token ids of the dense model that the refit reads; none where there is no refit.
        look: those of them that substitutes of blocks are found on, where removals look ahead to the refit.
        removals, measured: decided so far, and what was measured by iteration.
        final: what was measured after all that is done at the end, by iteration; `refit` and `trimmed`
            what that came to, None where it was not done (yet).
    """

    recipe: Recipe
    scorer: Scorer
    loaded: Loaded
    anatomy: Anatomy
    goal: PruningBudget
    past: ReplayState
    bench: Evaluator
    calibration: Calibration
    shape: Shape
    clock: Clock
    warned: tuple[str, ...]
    rows: list[torch.Tensor]
    look: list[torch.Tensor]
    removals: list[ev.Removed] = field(default_factory=list)
    measured: dict[int, ev.Evaluated] = field(default_factory=dict)
    final: dict[int, ev.Evaluated] = field(default_factory=dict)
    refit: ev.Refitted | None = None
    trimmed: ev.VocabularyPruned | None = None
    substitutes: dict[int, Substitute] = field(default_factory=dict)

    @property
    def removed(self) -> int:
        """Parameters of units that are gone."""
        return self.anatomy.parameters - self.shape.parameters(self.anatomy)

    @property
    def lost(self) -> str:
        """What is gone, in words."""
        return self.trimmed.lost if self.trimmed else self.shape.removed_description(self.anatomy)

    @property
    def left(self) -> int:
        """Parameters that are left."""
        return self.trimmed.parameters if self.trimmed else self.anatomy.parameters - self.removed

    @property
    def depth(self) -> float:
        """How many dense blocks the blocks that remain amount to."""
        dense = self.anatomy.parameters - self.anatomy.embedding_parameters
        return len(self.anatomy.blocks) * (1 - self.removed / dense)

    @property
    def done(self) -> bool:
        """Whether no unit has to go any more."""
        return complete(self.recipe, self.goal, self.removed, self.sites, self.past.undone)

    @property
    def sites(self) -> list[Site]:
        """Where something may still go."""
        return sites_now(self.recipe, self.goal, self.anatomy, self.shape, self.past.undone)

    @property
    def ended(self) -> bool:
        """Whether what is done at the end is done."""
        return self.refit is not None or self.trimmed is not None

    def reshape(self, shape: Shape) -> None:
        """Bring the model into `shape`."""
        reshape(self.loaded.model, self.anatomy, self.shape, shape)
        self.shape = shape
        self.substitutes = {}
        # On the way to fewer heads a config may pass through numbers that it cannot state.
        if self.recipe.units == (BLOCKS,):
            verify_config_matches(self.loaded.model)

    def take(self, gone: Iterable[Units]) -> None:
        """Remove units. Where the run looks ahead to a refit, the block before takes over from a block what
        it can, so that the next is chosen, and measured, on a model that is as good as it will be."""
        gone = list(gone)
        handed = [u for u in gone if self.look and u.kind == BLOCKS]
        for units in handed:
            self._hand_over(units)
        if rest := [u for u in gone if u not in handed]:
            self.reshape(self.shape.without(rest))

    def _hand_over(self, units: Units) -> None:
        position, model = self.shape.blocks.index(units.block), self.loaded.model
        # Scoring has found it already, but not where a run is gone on with.
        known = self.substitutes or drain(substitutes(model, self.anatomy, self.shape, self.look, [position]))
        if position in known:
            apply_substitute(blocks_of(model), position, known[position], residual_scale(model.config))
        self.reshape(self.shape.without([units]))

    def measure(self) -> Iterator[ev.Event]:
        """Measure the model as it stands, where that was not done before."""
        iteration, known = len(self.removals), self.final if self.ended else self.measured
        if iteration in known:
            return
        result = yield from measure(self.loaded, self.bench, iteration, self.clock, self.depth)
        known[iteration] = replace(result, final=self.ended)
        yield known[iteration]


def repeat(course: RunState, removals: Sequence[ev.Removed]) -> Iterator[ev.Event]:
    """Remove what was removed before, as it was: with what was handed over then."""
    began = course.clock.elapsed
    for done, removal in enumerate(removals, 1):
        course.take(removal.units)
        each = (course.clock.elapsed - began) / done
        course.clock.skip()
        left = course.clock.remaining() + each * (len(removals) - done)
        yield ev.Progress(
            "removing again", removal.iteration, done, len(removals), course.clock.elapsed, left
        )


def iterate(course: RunState) -> Iterator[ev.Event]:
    """Score and remove: once. What was asked to go goes first, unscored."""
    iteration, anatomy = len(course.removals) + 1, course.anatomy
    score, relative = 0.0, 0.0
    asked = course.past.to_drop(course.recipe, course.shape)
    if asked:
        units = group([(BLOCKS, asked[0], 0)])
    else:
        sites = course.sites
        scores = yield from _score(course, sites, iteration)
        undone, inf_protects = course.past.undone, course.scorer.inf_protects
        chosen = choose(
            course.recipe, course.goal, iteration, course.removed, sites, scores, undone, inf_protects
        )
        if not chosen:
            raise UserError(NOTHING_LEFT)
        units = group(chosen)
        values = {
            (site.kind, site.block, number): value
            for site, found in zip(sites, scores, strict=True)
            for number, value in zip(site.numbers, found.tolist(), strict=True)
            if value != math.inf
        }
        score, relative = nearest_to_largest(chosen, values)
    course.take(units)
    left, lost = course.shape.parameters(anatomy), course.shape.removed_description(anatomy)
    course.removals.append(ev.Removed(iteration, units, score, relative, left, lost, bool(asked)))
    yield course.removals[-1]


def _score(
    course: RunState, sites: Sequence[Site], iteration: int
) -> Generator[ev.Event, None, list[torch.Tensor]]:
    """One iteration's scores, on views drawn anew."""
    began, recipe, model = time.monotonic(), course.recipe, course.loaded.model
    pairs = course.calibration.pairs(iteration)
    scorer = course.scorer
    if course.look and any(site.kind == BLOCKS for site in sites):
        tokens, blocks = sum(part.numel() for part in course.look), len(course.shape.layers)
        work = looking_work(recipe, scorer, course.depth, tokens)
        looking = substitutes(model, course.anatomy, course.shape, course.look)
        course.substitutes = yield from with_progress(course, looking, iteration, blocks, work)
        scorer = scorer.given_substitutes(course.substitutes)
    work = scoring_work(recipe, scorer, course.depth, len(sites))
    scoring = course.calibration.score(scorer, model, blocks_of(model), sites, pairs)
    scores = yield from with_progress(course, scoring, iteration, len(pairs), work)
    for kind in (k for k in recipe.units if any(site.kind == k for site in sites)):
        means: list[float | None] = [None] * len(course.anatomy.blocks)
        for site, found in zip(sites, scores, strict=True):
            if site.kind == kind and bool((free := found[found.isfinite()]).numel()):
                means[site.block] = float(free.mean())
        yield ev.Scored(iteration, kind, tuple(means), time.monotonic() - began)
    return scores


def with_progress(
    course: RunState, scoring: Generator[int, None, Result], iteration: int, pairs: int, work: float
) -> Generator[ev.Event, None, Result]:
    """Drain `scoring`, which yields how many of `pairs` (or blocks) are done; `work` is all of its work."""
    clock, before = course.clock, 0
    clock.skip()

    def step(done: int) -> ev.Progress:
        nonlocal before
        clock.step(SCORING, work * (done - before) / pairs)
        before = done
        return ev.Progress("scoring", iteration, done, pairs, clock.elapsed, clock.remaining())

    return (yield from map_progress(scoring, step))
