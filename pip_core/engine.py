"""The one mechanism: a recipe goes in, a stream of events comes out.

`run` is a generator. The command line prints it, the run directory records it, the page draws it,
the tests assert on it; none of them does any pruning of its own. It knows no run directory: what
was decided before (`history`) comes in as events, the export goes where `out` says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from . import events as ev
from .allocate import NOTHING_LEFT, choose, complete
from .anatomy import Anatomy, anatomy_of
from .card import model_card
from .checkpoint import Loaded, config_of, load
from .clock import MEASURING, REFITTING, SCORING, Clock
from .errors import UserError
from .export import folder_bytes, write_checkpoint
from .families import blocks_of
from .goals import Goal, goal_for, goal_of, sites_now
from .history import History
from .machine import peak_memory, user_message
from .measure import Bench, bench_for, measure, pairs_for, warnings
from .recipe import EVERY, Recipe
from .repair import PASSES, refit_rows, repaired
from .schedule import plan_clock, scoring_work
from .scorers import Scorer, method
from .shape import Shape
from .sites import Site
from .streams import Halted, mapped, stoppable
from .surgery import check_config_says, reshape
from .tasks import Pages, Task, load_tasks
from .texts import Domain, calibration_texts, documents, pinned, title
from .units import BLOCKS, group

EXPORT_SECONDS = 15.0


def run(
    recipe: Recipe,
    out: Path | None = None,
    history: Sequence[ev.Event] = (),
    stop: Callable[[], bool] = lambda: False,
    prune_on: bool = True,
) -> Iterator[ev.Event]:
    """Prune a model, as a stream of events that ends with Finished, Stopped or Failed.

    Args:
        out: folder for the exported checkpoint; without it nothing is exported.
        history: events of earlier attempts: removals already decided are replayed, what was measured
            is not measured again, what was taken back stays.
        stop: asked after every batch; true ends the run with Stopped.
        prune_on: False removes nothing more, and exports the model as pruned so far.

    Raises:
        Exception: only for a fault of this program, after a Failed event was yielded.
    """
    try:
        yield from _run(recipe, out, list(history), stop, prune_on)
    except Halted:
        pass
    except Exception as error:
        message = user_message(error)
        if message is None:
            yield ev.Failed(f"Unexpected fault ({type(error).__name__}: {error}). Please report it.")
            raise
        yield ev.Failed(message)


def check(recipe: Recipe, history: Sequence[ev.Event] = ()) -> Goal:
    """Whatever can be said to be wrong before a model is downloaded or a run is made.

    Args:
        history: events that the run would go on from.

    Returns:
        What the recipe will remove.

    Raises:
        UserError: see `check_measuring`, `checkpoint.config_of`, `allocate.goal_for` and
            `History.check`.
    """
    check_measuring(recipe)
    return check_removing(recipe, history)


def check_removing(recipe: Recipe, history: Sequence[ev.Event] = ()) -> Goal:
    """The part of `check` that has to do with the model, the method and the target."""
    anatomy, past = anatomy_of(config_of(recipe.model)), History.of(history)
    goal = goal_for(recipe, anatomy, method(recipe.method), past.undone)
    past.check(recipe, anatomy, goal)
    return goal


def check_measuring(recipe: Recipe) -> tuple[list[Task | Pages], list[str], list[Domain]]:
    """The part of `check` that has to do with texts and tasks.

    Returns:
        The recipe's tasks, the documents perplexity is measured on, and those it calibrates on.

    Raises:
        UserError: an unreadable text or task, or calibration on the very text that is held back.
    """
    tasks = load_tasks(recipe.tasks, recipe.items)
    heldout = documents(recipe.heldout, "held-back text")
    domains = calibration_texts(recipe.calibration)
    if {d for domain in domains for d in domain.documents} & set(heldout):
        raise UserError(
            f"The calibration text '{title(recipe.calibration)}' holds documents of the held-back text "
            f"'{title(recipe.heldout)}', and a model must not be measured on what it was pruned with. "
            "Choose another text for one of the two."
        )
    return tasks, heldout, domains


def evaluate(recipe: Recipe) -> Iterator[ev.Event]:
    """Measure the recipe's model as it is, as a stream of events that ends with Evaluated.

    Raises:
        UserError: as for `run`. Other exceptions can be told by `user_message`.
    """
    tasks, heldout, _ = check_measuring(recipe)
    loaded = yield from load(recipe.model, recipe.dtype)
    bench, depth = bench_for(recipe, loaded, tasks, heldout), loaded.model.config.num_hidden_layers
    yield from bench.skipped
    yield (yield from measure(loaded, bench, 0, Clock({MEASURING: bench.tokens * depth}), depth))


@dataclass
class _Course:
    """A run under way: what it works on, and how far it has come.

    Attributes:
        past: what it goes on from.
        shape: what remains of the model now.
        warned: what makes the figures say less than they seem to.
        rows: batches of token ids that the refit reads; none where there is no refit.
        removals, measured: decided so far, and what was measured by iteration.
        refitted: what was measured after a refit, by iteration; `refit` what the last one came to.
    """

    recipe: Recipe
    scorer: Scorer
    loaded: Loaded
    anatomy: Anatomy
    goal: Goal
    past: History
    bench: Bench
    shape: Shape
    clock: Clock
    warned: tuple[str, ...]
    rows: list[torch.Tensor]
    removals: list[ev.Removed] = field(default_factory=list)
    measured: dict[int, ev.Evaluated] = field(default_factory=dict)
    refitted: dict[int, ev.Evaluated] = field(default_factory=dict)
    refit: ev.Refitted | None = None

    @property
    def removed(self) -> int:
        """Parameters that are gone."""
        return self.anatomy.parameters - self.shape.parameters(self.anatomy)

    @property
    def depth(self) -> float:
        """How many dense blocks the blocks that remain amount to."""
        dense = self.anatomy.parameters - self.anatomy.embedding_parameters
        return len(self.anatomy.blocks) * (1 - self.removed / dense)

    @property
    def done(self) -> bool:
        """Whether nothing more has to go."""
        return complete(self.recipe, self.goal, self.removed, self.sites, self.past.undone)

    @property
    def sites(self) -> list[Site]:
        """Where something may still go."""
        return sites_now(self.recipe, self.goal, self.anatomy, self.shape, self.past.undone)

    def reshape(self, shape: Shape) -> None:
        """Bring the model into `shape`."""
        reshape(self.loaded.model, self.anatomy, self.shape, shape)
        self.shape = shape
        # On the way to fewer heads a config may pass through numbers that it cannot state.
        if self.recipe.units == (BLOCKS,):
            check_config_says(self.loaded.model)

    def measure(self) -> Iterator[ev.Event]:
        """Measure the model as it stands, where that was not done before."""
        iteration, known = len(self.removals), self.refitted if self.refit else self.measured
        if iteration in known:
            return
        result = yield from measure(self.loaded, self.bench, iteration, self.clock, self.depth)
        known[iteration] = replace(result, refitted=self.refit is not None)
        yield known[iteration]


def _run(
    recipe: Recipe,
    out: Path | None,
    history: list[ev.Event],
    stop: Callable[[], bool],
    prune_on: bool,
) -> Iterator[ev.Event]:
    began = time.monotonic()
    tasks, heldout, domains = check_measuring(recipe)
    check_removing(recipe, history)
    # What was just read is what the card and the exported recipe name, on any machine.
    recipe = replace(recipe, calibration=pinned(recipe.calibration), heldout=pinned(recipe.heldout))
    past = History.of(history)
    removals = list(past.removals)

    def stopped() -> ev.Stopped:
        return ev.Stopped(len(removals))

    loaded = yield from stoppable(load(recipe.model, recipe.dtype, past.dtype), stop, stopped)
    pairs_for(recipe, loaded, 1)
    anatomy = anatomy_of(loaded.config)
    rows = refit_rows(recipe, loaded, anatomy)
    goal = goal_of(recipe, anatomy, past.undone)
    started = _started(recipe, loaded, anatomy, goal, len(removals))
    past.check_same_model(started)
    yield started
    warned = list(warnings(recipe, tasks, heldout, domains))
    yield from (w for w in warned if w not in history)

    course = _Course(
        recipe,
        method(recipe.method),
        loaded,
        anatomy,
        goal,
        past,
        bench_for(recipe, loaded, tasks, heldout),
        Shape.dense(anatomy),
        Clock({}, fixed=EXPORT_SECONDS if out else 0.0),
        tuple(w.message for w in warned),
        rows,
        measured={e.iteration: e for e in past.measured},
        refitted={e.iteration: e for e in past.refitted},
    )
    yield from course.bench.skipped
    tokens = course.bench.tokens, sum(part.numel() for part in rows)
    done = course.measured, course.refitted
    plan_clock(course.clock, recipe, course.scorer, anatomy, goal, len(removals), prune_on, *done, tokens)
    yield from stoppable(course.measure(), stop, stopped)
    if removals:
        course.reshape(past.shape(anatomy))
    course.removals = removals
    while prune_on and not course.done:
        if recipe.measure == EVERY:
            yield from stoppable(course.measure(), stop, stopped)
        yield from stoppable(_iteration(course), stop, stopped)
    yield from stoppable(course.measure(), stop, stopped)
    # Without an export, a model that was measured refitted need not be made again.
    if rows and removals and (out is not None or len(removals) not in course.refitted):
        yield from stoppable(_refit(course), stop, stopped)

    if out is not None:
        yield from _export(course, out, started, heldout[0])
    lost, left = course.shape.lost(anatomy), course.shape.parameters(anatomy)
    yield ev.Finished(len(removals), lost, left, time.monotonic() - began, peak_memory())


def _iteration(course: _Course) -> Iterator[ev.Event]:
    """Score and remove: once. What was asked to go goes first, unscored."""
    iteration, anatomy = len(course.removals) + 1, course.anatomy
    score, relative = 0.0, 0.0
    asked = course.past.to_drop(course.recipe, course.shape)
    if asked:
        units = group([(BLOCKS, asked[0], 0)])
    else:
        sites = course.sites
        scores = yield from _score(course, sites, iteration)
        undone, protecting = course.past.undone, course.scorer.protecting
        chosen = choose(
            course.recipe, course.goal, iteration, course.removed, sites, scores, undone, protecting
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
        score, largest = max(values[unit] for unit in chosen), max(values.values())
        relative = score / largest if largest else 1.0
    course.reshape(course.shape.without(units))
    left, lost = course.shape.parameters(anatomy), course.shape.lost(anatomy)
    course.removals.append(ev.Removed(iteration, units, score, relative, left, lost, bool(asked)))
    yield course.removals[-1]


def _score(
    course: _Course, sites: Sequence[Site], iteration: int
) -> Generator[ev.Event, None, list[torch.Tensor]]:
    """One iteration's scores, on views drawn anew."""
    began, clock, recipe = time.monotonic(), course.clock, course.recipe
    pairs = pairs_for(recipe, course.loaded, iteration)
    work, before = scoring_work(recipe, course.scorer, course.depth, len(sites)) / len(pairs), 0
    clock.skip()

    def step(done: int) -> ev.Progress:
        nonlocal before
        clock.step(SCORING, work * (done - before))
        before = done
        return ev.Progress("scoring", iteration, done, len(pairs), clock.elapsed, clock.remaining())

    model = course.loaded.model
    scores = yield from mapped(course.scorer.score(model, blocks_of(model), sites, pairs), step)
    for kind in (k for k in recipe.units if any(site.kind == k for site in sites)):
        means: list[float | None] = [None] * len(course.anatomy.blocks)
        for site, found in zip(sites, scores, strict=True):
            if site.kind == kind and bool((free := found[found.isfinite()]).numel()):
                means[site.block] = float(free.mean())
        yield ev.Scored(iteration, kind, tuple(means), time.monotonic() - began)
    return scores


def _refit(course: _Course) -> Iterator[ev.Event]:
    """Solve the projections of what is left anew, and measure it."""
    iteration, clock, blocks = len(course.removals), course.clock, len(course.shape.layers)
    work = sum(part.numel() for part in course.rows) * PASSES * course.depth / blocks
    clock.skip()

    def step(done: int) -> ev.Progress:
        clock.step(REFITTING, work) if done else clock.skip()
        return ev.Progress("refitting", iteration, done, blocks, clock.elapsed, clock.remaining())

    refitting = repaired(course.recipe, course.loaded, course.anatomy, course.shape, course.rows, iteration)
    course.refit = yield from mapped(refitting, step)
    yield course.refit
    yield from course.measure()


def _export(course: _Course, out: Path, started: ev.Started, probe: str) -> Iterator[ev.Event]:
    """Write the model as it stands, verified."""
    iterations, shape, recipe = len(course.removals), course.shape, course.recipe
    yield ev.Progress("exporting", iterations, 0, 1, course.clock.elapsed, EXPORT_SECONDS)
    dense, pruned, uneven = course.measured[0], course.measured[iterations], shape.uneven() or ""
    refit = (course.refit, pruned) if course.refit else None
    pruned = course.refitted[iterations] if refit else pruned
    lost = shape.lost(course.anatomy)
    share = pruned.parameters / dense.parameters
    again = course.past.again(recipe, course.goal, course.removals, course.done, share)
    card = model_card(
        recipe,
        started,
        course.loaded.source.licence,
        course.removals,
        dense,
        pruned,
        lost,
        uneven,
        again is not None,
        course.warned,
        refit,
    )
    facts = {"recipe": (again or recipe).to_dict(), "removed": lost, **shape.to_dict()}
    verdict = write_checkpoint(course.loaded, shape, out, card, facts, probe)
    yield ev.Exported(
        str(out),
        folder_bytes(out),
        iterations,
        verdict.largest_difference,
        verdict.tokens,
        verdict.seconds,
        uneven,
    )


def _started(recipe: Recipe, loaded: Loaded, anatomy: Anatomy, goal: Goal, resumed: int) -> ev.Started:
    source = loaded.source
    return ev.Started(
        model=source.name,
        origin=source.origin,
        model_type=anatomy.model_type,
        blocks=len(anatomy.blocks),
        parameters=anatomy.parameters,
        method=recipe.method,
        units=recipe.units,
        target=recipe.target,
        goal=goal.words,
        planned=goal.iterations,
        planned_share=goal.share,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        device=str(loaded.model.device),
        resumed=resumed,
    )
