"""Prune: score, remove, measure, again, until the target is met."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from ...budget.aims import bytes_of, speedup_of
from ...budget.allocation import NOTHING_LEFT, choose, largest_relative_score
from ...budget.budget import divides
from ...core.accelerator import at_once, device
from ...core.device import memory_at_hand
from ...core.errors import UserError
from ...core.events import Event, Progress, Removed, Scored
from ...core.figures import stated_percent
from ...core.recipe import DEMO, EQUAL, EVERY, EVERY_KIND, GLOBAL, NAMED_KINDS, OURS
from ...core.settings import AUTO, MEASURED, Auto, Names, Numbers, Settings, choice, setting, switch, text
from ...core.units import BLOCKS, CHANNELS, DEPTH, KINDS, WIDTH, group
from ...data.rows import count_tokens
from ...reconstruction.linear_substitute import substitutes
from ...scoring import METHODS
from ...structure.families import blocks_of
from ...structure.shape import Shape
from ...structure.sites import Site, sites_of
from ..context import Context
from ..stage import Cost, Stage
from ..state import RunState

# Forward passes of a block that finding its substitute takes: one of it, and the products of its inputs.
SUBSTITUTE_PASSES = 2
# A perturbed view has about so many more tokens than the clean one.
LONGER = 1.15


class PruneSettings(Settings):
    """What is removed, how much of it, and by which method."""

    hands_over = frozenset({"method", "units"})

    method: str = text(
        OURS, f"scoring method: {', '.join(m.name for m in METHODS)}", "Method", "How parts are scored"
    )
    target: Annotated[float, Field()] = setting(
        0.2,
        "share of all parameters to remove, between 0 and 1",
        "a number above 0 and below 1",
        "How much",
        "Of all parameters",
        share=True,
    )
    target_bytes: str = setting(
        "",
        "instead of target: the bytes that the weights of the exported model may take, such as 200MB",
        "a size, such as 200MB",
        "Weights at most",
        "Instead of a share: such as 200MB; empty to go by the share",
    )
    target_speedup: str = setting(
        "",
        "instead of target: how many times as fast it is to write (decode) or to read a prompt (prefill), as "
        "this machine measures it, such as decode:1.3; the run then measures what removing each kind of "
        "units gains",
        "decode:TIMES or prefill:TIMES, such as decode:1.3",
        "Speed-up",
        "Instead of a share: such as decode:1.3 or prefill:1.5; empty to go by the share",
        opens=True,
    )
    units: Names = setting(
        (AUTO,),
        f"what is removed: {', '.join(KINDS)}",
        f"a list of names, of {', '.join(KINDS)}",
        "Remove",
        "Blocks, heads, channels, experts",
    )
    compete: Literal["auto", "all", "named"] = choice(
        AUTO,
        (AUTO, EVERY_KIND, NAMED_KINDS),
        "where the division of the target is measured: which kinds of units are weighed beside tokens; all "
        "lets a kind that units does not name join where it is measured to make the target clearly cheaper, "
        "named weighs no other; auto is all where units is auto, and named where it is not",
        "Kinds that compete",
        "Whether other kinds are removed too, where measuring shows that costs less",
        called={EVERY_KIND: "every kind", NAMED_KINDS: "only those chosen"},
    )
    allocation: Literal["equal", "global"] = choice(
        EQUAL,
        (EQUAL, GLOBAL),
        "heads, channels and experts: equal removes the same number from every block, after whole blocks "
        "where these are removed too; global removes the lowest scores wherever they are, whole blocks among "
        "them",
        "Heads and channels",
        "How many are removed from each block",
        called={EQUAL: "the same number per block", GLOBAL: "lowest scores, wherever they are"},
    )
    per_parameter: bool = switch(
        True,
        "rank units of unequal size by score per parameter",
        "Score per parameter",
        "Compares parts of unequal size by score per parameter",
    )
    step: float = setting(
        0.0,
        "removed per iteration: a whole number of units (of every block where equal), a share of all "
        "parameters below 1, or 0 for the usual: one block or half, or 5 % of the parameters",
        "a whole number of units, a share between 0 and 1, or 0",
        "Removed per iteration",
        "A number of parts, or a share below 1; 0 = automatic",
    )
    depth_share: float = setting(
        0.5,
        "where blocks are removed and then heads or channels from every other block: the share of the "
        "target that "
        "blocks make up",
        "a number above 0 and below 1",
        "Share taken as whole blocks",
        "Where blocks and then channels are removed",
        share=True,
    )
    head_share: Annotated[float, Field(ge=0, le=1)] | Auto = setting(
        AUTO,
        "where heads and channels are removed, the same number from every block: the share of what both make "
        "up that heads are; auto: in proportion to their parameters",
        "a number from 0 to 1, or auto",
        "Share taken as heads",
        "Where heads and channels are removed; auto follows their sizes",
    )
    keep: Numbers = setting(
        (),
        "blocks that nothing is removed from, by their number from 0",
        "a list of block numbers from 0",
        "Keep",
        "Never touch these blocks",
    )
    drop: Numbers = setting(
        (),
        "blocks that are removed first, in this order, before anything is scored",
        "a list of block numbers from 0",
        "Drop",
        "Remove these blocks first, in this order",
    )
    plain: bool = switch(True, "refuse shapes that an ordinary checkpoint cannot have")

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        ours = method == OURS and model != DEMO
        return {"units": (CHANNELS,) if ours and not names_blocks else (BLOCKS,)}

    @model_validator(mode="after")
    def _consistent(self) -> PruneSettings:
        if not 0 < self.target < 1:
            raise ValueError(
                f"A target of {stated_percent(self.target)} cannot be pruned: choose a share of the "
                "parameters above 0 % and below 100 %, for example 20 % (0.2)."
            )
        if self.target_bytes and self.target_speedup:
            raise ValueError("Speed-up: leave it or 'Weights at most' empty, because a run has one target.")
        if self.target_bytes:
            bytes_of(self.target_bytes)
        if self.target_speedup:
            speedup_of(self.target_speedup)
        if not 0 < self.depth_share < 1:
            share = stated_percent(self.depth_share)
            raise ValueError(
                f"Share taken as whole blocks: enter a share above 0 % and below 100 %, not {share}."
            )
        for name in ("keep", "drop"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                blocks = ", ".join(map(str, getattr(self, name)))
                raise ValueError(f"{name.capitalize()}: enter every block once, not {blocks}.")
        if self.step < 0 or (self.step > 1 and self.step != int(self.step)):
            raise ValueError(
                "Removed per iteration: enter a whole number of units, or a share of the parameters "
                f"between 0 and 1, not {self.step:g}."
            )
        named = self.units != (AUTO,)
        if named:
            object.__setattr__(self, "units", _ordered(self.units, self.step))
        if self.compete == AUTO:
            object.__setattr__(self, "compete", NAMED_KINDS if named else EVERY_KIND)
        return self


def _ordered(units: tuple[str, ...], step: float) -> tuple[str, ...]:
    """Kinds of units, depth before width.

    Raises:
        ValueError: kinds that are unknown, or cannot be removed in one run.
    """
    unknown = [k for k in units if k not in KINDS]
    if unknown or not units or len(set(units)) != len(units):
        raise ValueError(
            f"Units to remove are one or more of {', '.join(KINDS)}, each once; not "
            f"{', '.join(units) or '(none)'}."
        )
    depth, width = [u for u in units if u in DEPTH], [u for u in units if u in WIDTH]
    halves = set(depth) - {BLOCKS}
    if halves and (width or BLOCKS in depth):
        raise ValueError(
            f"{', '.join(units)} cannot be removed in one run: choose blocks, or halves (attention, "
            "mlp), or heads, channels and experts, or blocks and then these."
        )
    if depth and width and step >= 1:
        raise ValueError(
            "Removed per iteration: where blocks and heads or channels are removed enter a share of the "
            "parameters below 1, or 0 for the usual."
        )
    return (*depth, *width)


class Prune(Stage):
    """Remove the units with the lowest scores, iteration by iteration."""

    name = "prune"
    title = "Prune"
    Settings = PruneSettings
    Result = Removed

    @property
    def idle(self) -> Collection[str]:
        return () if divides(self.recipe) else ("compete",)

    def check(self, context: Context) -> None:
        _ = context.budget

    def estimate(self, context: Context) -> Cost:
        recipe, scorer = self.recipe, context.scorer
        left = range(max(context.decided, context.budget.forced), context.planned)
        if context.dense_scores or recipe.vocabulary == MEASURED:
            left = left[1:]
        sites = len(sites_of(context.anatomy, Shape.dense(context.anatomy), recipe.units))
        each = recipe.windows * recipe.window_tokens * scorer.cost(sites)
        if BLOCKS in recipe.units and scorer.accounts_for_refit:
            each += context.substitution_tokens * SUBSTITUTE_PASSES
        work = {"scoring": sum(each * context.depth(i) for i in left)}
        work["measuring"] = context.measurement_tokens * sum(map(context.depth, _measured(context)))
        return Cost(work, memory={"scoring": _memory(context)})

    def run(self, state: RunState) -> Iterator[Event]:
        yield from _repeat(state)
        while state.pruning and not state.complete:
            if self.recipe.measure == EVERY:
                yield from state.measure()
            yield from state.observe()
            yield from _iterate(state)
        if self.recipe.measure == EVERY or not (state.changing and state.finishing):
            yield from state.measure()
        yield from state.observe()


def _measured(context: Context) -> list[int]:
    """Iterations that are measured on the way, the dense model left out."""
    if context.recipe.measure == EVERY:
        wanted = set(range(context.decided, context.planned + 1))
    else:
        wanted = set() if context.changing else {context.planned}
    return sorted(wanted - {0} - context.measured_iterations)


def _memory(context: Context) -> float:
    """Bytes at the peak: `pip-gate`, the most of the methods shipped, on one view, or on those of several
    pairs where an accelerator has room for these. The weights, what every matrix reads and writes, and the
    logits with their gradient."""
    sizes, tokens = context.sizes, int(context.recipe.window_tokens * LONGER)
    activations = sizes.kept_activations + 2 * sizes.vocabulary
    substitutes_bytes = 0
    if context.substitution_tokens:
        blocks = len(context.anatomy.blocks)
        substitutes_bytes = blocks * sizes.widest_inputs * sizes.width * sizes.itemsize
    held, view = sizes.resident + substitutes_bytes, tokens * sizes.itemsize * activations
    several = 2 * min(context.recipe.windows, at_once(1, device()))
    fits = device().type != "cpu" and held + several * view <= memory_at_hand()
    return held + (several if fits else 1) * view


def _repeat(state: RunState) -> Iterator[Event]:
    """Remove what was removed before, with what was handed over then."""
    began, removals = state.clock.elapsed, list(state.past.removals)
    for done, removal in enumerate(removals, 1):
        yield from state.observe()
        state.remove(removal.units)
        state.removals.append(removal)
        each = (state.clock.elapsed - began) / done
        state.clock.skip()
        left = state.clock.remaining() + each * (len(removals) - done)
        elapsed = state.clock.elapsed
        yield Progress("removing again", removal.iteration, done, len(removals), elapsed, left)


def _iterate(state: RunState) -> Iterator[Event]:
    """Score and remove, once. Blocks that the recipe names are removed first, unscored."""
    iteration, anatomy = len(state.removals) + 1, state.anatomy
    score, relative = 0.0, 0.0
    forced = state.past.forced_blocks(state.recipe, state.shape)
    if forced:
        units = group([(BLOCKS, forced[0], 0)])
    else:
        sites = state.sites
        scores = yield from _score(state, sites, iteration)
        chosen = choose(
            state.recipe,
            state.budget,
            iteration,
            state.removed_parameters,
            sites,
            scores,
            state.past.pinned_units,
            state.scorer.inf_protects,
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
        score, relative = largest_relative_score(chosen, values)
    state.remove(units)
    left, removed = state.shape.parameters(anatomy), state.shape.removed_description(anatomy)
    state.removals.append(Removed(iteration, units, score, relative, left, removed, bool(forced)))
    yield state.removals[-1]


def _score(
    state: RunState, sites: Sequence[Site], iteration: int
) -> Generator[Event, None, list[torch.Tensor]]:
    """One iteration's scores, on views drawn anew."""
    began, recipe, model = time.monotonic(), state.recipe, state.loaded.model
    pairs, scorer = state.calibration.pairs(iteration), state.scorer
    if state.substitution_rows and any(site.kind == BLOCKS for site in sites):
        tokens, blocks = count_tokens(state.substitution_rows), len(state.shape.layers)
        found = substitutes(model, state.anatomy, state.shape, state.substitution_rows)
        work = tokens * SUBSTITUTE_PASSES * state.depth_left
        state.substitutes = yield from state.follow(found, "scoring", blocks, work, iteration)
        scorer = scorer.given_substitutes(state.substitutes)
    work = recipe.windows * recipe.window_tokens * scorer.cost(len(sites)) * state.depth_left
    scores = _known(state, sites)
    if not scores:
        scoring = state.calibration.score(scorer, model, list(blocks_of(model)), sites, pairs)
        scores = yield from state.follow(scoring, "scoring", len(pairs), work, iteration)
    for kind in (k for k in recipe.units if any(site.kind == k for site in sites)):
        means: list[float | None] = [None] * len(state.anatomy.blocks)
        for site, one in zip(sites, scores, strict=True):
            if site.kind == kind and bool((free := one[one.isfinite()]).numel()):
                means[site.block] = float(free.mean())
        yield Scored(iteration, kind, tuple(means), time.monotonic() - began)
    return scores


def _known(state: RunState, sites: Sequence[Site]) -> list[torch.Tensor]:
    """The scores of these sites, where the division of the target has found them on the model as it is and on
    the same views; else none."""
    known = {} if state.removals or state.substitutes else state.dense_scores
    state.dense_scores = {}
    ranked_together = len({site.kind in DEPTH for site in sites}) > 1
    if ranked_together or any((site.kind, site.block) not in known for site in sites):
        return []
    return [known[site.kind, site.block] for site in sites]
