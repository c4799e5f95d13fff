"""The one mechanism: a recipe goes in, a stream of events comes out.

`run` is a generator. The command line prints it, the run directory records it, the page draws it,
the tests assert on it; none of them does any pruning of its own. It knows no run directory: what
was decided before (`history`) comes in as events, the export goes where `out` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..budget.budget import PruningBudget, budget_for, budget_of
from ..checkpoints.export import export_checkpoint, folder_bytes
from ..checkpoints.load import Loaded, config_of, load
from ..core import events as ev
from ..core.device import peak_memory, user_message
from ..core.errors import UserError
from ..core.progress import Halted, drain, stoppable
from ..core.recipe import EVERY, Recipe
from ..data.calibration import CalibrationText
from ..data.corpora import documents, pinned, title
from ..evaluation.tasks import Pages, Task, load_tasks
from ..reporting.model_card import model_card
from ..scoring import get_scorer
from ..structure.anatomy import Anatomy, anatomy_of
from ..structure.shape import Shape
from ..structure.vocabulary import Vocabulary
from .clock import MEASURING, Clock
from .ending import finish
from .measuring import calibration_for, evaluator_for, measure, warnings
from .refitting import least_tokens, look_rows, refit_rows
from .replay import ReplayState
from .schedule import looks_ahead, plan_clock
from .state import RunState, iterate, repeat

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


def check(recipe: Recipe, history: Sequence[ev.Event] = ()) -> PruningBudget:
    """Whatever can be said to be wrong before a model is downloaded or a run is made.

    Args:
        history: events that the run would go on from.

    Returns:
        What the recipe will remove.

    Raises:
        UserError: see `check_measuring`, `checkpoint.config_of`, `allocate.goal_for` and
            `ReplayState.check`.
    """
    check_measuring(recipe)
    return check_removing(recipe, history)


def check_removing(recipe: Recipe, history: Sequence[ev.Event] = ()) -> PruningBudget:
    """The part of `check` that has to do with the model, the method and the target."""
    anatomy, past = anatomy_of(config_of(recipe.model)), ReplayState.of(history)
    goal = budget_for(recipe, anatomy, get_scorer(recipe.method), past.undone)
    past.check(recipe, anatomy, goal)
    return goal


def check_measuring(recipe: Recipe) -> tuple[list[Task | Pages], list[str], CalibrationText]:
    """The part of `check` that has to do with texts and tasks.

    Returns:
        The recipe's tasks, the documents perplexity is measured on, and the text it calibrates on.

    Raises:
        UserError: an unreadable text or task, or calibration on the very text that is held back.
    """
    tasks = load_tasks(recipe.tasks, recipe.items)
    heldout = documents(recipe.heldout, "held-back text")
    text = CalibrationText.read(recipe)
    if {d for domain in text.domains for d in domain.documents} & set(heldout):
        raise UserError(
            f"The calibration text '{title(recipe.calibration)}' holds documents of the held-back text "
            f"'{title(recipe.heldout)}', and a model must not be measured on what it was pruned with. "
            "Choose another text for one of the two."
        )
    return tasks, heldout, text


def evaluate(recipe: Recipe) -> Iterator[ev.Event]:
    """Measure the recipe's model as it is, as a stream of events that ends with Evaluated.

    Raises:
        UserError: as for `run`. Other exceptions can be told by `user_message`.
    """
    tasks, heldout, _ = check_measuring(recipe)
    loaded = yield from load(recipe.model, recipe.dtype)
    bench, depth = evaluator_for(recipe, loaded, tasks, heldout), loaded.model.config.num_hidden_layers
    yield from bench.skipped
    yield (yield from measure(loaded, bench, 0, Clock({MEASURING: bench.tokens * depth}), depth))


def _run(
    recipe: Recipe,
    out: Path | None,
    history: list[ev.Event],
    stop: Callable[[], bool],
    prune_on: bool,
) -> Iterator[ev.Event]:
    began = time.monotonic()
    tasks, heldout, text = check_measuring(recipe)
    check_removing(recipe, history)
    # What was just read is what the card and the exported recipe name, on any machine.
    recipe = replace(recipe, calibration=text.name, heldout=pinned(recipe.heldout))
    past = ReplayState.of(history)
    removals = list(past.removals)

    def stopped() -> ev.Stopped:
        return ev.Stopped(len(removals))

    loaded = yield from stoppable(load(recipe.model, recipe.dtype, past.dtype), stop, stopped)
    calibration = calibration_for(recipe, loaded, text)
    calibration.check()
    anatomy = anatomy_of(loaded.config)
    rows = refit_rows(recipe, loaded, anatomy, calibration)
    goal = budget_of(recipe, anatomy, past.undone)
    if goal.tokens:
        Vocabulary.of(loaded.tokenizer, loaded.config).check(goal.tokens)
    started = _started(recipe, loaded, anatomy, goal, len(removals))
    past.check_same_model(started)
    yield started
    warned = list(warnings(recipe, tasks, heldout, text))
    yield from (w for w in warned if w not in history)

    scorer = get_scorer(recipe.method)
    ahead = looks_ahead(recipe, scorer)
    course = RunState(
        recipe,
        scorer,
        loaded,
        anatomy,
        goal,
        past,
        evaluator_for(recipe, loaded, tasks, heldout),
        calibration,
        Shape.dense(anatomy),
        Clock({}, fixed=EXPORT_SECONDS if out else 0.0),
        tuple(w.message for w in warned),
        rows,
        look_rows(rows, least_tokens(loaded.model, anatomy)) if ahead else [],
        measured={e.iteration: e for e in past.measured},
        final={e.iteration: e for e in past.final},
    )
    yield from course.bench.skipped
    tokens = course.bench.tokens, *(sum(part.numel() for part in p) for p in (rows, course.look))
    done = course.measured, course.final
    plan_clock(course.clock, recipe, course.scorer, anatomy, goal, len(removals), prune_on, *done, tokens)
    yield from stoppable(course.measure(), stop, stopped)
    yield from stoppable(repeat(course, removals), stop, stopped)
    course.removals = removals
    while prune_on and not course.done:
        if recipe.measure == EVERY:
            yield from stoppable(course.measure(), stop, stopped)
        yield from stoppable(iterate(course), stop, stopped)
    ending = bool(rows or goal.tokens) and bool(removals)
    if recipe.measure == EVERY or not ending:
        yield from stoppable(course.measure(), stop, stopped)
    # Without an export, a model that was measured at its end need not be made again.
    if ending and (out is not None or len(removals) not in course.final):
        yield from stoppable(finish(course), stop, stopped)

    if out is not None:
        yield from _export(course, out, started, heldout[0])
    yield ev.Finished(len(removals), course.lost, course.left, time.monotonic() - began, peak_memory())


def _export(course: RunState, out: Path, started: ev.Started, probe: str) -> Iterator[ev.Event]:
    """Write the model as it stands, verified."""
    iterations, shape, recipe = len(course.removals), course.shape, course.recipe
    yield ev.Progress("exporting", iterations, 0, 1, course.clock.elapsed, EXPORT_SECONDS)
    dense, uneven, without = course.measured[0], shape.uneven() or "", course.measured.get(iterations)
    pruned = course.final[iterations] if course.ended else without
    share = pruned.parameters / dense.parameters
    again = course.past.again(recipe, course.goal, course.removals, course.done, share)
    card = model_card(
        recipe,
        started,
        course.loaded.source.licence,
        course.removals,
        dense,
        pruned,
        course.lost,
        uneven,
        again is not None,
        course.warned,
        without if course.ended else None,
        course.refit,
        course.trimmed,
    )
    facts = {"recipe": (again or recipe).to_dict(), "removed": course.lost, **shape.to_dict()}
    verdict = drain(export_checkpoint(course.loaded, shape, out, card, facts, probe))
    yield ev.Exported(
        str(out),
        folder_bytes(out),
        iterations,
        verdict.largest_difference,
        verdict.tokens,
        verdict.seconds,
        uneven,
    )


def _started(
    recipe: Recipe, loaded: Loaded, anatomy: Anatomy, goal: PruningBudget, resumed: int
) -> ev.Started:
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
