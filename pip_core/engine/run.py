"""The one mechanism: a recipe goes in, a stream of events comes out.

`run` is a generator. The command line prints it, the run directory records it, the page draws it, the tests
assert on it; none of them does any pruning of its own. It goes through the list of stages and names none of
them. It knows no run directory: what was decided before (`history`) comes in as events, the export is written
where `out` says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..core import events as ev
from ..core import notices, portions
from ..core.accelerator import device
from ..core.decisions import Decided, settled
from ..core.device import is_out_of_memory, peak_memory, user_message
from ..core.memory import give_back
from ..core.network import NotDownloaded, without_downloads
from ..core.process_group import current
from ..core.progress import Halted, stoppable
from ..core.recipe import STREAMED, Recipe
from ..core.repeatable import repeatable
from ..core.settings import AUTO
from ..structure.anatomy import Anatomy
from .aim import aimed
from .context import Context
from .identity import folder_contents
from .stage import Stage
from .stages import stages_for
from .state import RunState
from .together import together


def run(
    recipe: Recipe,
    out: Path | None = None,
    history: Sequence[ev.Event] = (),
    stop: Callable[[], bool] = lambda: False,
    prune_on: bool = True,
    scratch: Path | None = None,
) -> Generator[ev.Event, None, None]:
    """Prune a model, as a stream of events that ends with Finished, Stopped or Failed.

    Args:
        out: folder for the exported checkpoint; without it nothing is exported.
        history: events of earlier attempts: removals already decided are replayed, what was measured
            is not measured again, units whose removal was undone stay.
        stop: asked after every batch; true ends the run with Stopped.
        prune_on: False removes nothing more, and exports the model as pruned so far.
        scratch: folder where stages keep what they continue from, beside the events; made when needed.

    Raises:
        Exception: only for a fault of this program, after a Failed event was yielded.
    """
    notices.begin()
    portions.begin()
    try:
        with together(recipe, out, history, prune_on, scratch), repeatable(device()):
            yield from _where_it_fits(partial(_run, recipe, out, stop, prune_on, scratch), history)
    except Halted:
        pass
    except _StageError as failure:
        yield from _failed(failure.error, failure.stage)
    except Exception as error:
        yield from _failed(error)
    finally:
        portions.begin()  # whoever comes next has the memory that this run had


class _StageError(Exception):
    """What went wrong in a stage.

    Attributes:
        can_stream: whether the run held weights in memory that it could read from disk instead, and its
            recipe leaves that open.
    """

    def __init__(self, error: Exception, stage: str, can_stream: bool) -> None:
        self.error = error
        self.stage = stage
        self.can_stream = can_stream


def _failed(error: Exception, stage: str = "") -> Iterator[ev.Event]:
    """Say that the run failed; a fault of this program is then raised."""
    message = user_message(error)
    if message is None:
        yield ev.Failed(f"Unexpected fault ({type(error).__name__}: {error}). Please report it.", stage)
        raise error
    yield ev.Failed(message, stage)


def _where_it_fits(
    attempt: Callable[..., Iterator[ev.Event]], history: Sequence[ev.Event]
) -> Iterator[ev.Event]:
    """The run; and where memory runs out in the middle of it, on from there with weights read from disk.

    Args:
        attempt: `_run` of all but its history and placement.
    """
    seen = list(history)
    failure = ""
    try:
        for event in attempt(history):
            seen.append(event)
            yield event
    except _StageError as error:
        if current().size > 1 or not is_out_of_memory(error.error) or not error.can_stream:
            raise
        failure = error.stage
    # No exception is under way here, so that what the attempt held is let go.
    if failure:
        portions.release()
        yield ev.Warned(
            f"Memory ran out in '{failure}'. The run goes on from there with the model's weights read from "
            "disk, block by block, which takes longer and comes to the same."
        )
        yield from attempt(seen, STREAMED)


def _can_stream(state: RunState) -> bool:
    return state.recipe.placement == AUTO and state.placement != STREAMED and not state.not_streamed


def check(
    recipe: Recipe,
    history: Sequence[ev.Event] = (),
    exporting: bool = True,
    pruning: bool = True,
    placement: str = "",
) -> Context:
    """Whatever can be said to be wrong before a model is downloaded or a run is made.

    Args:
        history: events that the run would go on from.
        placement: where the weights are to be; empty where that is still to be found out.

    Returns:
        What is known of the run, its budget among it.

    Raises:
        UserError: what is wrong, from the first stage that objects.
    """
    recipe = aimed(recipe)
    context = Context(recipe, stages_for(recipe), history, exporting, pruning, placement=placement)
    for stage in context.stages:
        stage.check(context)
    if context.past.started:
        context.past.check_same_contents(recipe, context.contents)
    return context


def check_without_downloads(
    recipe: Recipe, history: Sequence[ev.Event] = (), anatomy: Anatomy | None = None
) -> Context:
    """As `check`, for a process that must not wait for downloads. What depends on data that is not on this
    machine is left for the run to check.

    Args:
        anatomy: of the recipe's model, where it is known.

    Raises:
        UserError: as `check`.
    """
    with without_downloads():
        recipe = aimed(recipe)
        context = Context(recipe, stages_for(recipe), history, anatomy=anatomy)
        for stage in context.stages:
            with suppress(NotDownloaded):
                stage.check(context)
        if context.past.started:
            context.past.check_same_contents(recipe, folder_contents(recipe))
            for stage in context.stages:
                with suppress(NotDownloaded):
                    context.past.check_same_contents(recipe, stage.contents(context))
    return context


def hands_over(recipe: Recipe) -> bool:
    """Whether blocks are removed with a view to what a later stage can give back of them."""
    return any(stage.enabled and stage.hands_over for stage in stages_for(recipe))


def _without(state: RunState, stage: Stage) -> ev.Event:
    """Say that an export does without a stage, or with what it had come to."""
    why = f"failed: {state.left_out[stage]} Resume the run to try it again."
    if stage.goes_on(state):
        warning = ev.Warned(f"This export is made with what '{stage.title}' had come to before it {why}")
    else:
        warning = ev.Warned(f"This export is made without '{stage.title}', which {why}")
    state.warnings.append(warning.message)
    return warning


def _earlier_result(state: RunState, stage: Stage, later: Sequence[Stage]) -> ev.Event | None:
    """What a stage came to before, where it need not be repeated because of a later one that goes on; None
    where it is to be run."""
    if not stage.weights_only:
        return None
    done = [e for e in state.history if e.result_of == stage.name and e.reached == len(state.removals)]
    follow = (s for s in later if s in state.left_out or (s in state.stages and s.needed(state)))
    return done[-1] if done and any(s.goes_on(state) for s in follow) else None


def _noticed(state: RunState) -> Iterator[ev.Event]:
    """What was said since the last event."""
    for notice in notices.taken():
        if notice.on_card:
            state.warnings.append(notice.message)
        yield ev.Warned(notice.message)


def _run(
    recipe: Recipe,
    out: Path | None,
    stop: Callable[[], bool],
    prune_on: bool,
    scratch: Path | None,
    history: Sequence[ev.Event],
    placement: str = "",
) -> Iterator[ev.Event]:
    recipe = settled(recipe, history)
    context = check(recipe, history, out is not None, prune_on, placement)
    _ = context.placement_words  # by the memory at hand before anything is loaded
    state = RunState(context, out, scratch)

    def stopped() -> ev.Event:
        return ev.Stopped(state.decided)

    try:
        stages = list(state.asked)
        for place, stage in enumerate(stages):
            if stage in state.left_out:
                yield _without(state, stage)
                if not stage.goes_on(state):
                    continue
            elif stage not in state.stages or not stage.needed(state):
                continue
            if stage.by_one_process and not current().first:
                continue
            give_back()  # what a stage leaves behind is room that the next one needs
            if place:
                state.plan(s for s in stages[place:] if s in state.stages)
            if (earlier := _earlier_result(state, stage, stages[place + 1 :])) is not None:
                state.results[stage.name], state.changed = earlier, True
                if earlier not in ev.effective_events(state.history):
                    yield earlier
                continue
            try:
                for event in stoppable(stage.run(state), stop, stopped):
                    if event.result_of == stage.name:
                        state.results[stage.name] = event
                    yield from _noticed(state)
                    yield event
                    if isinstance(event, Decided):
                        state.settle(event, [s for s in stages[place + 1 :] if s not in state.left_out])
            except Halted:
                raise
            except Exception as error:
                raise _StageError(error, stage.name, _can_stream(state)) from error
    finally:
        state.discard_partial()
    yield ev.Finished(
        len(state.removals),
        state.removed_description,
        state.parameters,
        state.seconds,
        peak_memory(),
        early=not (prune_on or state.complete),
    )
