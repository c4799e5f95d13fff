"""Measuring a model: perplexity on held-back text, accuracy on tasks, both with standard errors.

Both are generators that yield after each batch (so that a run can be watched and stopped) and
return their result. Neither knows what was pruned.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .errors import UserError
from .events import TaskResult
from .rows import rows_of
from .tasks import Task

# Tokens in one forward pass. Enough to keep two cores busy; small enough for logits of 1,024 x
# 50,000 words.
BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean next-token cross-entropy; `se` over windows, by the delta method."""

    value: float
    se: float
    windows: int
    window_tokens: int


@dataclass(frozen=True)
class _Row:
    """One (prompt, choice) to score: the last `scored` tokens of `ids` are the choice."""

    item: int
    choice: int
    ids: torch.Tensor
    scored: int


def text_windows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int, limit: int
) -> torch.Tensor:
    """Windows for perplexity, one after another without overlap: int64, shape `(W, tokens)`.

    With a `limit`, the windows are spread evenly over the text.

    Raises:
        UserError: the text does not fill two windows.
    """
    ids = tokenizer("\n\n".join(documents), return_tensors="pt", verbose=False)["input_ids"][0]
    count = len(ids) // tokens
    if count < 2:
        raise UserError(
            f"The held-back text has {len(ids)} tokens; at least two windows of {tokens} are needed."
        )
    windows = ids[: count * tokens].view(count, tokens)
    if limit and limit < count:
        windows = windows[torch.linspace(0, count - 1, max(limit, 2)).round().long()]
    return windows


def perplexity(model: PreTrainedModel, windows: torch.Tensor) -> Generator[int, None, Perplexity]:
    """Perplexity over `windows` `(W, T)`, first token of each not counted.

    Yields:
        How many windows the step measured.
    """
    means: list[float] = []
    per_batch = max(1, BATCH_TOKENS // windows.shape[1])
    for part in windows.split(per_batch):
        with torch.inference_mode():
            rows = part.to(model.device)
            logits = model(input_ids=rows, use_cache=False).logits
            for row, scores in zip(rows, logits, strict=True):
                means.append(float(F.cross_entropy(scores[:-1].float(), row[1:])))
        yield len(part)
    nll = torch.tensor(means, dtype=torch.float64)
    # A model cut too deep can reach infinity, which no JSON number can say.
    value = math.exp(min(float(nll.mean()), 700.0))
    se = value * float(nll.std()) / math.sqrt(len(nll))
    return Perplexity(value, se, len(nll), windows.shape[1])


class TaskBatches:
    """A task tokenised and packed once for a model's tokenizer, measured as often as needed."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        """Args:
        context: the model's longest input; longer rows lose their beginning.
        """
        self.task = task
        rows = []
        for number, item in enumerate(task.items):
            start = len(tokenizer(item.prompt)["input_ids"])
            for index, choice in enumerate(item.choices):
                ids = tokenizer(f"{item.prompt} {choice}")["input_ids"]
                # The first token has nothing before it, so it cannot be scored.
                scored = min(max(1, len(ids) - start), len(ids) - 1, context - 1)
                rows.append(_Row(number, index, torch.tensor(ids[-context:]), scored))
        rows.sort(key=lambda r: len(r.ids))
        self.batches: list[list[_Row]] = []
        for row in rows:
            last = self.batches[-1] if self.batches else None
            if last is None or (len(last) + 1) * len(row.ids) > BATCH_TOKENS:
                self.batches.append([row])
            else:
                last.append(row)

    @property
    def tokens(self) -> int:
        return sum(len(r.ids) for batch in self.batches for r in batch)

    def measure(self, model: PreTrainedModel) -> Generator[int, None, TaskResult]:
        """Accuracy of `model`.

        Yields:
            How many tokens the step measured.
        """
        best: dict[int, tuple[float, int]] = {}
        for batch in self.batches:
            for row, (likelihood, greedy) in zip(batch, _score_rows(model, batch), strict=True):
                item = self.task.items[row.item]
                if self.task.greedy:
                    best[row.item] = (0.0, 0 if greedy else -1)
                    continue
                candidate = (likelihood / len(item.choices[row.choice]), row.choice)
                # The first of equal choices wins, as argmax has it.
                if row.item not in best or (candidate[0], -candidate[1]) > (
                    best[row.item][0],
                    -best[row.item][1],
                ):
                    best[row.item] = candidate
            yield sum(len(r.ids) for r in batch)
        hits = "".join("1" if best[n][1] == item.gold else "0" for n, item in enumerate(self.task.items))
        share = hits.count("1") / len(hits)
        se = math.sqrt(share * (1 - share) / max(len(hits) - 1, 1))
        return TaskResult(self.task.name, share, se, len(hits), self.task.chance, hits)


def mean_accuracy(results: Sequence[TaskResult]) -> tuple[float, float]:
    """Unweighted mean over tasks, and its standard error (tasks are independent)."""
    count = len(results)
    mean = sum(r.accuracy for r in results) / count
    return mean, math.sqrt(sum(r.se**2 for r in results)) / count


def _score_rows(model: PreTrainedModel, batch: Sequence[_Row]) -> list[tuple[float, bool]]:
    """Per row: log-likelihood of its scored tokens in nats, and whether greedy would write them."""
    rows, lengths = rows_of([r.ids for r in batch])
    found = []
    with torch.inference_mode():
        logits = model(input_ids=rows.to(model.device), use_cache=False).logits
        for row, length, scores in zip(batch, lengths.tolist(), logits, strict=True):
            logp = F.log_softmax(scores[length - 1 - row.scored : length - 1].float(), dim=-1)
            targets = row.ids[-row.scored :].to(logp.device)
            likelihood = float(logp.gather(1, targets[:, None]).sum())
            found.append((likelihood, bool((logp.argmax(-1) == targets).all())))
    return found
