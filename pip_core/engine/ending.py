"""What is done once, when all units are gone: tokens go, and what is left is refitted.

Both are done to a copy in memory only, so a run that is resumed, steered or exported again does them
anew from the removals it has.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import torch

from ..core import events as ev
from ..core.progress import map_progress
from ..structure.vocabulary import Vocabulary, VocabularySubset
from .clock import REFITTING
from .refitting import PASSES, repaired
from .schedule import token_work
from .state import RunState, with_progress

# Tokens that are told of those that go, and of those that nearly did.
EXAMPLES = 40


def finish(course: RunState) -> Iterator[ev.Event]:
    """Trim the vocabulary, refit, and measure what that came to."""
    parts, dense = course.rows, course.rows
    if course.goal.tokens:
        trim = yield from _trim(course)
        parts, dense = _respelt(trim, course.rows)
    if course.rows:
        yield from _refit(course, parts, dense)
    yield from course.measure()


def _trim(course: RunState) -> Generator[ev.Event, None, VocabularySubset]:
    """Leave out the tokens that matter least, of the model and of its tokenizer."""
    began, iteration, loaded = time.monotonic(), len(course.removals), course.loaded
    vocabulary = Vocabulary.of(loaded.tokenizer, loaded.model.config)
    pairs = course.calibration.token_pairs(iteration + 1)
    work = token_work(course.recipe, course.scorer, course.depth)
    scoring = course.calibration.score_tokens(course.scorer, loaded.model, pairs)
    scores = yield from with_progress(course, scoring, iteration, len(pairs), work)
    trim = VocabularySubset(vocabulary, vocabulary.keep(scores, vocabulary.rows - course.goal.tokens))
    tokenizer = trim.tokenizer(loaded.tokenizer)
    trim.apply(loaded.model)
    config = copy.deepcopy(loaded.config)
    config.vocab_size = len(trim.kept)
    trim.renumber(config)
    course.bench = course.bench.retokenized(trim.retokenize, tokenizer, loaded.model.config)
    shape, anatomy = course.shape, course.anatomy
    first, last, following = _examples(trim, scores, loaded.tokenizer)
    course.loaded = replace(loaded, tokenizer=tokenizer, config=config)
    gone = f"{course.goal.tokens:,} of {vocabulary.rows:,} tokens"
    course.trimmed = ev.VocabularyPruned(
        iteration,
        course.goal.tokens,
        vocabulary.rows,
        first,
        last,
        following,
        shape.parameters(anatomy) - course.goal.tokens * anatomy.row_parameters,
        f"{shape.removed_description(anatomy)} and {gone}",
        time.monotonic() - began,
    )
    yield course.trimmed
    return trim


def _examples(trim: VocabularySubset, scores: torch.Tensor, tokenizer) -> tuple[tuple[str, ...], ...]:
    """Tokens that went first, that went last, and that would have gone next."""
    order = scores.argsort(stable=True).tolist()
    gone = [i for i in order if i not in trim.new]
    stays = [i for i in order if i in trim.new and i not in trim.vocabulary.fixed]

    def shown(ids: Iterable[int]) -> list[str]:
        # A row without a token, or with a part of a letter, has nothing to show.
        texts = (tokenizer.decode([i]) for i in ids if i in trim.vocabulary.parts)
        return list(islice((text for text in texts if "\ufffd" not in text), EXAMPLES))

    return tuple(shown(gone)), tuple(reversed(shown(reversed(gone)))), tuple(shown(stays))


def _respelt(
    trim: VocabularySubset, rows: list[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The refit's rows as the model with fewer tokens spells them: in its ids, and in the dense model's."""
    if not rows:
        return [], []
    size, length = rows[0].shape
    ids = torch.cat([trim.retokenize(row) for part in rows for row in part])
    new = ids[: len(ids) // length * length].view(-1, length)
    return list(new.split(size)), list(trim.kept[new].split(size))


def _refit(course: RunState, parts: list[torch.Tensor], dense: list[torch.Tensor]) -> Iterator[ev.Event]:
    """Solve the projections of what is left anew."""
    iteration, clock, blocks = len(course.removals), course.clock, len(course.shape.layers)
    work = sum(part.numel() for part in parts) * PASSES * course.depth / blocks
    clock.skip()

    def step(done: int) -> ev.Progress:
        clock.step(REFITTING, work) if done else clock.skip()
        return ev.Progress("refitting", iteration, done, blocks, clock.elapsed, clock.remaining())

    refitting = repaired(course.recipe, course.loaded, course.anatomy, course.shape, parts, dense, iteration)
    course.refit = yield from map_progress(refitting, step)
    yield course.refit
