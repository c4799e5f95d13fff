"""Measuring a model: perplexity on held-back text, accuracy on tasks, both with standard errors.

Both are generators that yield after each batch (so that a run can be watched and stopped) and
return their result. Neither knows what was pruned.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import rows_of
from ..core.errors import UserError
from ..core.events import Evaluated, Skipped, TaskResult, TextResult
from ..core.progress import map_progress
from .loglikelihood import BATCH_TOKENS, Found, Likelihoods
from .requests import Encoder, context_length
from .standard_tasks import wikitext_detokenized
from .statistics import mean_accuracy, share
from .tasks import Pages, Task

# exp of more is no number.
LARGEST = 700.0

Spelling = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean next-token cross-entropy; `se` over windows, by the delta method."""

    value: float
    se: float
    windows: int
    window_tokens: int


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


def perplexity(
    model: PreTrainedModel, windows: torch.Tensor, spelling: Spelling | None = None
) -> Generator[int, None, Perplexity]:
    """Perplexity over `windows` `(W, T)`, first token of each not counted.

    Args:
        spelling: gives a row of ids as a model with fewer tokens spells it. Perplexity stays per token of
            the windows, so that it is that of the same text before and after.

    Yields:
        How many windows the step measured.
    """
    means: list[float] = []
    per_batch = max(1, BATCH_TOKENS // windows.shape[1])
    for part in windows.split(per_batch):
        spelt = [row if spelling is None else spelling(row) for row in part]
        begins = [1 if spelling is None else len(spelling(row[:1])) for row in part]
        rows, lengths = rows_of(spelt)
        with torch.inference_mode():
            rows = rows.to(model.device)
            logits = model(input_ids=rows, use_cache=False).logits
            for row, scores, begin, end in zip(rows, logits, begins, lengths.tolist(), strict=True):
                nats = F.cross_entropy(scores[begin - 1 : end - 1].float(), row[begin:end], reduction="sum")
                means.append(float(nats) / (windows.shape[1] - 1))
        yield len(part)
    nll = torch.tensor(means, dtype=torch.float64)
    # A model cut too deep can reach infinity, which no JSON number can say.
    value = math.exp(min(float(nll.mean()), LARGEST))
    se = value * float(nll.std()) / math.sqrt(len(nll))
    return Perplexity(value, se, len(nll), windows.shape[1])


class TaskBatches:
    """A task tokenised and packed once for a model's tokenizer, measured as often as needed."""

    def __init__(self, task: Task, encoder: Encoder) -> None:
        """Raises:
        UserError: the tokenizer makes the task unanswerable.
        """
        self.task = task
        pairs = [pair for item in task.items for pair in item.requests]
        try:
            requests = iter(encoder.requests(pairs))
        except UserError as error:
            raise UserError(f"The task {task.name} cannot be measured: {error}") from None
        groups = [[next(requests) for _ in item.choices] for item in task.items]
        self.cut = sum(any(r.cut for r in group) for group in groups)
        self._likelihoods = Likelihoods(groups)

    @property
    def tokens(self) -> int:
        return self._likelihoods.tokens

    def choices(self, model: PreTrainedModel) -> Generator[int, None, list[list[Found]]]:
        """Per item and choice: log-likelihood in nats, and (last words) whether greedy would write it.

        Yields:
            How many tokens the step measured.
        """
        found = iter((yield from self._likelihoods.measure(model, self.task.greedy)))
        return [[next(found) for _ in item.choices] for item in self.task.items]

    def measure(self, model: PreTrainedModel) -> Generator[int, None, TaskResult]:
        """Accuracy of `model`.

        Yields:
            How many tokens the step measured.
        """
        return self.result((yield from self.choices(model)))

    def result(self, found: Sequence[Sequence[Found]]) -> TaskResult:
        """Accuracy from what `choices` found."""
        task, plain, norm = self.task, "", ""
        for item, answers in zip(task.items, found, strict=True):
            if task.greedy:
                plain += "01"[answers[0][1]]
                continue
            values = [likelihood for likelihood, _ in answers]
            weighed = [v / len(c) for v, c in zip(values, item.choices, strict=True)]
            # The first of equal choices wins, as argmax has it.
            plain += "01"[values.index(max(values)) == item.gold]
            norm += "01"[weighed.index(max(weighed)) == item.gold]
        hits = norm if task.metric == "acc_norm" else plain
        return TaskResult(
            task.name,
            *share(hits),
            len(hits),
            task.chance,
            hits,
            task.metric,
            *share(plain),
            *(share(norm) if norm else (None, None)),
            task.digest,
            self.cut,
            task.duplicates,
        )


class PageBatches:
    """Documents tokenised and packed once, every token predicted once: perplexity per word and byte.

    As lm-evaluation-harness measures WikiText: windows of the whole context, side by side in each
    document (the last one reaches back), text detokenised, words and bytes of the text as it was.
    """

    def __init__(self, pages: Pages, encoder: Encoder) -> None:
        self.pages = pages
        self.window = encoder.context
        try:
            documents = [encoder.windows(wikitext_detokenized(p)) for p in pages.pages]
        except UserError as error:
            raise UserError(f"The task {pages.name} cannot be measured: {error}") from None
        self._counts = [len(d) for d in documents]
        self._likelihoods = Likelihoods([[window] for d in documents for window in d])

    @property
    def tokens(self) -> int:
        return self._likelihoods.tokens

    def documents(self, model: PreTrainedModel) -> Generator[int, None, list[float]]:
        """Log-likelihood of each document in nats.

        Yields:
            How many tokens the step measured.
        """
        found = iter((yield from self._likelihoods.measure(model)))
        return [sum(next(found)[0] for _ in range(count)) for count in self._counts]

    def measure(self, model: PreTrainedModel) -> Generator[int, None, TextResult]:
        """Perplexity of `model`.

        Yields:
            How many tokens the step measured.
        """
        nats = -sum((yield from self.documents(model)))
        # An empty text at either end counts as a word, as the harness splits.
        words = sum(len(re.split(r"\s+", p)) for p in self.pages.pages)
        size = sum(len(p.encode()) for p in self.pages.pages)
        return TextResult(
            self.pages.name,
            math.exp(min(nats / words, LARGEST)),
            math.exp(min(nats / size, LARGEST)),
            nats / size / math.log(2),
            len(self.pages.pages),
            words,
            self.tokens,
            self.window,
        )


class Evaluator:
    """What a run measures with, prepared once and used after every removal.

    Attributes:
        skipped: tasks that the model's tokenizer makes unanswerable; they are left out.
    """

    def __init__(
        self,
        tasks: Sequence[Task | Pages],
        windows: torch.Tensor,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig,
        spelling: Spelling | None = None,
    ) -> None:
        """Args:
            windows: for perplexity, as `text_windows` makes them.
            spelling: see `perplexity`.

        Raises:
            UserError: no task is left.
        """
        self.asked, self.windows, self.spelling = tuple(tasks), windows, spelling
        self.tasks: list[TaskBatches] = []
        self.texts: list[PageBatches] = []
        self.skipped: list[Skipped] = []
        encoder = Encoder(tokenizer, context_length(config, tokenizer))
        for task in tasks:
            try:
                if isinstance(task, Task):
                    self.tasks.append(TaskBatches(task, encoder))
                else:
                    self.texts.append(PageBatches(task, encoder))
            except UserError as error:
                self.skipped.append(Skipped(task.name, str(error)))
        if not self.tasks:
            raise UserError(" ".join(s.reason for s in self.skipped))

    def spelt(
        self, spelling: Spelling, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> Evaluator:
        """The same texts and tasks for a model with fewer tokens."""
        return Evaluator(self.asked, self.windows, tokenizer, config, spelling)

    @property
    def tokens(self) -> int:
        """What one measurement reads."""
        return self.windows.numel() + sum(t.tokens for t in (*self.tasks, *self.texts))

    def measure(self, model: PreTrainedModel, iteration: int) -> Generator[int, None, Evaluated]:
        """Perplexity and every task for the model as it stands.

        Yields:
            How many tokens the step measured.
        """
        began, results, texts = time.monotonic(), [], []
        width = self.windows.shape[1]
        ppl = yield from map_progress(
            perplexity(model, self.windows, self.spelling), lambda count: count * width
        )
        for task in self.tasks:
            results.append((yield from task.measure(model)))
        for text in self.texts:
            texts.append((yield from text.measure(model)))
        return Evaluated(
            iteration,
            model.config.num_hidden_layers,
            sum(p.numel() for p in model.parameters()),
            ppl.value,
            ppl.se,
            ppl.windows,
            ppl.window_tokens,
            *mean_accuracy(results),
            tuple(results),
            time.monotonic() - began,
            tuple(texts),
        )
