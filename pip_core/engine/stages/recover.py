"""Recover: what is left learns from the dense model, on some text, for as long as that helps."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch

from ...checkpoints.load import Loaded
from ...core.accelerator import device
from ...core.device import is_out_of_memory
from ...core.errors import UserError
from ...core.events import Event, Progress, Warned
from ...core.memory import give_back
from ...core.process_group import current
from ...core.progress import map_progress
from ...core.recipe import DEMO, measuring_settings
from ...core.units import HEADS
from ...data.calibration import ROW_TOKENS
from ...data.corpora import title
from ...evaluation.tasks import STORY_TASKS, TASKS
from ...recovery.kept import Kept, found_by_all
from ...recovery.material import LEAST_TOKENS, WATCHED_TOKENS, Material, questions
from ...recovery.optimiser import PASS_ROWS, STEP_ROWS, pass_rows
from ...recovery.pace import measure
from ...recovery.trainer import FAULTS, Outcome, Plan, Trainer, leaves_others
from ...recovery.watch import Look, Watch
from ...reporting.description import Description
from ...structure.anatomy import Anatomy
from ..context import Context
from ..sizes import FOOTPRINT_BYTES
from ..stage import Cost, Stage
from ..state import RunState
from .read_texts import contents_of, overlaps, refuse_measured, warn
from .recover_left import Left
from .recover_result import (
    ENDED_THERE,
    Paced,
    Recovered,
    begins_anew,
    learnt_before,
    point_of,
    tokens_in_time,
    why_ended,
)
from .recover_settings import MOST, OFF, SHORT, UNTIL_LEVEL, USUAL, RecoverSettings

# Looks at the state of the model: of a short recovery, and tokens between two of the other.
LOOKS, LOOK_TOKENS = 6, 20_480
# Tokens of the questions of a look, about, which what is left alone reads.
QUESTION_TOKENS = 2200
# Forward passes that learning takes of what is left: one, and the two of the backward pass.
PASSES = 3
# Writing a token takes as long as reading so many.
WRITING = 4
# Bytes of the state for each weight that learns: float32 of the weight, two of AdamW, the best so far.
STATE_BYTES = 16
# Bytes that attention keeps of a head and a pair of positions, see `recovery.attention`.
PRODUCT_BYTES = 2


class Recover(Stage):
    """Let what is left learn from the dense model."""

    name = "recover"
    title = "Recover"
    Settings = RecoverSettings
    Result = Recovered
    changes_model = True
    needs_whole_model = True
    switched_on: ClassVar[Mapping[str, object]] = {"recover": SHORT}

    def __init__(self, recipe) -> None:
        super().__init__(recipe)
        self.material = Material(recipe.recover_text, recipe)
        # Tokens that the minutes of the recipe are, once that was measured.
        self._in_time = 0
        # What an earlier attempt left, once it was looked for.
        self._left: Left | None = None

    @property
    def enabled(self) -> bool:
        return self.recipe.recover != OFF

    @property
    def idle(self) -> Collection[str]:
        return () if self.enabled else {*RecoverSettings.model_fields} - {"recover"}

    @property
    def tokens(self) -> int:
        """Tokens that are learnt from, at most; of those that fit into a time, as many as could be."""
        if self.recipe.recover_minutes:
            return self._in_time or MOST
        return self.recipe.recover_tokens or USUAL[self.recipe.recover]

    def check(self, context: Context) -> None:
        self._in_time = tokens_in_time(context.history)
        if self.recipe.recover_minutes and self.recipe.recover_tokens:
            raise UserError(
                f"Recovery is given {self.recipe.recover_minutes:,} minutes and "
                f"{self.recipe.recover_tokens:,} tokens: state one of them, and 0 for the other.",
                "recover_minutes",
            )
        if self.recipe.recover_tokens and self.recipe.recover_tokens < LEAST_TOKENS:
            raise UserError(
                f"Recovery on {self.recipe.recover_tokens:,} tokens would change nothing: choose at least "
                f"{LEAST_TOKENS:,} (recover_tokens), or 0 for the usual number."
            )
        if own := self.material.own_text:
            refuse_measured(context, own, f"text '{title(self.material.name)}' that recovery learns from")

    def contents(self, context: Context) -> Mapping[str, str]:
        own = self.material.own_text
        return {"recover_text": contents_of(own)} if own else {}

    def pinned(self, state: RunState) -> Mapping[str, str]:
        return {"recover_text": self.material.pinned}

    def _learnt_before(self, context: Context) -> int:
        """Tokens of the recovery that this one goes on from; 0 where it begins."""
        before = learnt_before(context.history)
        return before if before + LEAST_TOKENS <= self.tokens else 0

    def prepare(self, state: RunState) -> None:
        # Where it is not known yet how much is read, it is read then.
        tokens = LEAST_TOKENS if self._timed_later else self.tokens
        self.material.read(state.calibration, tokens, self._learnt_before(state))
        if state.scratch is None:
            return
        # Written anew beside what is there already.
        needed = 2 * STATE_BYTES * _learning(state.anatomy) - Kept(state.scratch, "").size("state")
        place = next(p for p in (state.scratch, *state.scratch.parents) if p.exists())
        if (free := shutil.disk_usage(place).free) < needed:
            raise UserError(
                f"Recovery writes down its state, so that it can be continued: {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB of the disk are free. Make room, or switch recovery off (recover: off)."
            )

    @property
    def _timed_later(self) -> bool:
        """Whether it is still to be measured how many tokens the minutes are."""
        return bool(self.recipe.recover_minutes) and not self._in_time

    def estimate(self, context: Context) -> Cost:
        if self._timed_later:
            return Cost(seconds=60 * self.recipe.recover_minutes, memory={"recovery": _memory(context)})
        passes = PASSES * context.depth(context.planned) + context.depth(0)
        tokens = self.tokens - self._learnt_before(context)
        written = self.material.to_write(tokens) * WRITING * context.depth(0)
        work = {"writing": written * context.finishing}
        work["recovering"] = tokens * passes * context.finishing
        work["looking"] = self._looks(tokens) * _look(context) * context.finishing
        return Cost(work, memory={"recovery": _memory(context)})

    def _between_looks(self, tokens: int) -> int:
        return LOOK_TOKENS if self.recipe.recover == UNTIL_LEVEL else max(1, tokens // LOOKS)

    def _looks(self, tokens: int) -> float:
        """How often the state is looked at where `tokens` are learnt from."""
        return 1 + tokens / self._between_looks(tokens)

    def run(self, state: RunState) -> Iterator[Event]:
        began, left_out = time.monotonic(), self in state.left_out
        ended, earlier = "", self._learnt_before(state)
        before = earlier
        outcome: Outcome | None = None
        try:
            before = earlier if self.goes_on(state) else 0
            assert self._left is not None
            self._left.put(state.loaded.model)
            outcome = self._left.reached
            # Exported before it was done: with what was learnt until then.
            if left_out or (not state.pruning and found_by_all(self._left.begun)):
                state.cut_short |= left_out or not self._left.done
                ended = "" if outcome else ENDED_THERE
            else:
                outcome = yield from self._further(state, earlier, before, began)
        except FAULTS as error:
            if not leaves_others(error):
                raise
            ended = str(error)
        except Exception as error:
            if not is_out_of_memory(error) or not leaves_others(error):
                raise
            ended = "Memory ran out."
        if ended and outcome is not None:
            outcome = replace(outcome, fault=ended)
        # Where an earlier one was gone on from, the weights are others than those that were pruned.
        state.changed |= before > 0
        cut_short = state.cut_short
        # The recipe alone would learn from all of it in one go.
        state.cut_short |= before > 0
        if self._in_time:
            # Elsewhere as many minutes are other tokens.
            state.recipe = state.recipe.replace(recover_tokens=self._in_time, recover_minutes=0)
        if outcome is None:
            seconds = time.monotonic() - began
            yield Recovered(len(state.removals), 0, 0, self._text, 0, 0, 0, 0, 0, seconds, ended, before)
            return
        state.changed |= outcome.helped
        start, best = outcome.start, outcome.best
        yield Recovered(
            len(state.removals),
            outcome.tokens,
            best.tokens,
            self._text,
            start.heldout,
            best.heldout,
            len(start.answers),
            start.right,
            best.right,
            time.monotonic() - began,
            why_ended(outcome, cut_short),
            before,
        )

    def _further(
        self, state: RunState, earlier: int, before: int, began: float
    ) -> Generator[Event, None, Outcome]:
        """Learn, from where an attempt ended where one did: `before` of the tokens `earlier`, of which it is
        all or none."""
        assert self._left is not None
        if own := self.material.own_text:
            yield from warn(state, overlaps(state, own, "text that recovery learns from"))
        if earlier and not before:
            yield Warned("The model that recovery would go on from is not there any more: it begins anew.")
            self.material.read(state.calibration, self.tokens)
        elif not self._left.there and (why := begins_anew(state.history, self.tokens)):
            yield Warned(why)
        dense = state.load_dense()
        if self._timed_later:
            yield from self._time(state, dense, before, began)
        return (yield from self._learn(state, dense, before))

    def goes_on(self, state: RunState) -> bool:
        if self._left is None:
            # Where it is left out of an export, nothing was checked.
            self._in_time = tokens_in_time(state.history)
            before = self._learnt_before(state)
            self._left = Left.find(state, Kept(state.scratch, self._key(state, before)), before > 0)
        return found_by_all(self._left.there)

    @property
    def _text(self) -> str:
        return self.material.words

    def _time(self, state: RunState, dense: Loaded, before: int, began: float) -> Iterator[Event]:
        """Measure how many tokens the minutes since recovery `began` are, and read so many."""
        (ids, *_), (same, *_) = state.as_read([self.material.watched[:STEP_ROWS]])
        subset = state.token_subset
        kept = None if subset is None else subset.kept
        seconds = 60 * self.recipe.recover_minutes
        # Tokens that both models read in a time in which what is left alone reads the questions.
        asked = QUESTION_TOKENS * state.depth_left / (state.depth_left + len(state.anatomy.blocks))
        writes = bool(self.material.to_write(STEP_ROWS))
        timing = measure(state.loaded.model, dense.model, ids, same, kept, writes)
        count = 0

        def step(_: None) -> Progress:
            nonlocal count
            count += 1
            left = state.clock.remaining()
            return Progress("timing", len(state.removals), count, count + 1, state.clock.elapsed, left)

        pace = yield from map_progress(timing, step)

        def beside(tokens: int) -> tuple[int, int]:
            return self.material.to_write(tokens), round(self._looks(tokens) * (WATCHED_TOKENS + asked))

        left = seconds - (time.monotonic() - began)
        tokens = pace.tokens(left, ids.numel(), MOST, beside)
        # Processes that share the run learn from as many tokens; each does a part of them.
        self._in_time = current().gather(before + max(LEAST_TOKENS, tokens))[0]
        yield Paced(
            len(state.removals),
            self.recipe.recover_minutes,
            self._in_time,
            pace.learning,
            pace.looking,
            pace.writing,
        )
        self.material.read(state.calibration, self._in_time, before)
        state.clock.fixed = max(0.0, state.clock.fixed - seconds)
        state.clock.planned |= self.estimate(state).work

    def _learn(self, state: RunState, dense: Loaded, before: int) -> Generator[Event, None, Outcome]:
        """Write what is to be written, and learn; `before` as `_learnt_before`."""
        recipe, key, tokens = self.recipe, self._key(state, before), self.tokens - before
        # What is read further on is not what was read before.
        seed = recipe.seed + before
        kept = Kept(state.scratch if current().first else None, key)
        kept.saver("begun")({})
        wanted = self.material.to_write(tokens)
        if wanted:
            work = wanted * WRITING * len(state.anatomy.blocks)
            known = min(len(dense.tokenizer), dense.config.vocab_size)
            writing = self.material.write(dense.model, known, wanted, seed, kept)
            yield from state.follow(writing, "writing", wanted, work, added=True)
            give_back()  # what the texts were written with is not needed for learning
        watched, same = state.as_read(list(self.material.watched.split(PASS_ROWS)))
        subset = state.token_subset
        asked = STORY_TASKS if recipe.model == DEMO else TASKS
        watch = Watch(
            watched,
            same,
            None if subset is None else subset.kept,
            questions(asked, state.tasks, state.loaded.tokenizer, state.loaded.model.config),
        )
        rows, dense_rows = (torch.cat(part) for part in state.as_read([self.material.rows]))
        saved = self._left.state if self._left is not None else None
        self._left = Left()
        plan = Plan(
            tokens,
            recipe.recover_rate,
            max(1, round(self._between_looks(tokens) / (STEP_ROWS * rows.shape[1]))),
            recipe.recover == UNTIL_LEVEL,
        )
        trainer = Trainer(
            state.loaded.model, dense.model, rows, dense_rows, watch, plan, seed, kept.saver("state")
        )
        done = saved["step"] * trainer.step_tokens if saved else 0
        total = trainer.last * trainer.step_tokens
        whole = self.estimate(state).work["recovering"]
        state.clock.planned["recovering"] = whole * (1 - done / total)
        left = -(-(total - done) // (plan.looks * trainer.step_tokens))
        state.clock.planned["looking"] = (left + (not saved)) * _look(state)
        looks: list[Look] = []
        looked = partial(state.clock.step, "looking", _look(state))
        steps = _counted(trainer.train(saved), looks, looked)
        del saved  # the trainer lets go of it once it is restored
        began, warned = time.monotonic(), False
        following = state.follow(steps, "recovering", total, whole, start=done)
        while True:
            try:
                event = next(following)
            except StopIteration as end:
                return end.value
            yield event
            if kept.fault and not warned:
                warned = True
                then = "goes on from the one before" if kept.size("state") else "begins anew"
                yield Warned(f"{kept.fault} If the run is stopped, recovery {then}.")
            for look in looks:
                speed = (look.tokens - done) / max(1e-9, time.monotonic() - began)
                yield point_of(len(state.removals), look, before, speed if look.tokens > done else 0.0)
            looks.clear()

    def _key(self, state: RunState, before: int) -> str:
        """What a saved state belongs to: this recipe, these removals, what was learnt before."""
        measuring = measuring_settings() - {"model", "dtype", "weights"}
        settings = {n: v for n, v in state.recipe.to_dict().items() if n not in measuring}
        units = [[u.kind, u.block, list(u.units)] for r in state.removals for u in r.units]
        return hashlib.sha256(json.dumps([settings, units, before]).encode()).hexdigest()

    @classmethod
    def describe(cls, result: Recovered) -> Description:
        return Description(
            result.sentence(), "recovered" if result.kept else "", (f"Recovery: {result._words()}",)
        )


def _counted(
    work: Generator[int | Look, None, Outcome], looks: list[Look], looked: Callable[[], None]
) -> Generator[int, None, Outcome]:
    """The steps of learning as numbers of tokens; looks are put into the list, and `looked` is called."""
    done = 0

    def count(step: int | Look) -> int:
        nonlocal done
        if isinstance(step, Look):
            looks.append(step)
            looked()
            done = max(done, step.tokens)
        else:
            done = step
        return done

    return map_progress(work, count)


def _look(context: Context) -> float:
    """Token-blocks of a look at the state."""
    left = context.depth(context.planned)
    return WATCHED_TOKENS * (left + context.depth(0)) + QUESTION_TOKENS * left


def _learning(anatomy: Anatomy) -> int:
    """Weights that learn, of the dense model; fewer are left by then."""
    return anatomy.parameters - anatomy.embedding_parameters


def _memory(context: Context) -> float:
    """Bytes at the peak: both models (the file that the second is read from stays mapped), gradients, AdamW
    and the best weights in float32, float32 masters where the model is not; a batch's activations, what its
    attention keeps, and both models' logits with their gradient."""
    sizes, anatomy = context.sizes, context.anatomy
    share = context.depth(context.planned) / len(anatomy.blocks)
    learning = _learning(anatomy) * share
    each = STATE_BYTES + (4 + sizes.itemsize if sizes.itemsize < 4 else 0)
    tokens = pass_rows(device()) * ROW_TOKENS
    activations = tokens * sizes.itemsize * (share * sum(sizes.block_activations) + 3 * sizes.vocabulary)
    heads = sum(b.widths[HEADS].size * anatomy.queries for b in anatomy.blocks if HEADS in b.widths)
    if sizes.itemsize < 4:
        activations += share * heads * PRODUCT_BYTES * tokens * ROW_TOKENS
    models = sizes.weights * 3
    return FOOTPRINT_BYTES + models + learning * each + activations
