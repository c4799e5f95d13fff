"""Learning from the dense model, step by step: never worse, and continued where it was left off."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ..core import portions
from ..core.device import is_out_of_memory
from ..core.finite import NotFinite
from ..core.process_group import current
from .attention import fast_attention
from .distillation import learn, predicting_only
from .optimiser import RISING, STEP_ROWS, Diverged, Optimiser, Schedule, learning, pass_rows
from .watch import Look, Watch

# What ends learning and leaves the run whole.
FAULTS = (Diverged, NotFinite)
# Looks without a better state after which learning has stopped helping.
PATIENCE = 3
# The share of the steps until then on which the rate then falls; what is learnt settles.
SETTLING = 0.25
# Nats per token beyond twice the divergence at the start: learning that led so far away has diverged.
AWAY = 0.5


@dataclass(frozen=True)
class Plan:
    """How long it is learnt.

    Attributes:
        tokens: how many are learnt from, at most.
        rate: the highest learning rate.
        looks: after so many steps the state is looked at.
        until_level: stop as soon as it does not help any more; otherwise all `tokens` are learnt from.
    """

    tokens: int
    rate: float
    looks: int
    until_level: bool


@dataclass(frozen=True)
class Outcome:
    """What learning came to.

    Attributes:
        tokens: learnt from.
        start, best: how the model did before, and does with the weights that were kept.
        fault: why it ended early, as a sentence; empty where it did not.
        settled: whether it ended because it did not help any more.
    """

    tokens: int
    start: Look
    best: Look
    fault: str = ""
    settled: bool = False

    @property
    def helped(self) -> bool:
        """Whether the weights are others than before."""
        return self.best.tokens > 0


class Trainer:
    """Learning under way.

    Args:
        pruned: learns, in place; `dense` is what it learns from.
        rows: what is learnt from, int64 `(N, T)`; `same` the same text by the dense model's ids.
        seed: decides the order in which rows are read.
        save: called with a state to continue from, whenever that is worth keeping.
    """

    def __init__(
        self,
        pruned: PreTrainedModel,
        dense: PreTrainedModel,
        rows: torch.Tensor,
        same: torch.Tensor,
        watch: Watch,
        plan: Plan,
        seed: int,
        save: Callable[[Mapping[str, Any]], None] = lambda state: None,
    ) -> None:
        self.pruned, self.dense, self.rows, self.same = pruned, dense, rows, same
        self.watch, self.plan, self.seed, self.save = watch, plan, seed, save
        self._watch = watch
        self.step, self.losses = 0, (0.0, 0)
        self.looks: list[Look] = []
        self.best = 0
        last = max(1, -(-plan.tokens // self.step_tokens))
        self.last = last
        self.schedule = Schedule(plan.rate) if plan.until_level else Schedule(plan.rate, RISING, last)
        self._optimiser: Optimiser | None = None
        self._best_weights: dict[str, torch.Tensor] = {}

    @property
    def step_tokens(self) -> int:
        """Tokens in one step."""
        return STEP_ROWS * self.rows.shape[1]

    @property
    def tokens(self) -> int:
        """Learnt from so far."""
        return self.step * self.step_tokens

    def state(self) -> dict[str, Any]:
        """All that what follows depends on, for `train`."""
        assert self._optimiser is not None
        return {
            "step": self.step,
            "last": self.last,
            "losses": list(self.losses),
            "looks": [asdict(look) for look in self.looks],
            "best": self.best,
            "schedule": asdict(self.schedule),
            "best_weights": self._best_weights,
            **self._optimiser.state(),
        }

    def _restore(self, state: Mapping[str, Any], optimiser: Optimiser) -> None:
        self.step, self.last, self.best = state["step"], state["last"], state["best"]
        self.losses = (state["losses"][0], state["losses"][1])
        self.looks = _looks(state)
        self.schedule = Schedule(**state["schedule"])
        self._best_weights = {n: w.to(self.pruned.device) for n, w in state["best_weights"].items()}
        optimiser.restore(state)

    def train(self, state: Mapping[str, Any] | None = None) -> Generator[int | Look, None, Outcome]:
        """Learn, and leave the pruned model with the best weights that were seen.

        Args:
            state: what `save` was given last, to continue from there.

        Yields:
            Tokens learnt from so far, after every pass, and a `Look` whenever there was one.

        Raises:
            NotFinite: a likelihood is not a finite number before anything was learnt.
        """
        fault = ""
        with (
            learning(self.pruned) as weights,
            fast_attention(self.pruned, self.dense),
            predicting_only(self.dense, self.watch.kept) as kept,
        ):
            self._watch = replace(self.watch, kept=kept)
            self._optimiser = optimiser = Optimiser(weights)
            try:
                if state is None:
                    self._best_weights = optimiser.copy()
                else:
                    self._restore(state, optimiser)
                    state = None  # it is as large as what was restored from it
                while True:
                    if self._look_is_due:
                        yield from self._look()
                        self.save(self.state())
                    if self.step >= self.last:
                        break
                    yield from self._step(optimiser)
            except GeneratorExit:  # stopped: what was learnt is kept
                optimiser.forget()
                if self.looks:
                    self.save(self.state())
                raise
            except Exception as error:
                # What had helped until then is kept.
                fault = _fault(error)
                if not fault or not self.looks or not leaves_others(error):
                    raise
            finally:
                if self._best_weights:
                    optimiser.put(self._best_weights)
        settled = self.plan.until_level and self.schedule.falls is not None
        return Outcome(self.tokens, self.looks[0], self.looks[self.best], fault, settled)

    @property
    def _look_is_due(self) -> bool:
        due = self.step % self.plan.looks == 0 or self.step >= self.last
        return due and (not self.looks or self.looks[-1].tokens < self.tokens)

    def _step(self, optimiser: Optimiser) -> Generator[int, None, None]:
        chosen, loss = self._order(self.step), None
        while loss is None:
            loss = yield from self._passes(optimiser, chosen)
        if not math.isfinite(loss):
            raise Diverged
        optimiser.step(self.schedule.at(self.step))
        self.step += 1
        self.losses = (self.losses[0] + loss, self.losses[1] + chosen.numel() * self.rows.shape[1])
        yield self.tokens

    def _passes(self, optimiser: Optimiser, chosen: torch.Tensor) -> Generator[int, None, float | None]:
        """Collect the gradient of a step on the rows `chosen`, which several processes share.

        Returns:
            The sum of the loss; None where memory ran out, and the step is begun anew with fewer rows at a
            time.
        """
        loss, count, group = 0.0, portions.size(pass_rows(self.pruned.device)), current()
        own = group.share(chosen.tolist())
        try:
            for part in (own[begin : begin + count] for begin in range(0, len(own), count)):
                ids = self.rows[part].to(self.pruned.device)
                positions = chosen.numel() * ids.shape[1]
                loss += learn(self.pruned, self.dense, ids, self.same[part], self._watch.kept, positions)
                optimiser.collect()
                yield self.tokens
        except Exception as error:
            if count < 2 or not is_out_of_memory(error):
                raise
        else:
            # Not tried again where it fails: the others may have gone on with what this process gave them.
            return optimiser.add_up(group, loss)
        # No exception is under way here, so that what the attempt held is let go.
        optimiser.forget()
        portions.halve(count)
        return None

    def _order(self, step: int) -> torch.Tensor:
        """Numbers of the rows of a step: all rows in a new order, then again."""
        count, found = len(self.rows), []
        for place in range(step * STEP_ROWS, (step + 1) * STEP_ROWS):
            order = list(range(count))
            random.Random(f"{self.seed}/recover/order/{place // count}").shuffle(order)
            found.append(order[place % count])
        return torch.tensor(found)

    def _look(self) -> Generator[int | Look, None, None]:
        loss = self.losses[0] / self.losses[1] if self.losses[1] else None
        looking = self._watch.look(self.pruned, self.dense, self.tokens, loss)
        while True:
            try:
                next(looking)
            except StopIteration as end:
                look: Look = end.value
                break
            yield self.tokens
        if not math.isfinite(look.heldout):
            raise Diverged
        self.looks.append(look)
        self.losses = (0.0, 0)
        if look.better(self.looks[self.best], self.looks[0]):
            assert self._optimiser is not None
            self.best = len(self.looks) - 1
            self._optimiser.copy_over(self._best_weights)
        since = len(self.looks) - 1 - self.best
        if self.plan.until_level and self.schedule.falls is None and since >= PATIENCE:
            self.last = min(self.last, self.step + max(1, round(SETTLING * self.step)))
            self.schedule = Schedule(self.plan.rate, self.step, self.last)
        yield look
        if look.heldout > 2 * self.looks[0].heldout + AWAY:
            raise Diverged("its predictions had gone far away from the whole model's")


def reached(state: Mapping[str, Any]) -> Outcome:
    """What a saved state came to, where it cannot be gone on from."""
    looks = _looks(state)
    return Outcome(looks[-1].tokens, looks[0], looks[state["best"]])


def _looks(state: Mapping[str, Any]) -> list[Look]:
    pairs = ("answers", "parts")
    return [Look(**look | {name: tuple(look[name]) for name in pairs}) for look in state["looks"]]


def leaves_others(error: Exception) -> bool:
    """Whether a run may go on after an error in learning. Where several processes share it, only after one
    that all of them see alike."""
    return current().size == 1 or isinstance(error, Diverged)


def _fault(error: Exception) -> str:
    """Why learning ends, in a sentence; empty for a fault of this program."""
    if isinstance(error, FAULTS):
        return str(error)
    return "It ended early because memory ran out." if is_out_of_memory(error) else ""
