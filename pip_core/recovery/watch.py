"""Whether learning helps: how far the pruned model is from the dense one on text that it does not learn from,
and how it answers questions that it is not measured on."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from ..core.process_group import current
from ..data.rows import count_tokens
from ..evaluation.evaluator import TaskBatches
from .distillation import divergence

# A difference counts where it is more than so many of its standard errors, paired.
ERRORS = 2.0


@dataclass(frozen=True)
class Look:
    """How a state of the model does.

    Attributes:
        tokens: learnt from so far.
        loss: mean loss on what was learnt from since the last look, nats per token; None before the first.
        heldout: mean divergence from the dense model on held-out text, nats per token.
        answers: for each question the log-probability of the right answer among the choices, in nats.
        parts: `heldout` of each batch of held-out text.
    """

    tokens: int
    loss: float | None
    heldout: float
    answers: tuple[float, ...] = ()
    parts: tuple[float, ...] = ()

    @property
    def right(self) -> float:
        """Mean of `answers`; 0 without questions."""
        return sum(self.answers) / len(self.answers) if self.answers else 0.0

    def answers_worse(self, start: Look) -> bool:
        """Whether the questions are answered worse than at the start, by more than noise."""
        return _less(self.answers, start.answers)

    def better(self, other: Look, start: Look) -> bool:
        """Whether this state is to be preferred to another: its predictions are nearer, by more than noise to
        those at the start, and its answers are not worse."""
        nearer = self.heldout < other.heldout and _less(self.parts, start.parts)
        return nearer and not self.answers_worse(start)


def _less(now: Sequence[float], before: Sequence[float]) -> bool:
    """Whether paired values have become less by more than noise."""
    gains = [one - other for one, other in zip(now, before, strict=True)]
    if len(gains) < 2:
        return bool(gains) and gains[0] < 0
    mean = sum(gains) / len(gains)
    spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / (len(gains) - 1) / len(gains))
    return mean < -ERRORS * spread


@dataclass
class Watch:
    """What is looked at.

    Attributes:
        rows: held-out rows of token ids as the pruned model reads them, batches int64 `(B, T)`; `same` the
            same text by the dense model's ids; `kept` as in `distillation.learn`.
        questions: tasks, tokenised for the pruned model.
    """

    rows: Sequence[torch.Tensor]
    same: Sequence[torch.Tensor]
    kept: torch.Tensor | None = None
    questions: Sequence[TaskBatches] = field(default_factory=tuple)

    def look(
        self, pruned: PreTrainedModel, dense: PreTrainedModel, tokens: int, loss: float | None
    ) -> Generator[None, None, Look]:
        """Look at a state of `pruned`; yields after every batch. Several processes share that.

        Raises:
            UserError: a likelihood is not a finite number.
        """
        sums, answers, group = [], [], current()
        for ids, same in group.share(list(zip(self.rows, self.same, strict=True))):
            sums.append(divergence(pruned, dense, ids.to(pruned.device), same, self.kept))
            yield
        sums = [total for some in group.gather(sums) for total in some]
        for task in self.questions:
            choices = task.choices(pruned)
            while True:
                try:
                    next(choices)
                except StopIteration as end:
                    found = end.value
                    break
                yield
            for item, likelihoods in zip(task.task.items, found, strict=True):
                nats = torch.tensor([value for value, _ in likelihoods], dtype=torch.float64)
                gold = nats[item.gold] if len(nats) > 1 else nats[0]
                answers.append(float(gold - nats.logsumexp(0)) if len(nats) > 1 else float(gold))
        parts = tuple(total / part.numel() for total, part in zip(sums, self.rows, strict=True))
        mean = sum(sums) / count_tokens(self.rows)
        return Look(tokens, loss, mean, tuple(answers), parts)
