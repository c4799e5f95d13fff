"""The one mechanism: a recipe goes in, a stream of events comes out.

`run` is a generator. The command line prints it, the run directory records it, the page draws it,
the tests assert on it; none of them does any pruning of its own. It knows no run directory: what
was decided before (`history`) comes in as events, the export goes where `out` says.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from . import events as ev
from .allocate import budget, lowest
from .card import model_card
from .checkpoint import Loaded, load
from .clock import MEASURING, SCORING, Clock
from .errors import UserError
from .evaluation import Bench, text_windows
from .export import folder_bytes, write_checkpoint
from .families import blocks_of
from .machine import peak_memory
from .recipe import Recipe
from .scorers import Scorer, method
from .sites import Site, block_sites
from .streams import mapped
from .surgery import remove_blocks
from .tasks import Pages, Task, load_task
from .texts import calibration_texts, documents
from .views import Pair, draw_pairs

EXPORT_SECONDS = 15.0
T = TypeVar("T")


class _Stop(Exception):
    """The user asked to stop."""


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
        history: events of an earlier attempt at the same recipe: removals already decided are
            replayed, what was measured is not measured again.
        stop: asked after every batch; true ends the run with Stopped.
        prune_on: False removes nothing more, and exports the model as pruned so far.

    Raises:
        Exception: only for a fault of this program, after a Failed event was yielded.
    """
    try:
        yield from _run(recipe, out, list(history), stop, prune_on)
    except _Stop:
        pass
    except Exception as error:
        message = user_message(error)
        if message is None:
            yield ev.Failed(f"Unexpected fault ({type(error).__name__}: {error}). Please report it.")
            raise
        yield ev.Failed(message)


def check(recipe: Recipe) -> tuple[list[Task | Pages], list[str]]:
    """Whatever can be said to be wrong before a model is downloaded or a run is made.

    Returns:
        The recipe's tasks, and the documents perplexity is measured on.

    Raises:
        UserError: an unknown method, an unreadable text or task, or calibration on the very text
            that is held back.
    """
    method(recipe.method)
    tasks = [load_task(name, recipe.items) for name in recipe.tasks]
    if not any(isinstance(t, Task) for t in tasks):
        raise UserError("Choose at least one task with right and wrong answers, for example endings.")
    names = [t.name for t in tasks]
    if len(set(names)) < len(names):
        raise UserError(f"Two tasks have the same name ({', '.join(names)}); rename one of the files.")
    heldout = documents(recipe.heldout, "held-back text")
    calibration = {d for domain in calibration_texts(recipe.calibration) for d in domain}
    if calibration & set(heldout):
        raise UserError(
            f"The calibration text '{recipe.calibration}' holds documents of the held-back text "
            f"'{recipe.heldout}', and a model must not be measured on what it was pruned with. "
            "Choose another text for one of the two."
        )
    return tasks, heldout


def evaluate(recipe: Recipe) -> Iterator[ev.Event]:
    """Measure the recipe's model as it is, as a stream of events that ends with Evaluated.

    Raises:
        UserError: as for `run`. Other exceptions can be told by `user_message`.
    """
    tasks, heldout = check(recipe)
    loaded = yield from load(recipe.model, recipe.dtype)
    bench = _bench(recipe, loaded, tasks, heldout)
    yield from bench.skipped
    clock = Clock({MEASURING: bench.tokens * loaded.model.config.num_hidden_layers})
    result = yield from _measure(loaded, bench, 0, clock, lambda: False, ())
    yield result


def user_message(error: Exception) -> str | None:
    """What to tell the user about `error`; None where it is a fault of this program."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "The disk is full. Make room, then resume the run; nothing decided is lost."
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
        return (
            "The machine ran out of memory. Close other programs and resume the run (nothing decided is "
            "lost), or start a new one with shorter windows or a smaller model."
        )
    return None


def _run(
    recipe: Recipe,
    out: Path | None,
    history: list[ev.Event],
    stop: Callable[[], bool],
    prune_on: bool,
) -> Iterator[ev.Event]:
    began = time.monotonic()
    scorer = method(recipe.method)
    tasks, heldout = check(recipe)
    removals = [e for e in history if isinstance(e, ev.Removed)]
    loaded = yield from _stoppable(load(recipe.model, recipe.dtype), stop, removals)
    model = loaded.model
    _draw(recipe, loaded, 1)

    total = sum(p.numel() for p in model.parameters())
    costs = tuple(site.cost for site in _sites(loaded, range(model.config.num_hidden_layers)))
    planned = budget(costs, total, recipe.target)
    measured = {e.iteration: e for e in history if isinstance(e, ev.Evaluated)}
    started = ev.Started(
        model=loaded.source.name,
        origin=loaded.source.origin,
        model_type=model.config.model_type,
        blocks=len(costs),
        parameters=total,
        block_parameters=costs,
        method=recipe.method,
        target=recipe.target,
        planned=planned.count,
        planned_share=planned.share,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        resumed=len(removals),
    )
    _check_same_model(started, history)
    yield started

    bench = _bench(recipe, loaded, tasks, heldout)
    yield from bench.skipped
    count = planned.count if prune_on else len(removals)
    clock = _plan_clock(recipe, scorer, bench, len(costs), len(removals), count, measured, out)

    def measure(iteration: int) -> Iterator[ev.Event]:
        result = yield from _measure(loaded, bench, iteration, clock, stop, removals)
        measured[iteration] = result
        yield result

    if 0 not in measured:
        yield from measure(0)
    alive = [b for b in range(len(costs)) if b not in {r.block for r in removals}]
    remove_blocks(model, [r.block for r in removals])
    if len(removals) not in measured:
        yield from measure(len(removals))
    while len(removals) < count:
        iteration = len(removals) + 1
        scored = yield from _score(recipe, loaded, scorer, iteration, alive, clock, stop, removals)
        yield scored
        block = lowest(scored.scores)
        remove_blocks(model, [alive.index(block)])
        alive.remove(block)
        score = scored.scores[block]
        largest = max(s for s in scored.scores if s is not None)
        left = sum(p.numel() for p in model.parameters())
        removals.append(ev.Removed(iteration, block, score, score / largest if largest else 1.0, left))
        yield removals[-1]
        yield from measure(iteration)

    removed = tuple(r.block for r in removals)
    if out is not None:
        yield ev.Progress("exporting", len(removals), 0, 1, clock.elapsed, EXPORT_SECONDS)
        card = model_card(
            recipe, started, loaded.source.licence, removals, measured[0], measured[len(removals)]
        )
        # A run exported early says what it reached, so that its recipe makes this very model again.
        reached = 1 - measured[len(removals)].parameters / total
        again = recipe if len(removals) == planned.count else replace(recipe, target=reached)
        facts = {"recipe": again.to_dict(), "removed_blocks": list(removed)}
        verdict = write_checkpoint(loaded, out, card, facts, heldout[0])
        yield ev.Exported(
            str(out),
            folder_bytes(out),
            removed,
            verdict.largest_difference,
            verdict.tokens,
            verdict.seconds,
        )
    left = sum(p.numel() for p in model.parameters())
    yield ev.Finished(removed, left, time.monotonic() - began, peak_memory())


def _bench(recipe: Recipe, loaded: Loaded, tasks: list[Task | Pages], heldout: list[str]) -> Bench:
    tokens = min(recipe.perplexity_tokens, _context(loaded))
    windows = text_windows(heldout, loaded.tokenizer, tokens, recipe.perplexity_windows)
    return Bench(tasks, windows, loaded.tokenizer, loaded.model.config)


def _context(loaded: Loaded) -> int:
    """The longest input the model reads, in tokens."""
    # Models with rotary positions and no stated limit read as far as they are asked to.
    return getattr(loaded.model.config, "max_position_embeddings", None) or 2**30


def _draw(recipe: Recipe, loaded: Loaded, iteration: int) -> list[Pair]:
    """An iteration's calibration pairs, none longer than the model can read."""
    pairs = draw_pairs(recipe, loaded.tokenizer, iteration)
    longest, context = max(len(v.ids) for p in pairs for v in (p.clean, p.other)), _context(loaded)
    if longest > context:
        raise UserError(
            f"This model reads at most {context} tokens, and the views of {recipe.window_tokens}-token "
            f"windows have up to {longest}. Choose shorter windows."
        )
    return pairs


def _sites(loaded: Loaded, numbers: Sequence[int]) -> list[Site]:
    return block_sites(blocks_of(loaded.model), numbers)


def _check_same_model(now: ev.Started, history: Sequence[ev.Event]) -> None:
    """A resumed run must go on with the very model it began with."""
    for event in history:
        if isinstance(event, ev.Started):
            before = (event.model, event.origin, event.parameters, event.dtype)
            if before != (now.model, now.origin, now.parameters, now.dtype):
                raise UserError(
                    f"This run began with {event.model} ({event.origin}, {event.dtype}), but the same "
                    f"reference now gives {now.model} ({now.origin}, {now.dtype}). Start a new run."
                )


def _plan_clock(
    recipe: Recipe,
    scorer: Scorer,
    bench: Bench,
    blocks: int,
    done: int,
    count: int,
    measured: dict[int, ev.Evaluated],
    out: Path | None,
) -> Clock:
    scoring = sum(_scoring_work(recipe, scorer, blocks - i) for i in range(done, count))
    again = [i for i in (0, *range(done, count + 1)) if i not in measured]
    measuring = sum(bench.tokens * (blocks - i) for i in set(again))
    return Clock({SCORING: scoring, MEASURING: measuring}, EXPORT_SECONDS if out else 0.0)


def _scoring_work(recipe: Recipe, scorer: Scorer, blocks: int) -> float:
    return recipe.windows * recipe.window_tokens * scorer.passes * blocks


def _measure(
    loaded: Loaded,
    bench: Bench,
    iteration: int,
    clock: Clock,
    stop: Callable[[], bool],
    removals: Sequence[ev.Removed],
) -> Generator[ev.Event, None, ev.Evaluated]:
    """Perplexity and every task for the model as it stands."""
    done, blocks = 0, loaded.model.config.num_hidden_layers
    clock.skip()

    def step(tokens: int) -> ev.Progress:
        nonlocal done
        done += tokens
        clock.step(MEASURING, tokens * blocks)
        return ev.Progress("measuring", iteration, done, bench.tokens, clock.elapsed, clock.remaining())

    work = mapped(bench.measure(loaded.model, iteration), step)
    return (yield from _stoppable(work, stop, removals))


def _score(
    recipe: Recipe,
    loaded: Loaded,
    scorer: Scorer,
    iteration: int,
    alive: Sequence[int],
    clock: Clock,
    stop: Callable[[], bool],
    removals: Sequence[ev.Removed],
) -> Generator[ev.Event, None, ev.Scored]:
    """One iteration's scores, on views drawn anew."""
    began, total = time.monotonic(), len(alive) + len(removals)
    pairs = _draw(recipe, loaded, iteration)
    blocks = blocks_of(loaded.model)
    work = _scoring_work(recipe, scorer, len(alive)) / len(pairs)
    clock.skip()

    def step(done: int) -> ev.Progress:
        clock.step(SCORING, work)
        return ev.Progress("scoring", iteration, done, len(pairs), clock.elapsed, clock.remaining())

    scoring = scorer.score(loaded.model, blocks, _sites(loaded, alive), pairs)
    found = yield from _stoppable(mapped(scoring, step), stop, removals)
    scores: list[float | None] = [None] * total
    for block, score in zip(alive, found, strict=True):
        scores[block] = float(score)
    return ev.Scored(iteration, tuple(scores), time.monotonic() - began)


def _stoppable(
    work: Generator[ev.Event, None, T], stop: Callable[[], bool], removals: Sequence[ev.Removed]
) -> Generator[ev.Event, None, T]:
    """Pass events on, asking after each whether to stop."""
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            return end.value
        yield event
        if stop():
            yield ev.Stopped(tuple(r.block for r in removals))
            raise _Stop
