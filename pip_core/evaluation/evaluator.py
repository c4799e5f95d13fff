"""Measuring a model: perplexity on held-out text and accuracy on tasks, both with standard errors.

Both are generators that yield after each batch, so that a run can report progress and be stopped, and
return their result. Neither depends on what was pruned.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..core.accelerator import at_once
from ..core.batching import rows_of
from ..core.errors import UserError
from ..core.events import Evaluated, Skipped, TaskResult, TextResult
from ..core.finite import check_finite
from ..core.portions import in_portions
from ..core.process_group import current
from ..core.progress import map_progress
from ..core.special_tokens import count_at_end
from .loglikelihood import BATCH_TOKENS, Likelihood, Likelihoods
from .requests import Encoder, context_length
from .standard_tasks import wikitext_detokenized
from .statistics import mean_accuracy, share
from .tasks import Measured, Pages, Task
from .writing import BeginningBatches, Beginnings, WritingBatches, WritingTask

# exp of more overflows a float.
LARGEST = 700.0

# A row of token ids to the ids of the same text in a smaller vocabulary, both int64 `(T,)`.
Retokenize = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean next-token cross-entropy.

    `se` is the standard error over windows, by the delta method.
    """

    value: float
    se: float
    windows: int
    window_tokens: int


def text_windows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int, limit: int
) -> torch.Tensor:
    """Windows for perplexity, without overlap: int64, shape `(W, tokens)`.

    Args:
        limit: the most windows to take, spread evenly over the text; 0 takes all.

    Raises:
        UserError: the text does not fill two windows.
    """
    ids = tokenizer("\n\n".join(documents), return_tensors="pt", verbose=False)["input_ids"][0]
    ids = ids[: len(ids) - count_at_end(tokenizer)]
    count = len(ids) // tokens
    if count < 2:
        raise UserError(
            f"The held-out text has {len(ids)} tokens; at least two windows of {tokens} are needed."
        )
    windows = ids[: count * tokens].view(count, tokens)
    if limit and limit < count:
        windows = windows[torch.linspace(0, count - 1, max(limit, 2)).round().long()]
    return windows


def perplexity(
    model: PreTrainedModel, windows: torch.Tensor, retokenize: Retokenize | None = None
) -> Generator[int, None, Perplexity]:
    """Perplexity over `windows` `(W, T)`; the first token of each is not predicted.

    Args:
        retokenize: for a model with a smaller vocabulary than the windows'. Perplexity stays per token of
            the windows, so that values before and after a reduction of the vocabulary compare.

    Yields:
        How many windows the step measured.

    Raises:
        UserError: a cross-entropy is not a finite number.
    """
    means: list[float] = []
    per_batch, group = max(1, at_once(BATCH_TOKENS, model.device) // windows.shape[1]), current()
    for part in group.share(windows.split(per_batch)):
        for nats in in_portions(partial(_window_nats, model, retokenize), list(part)):
            means += [each / (windows.shape[1] - 1) for each in nats]
        yield len(part) * group.size
    means = [mean for some in group.gather(means) for mean in some]
    nll = torch.tensor(means, dtype=torch.float64)
    check_finite(nll, "the model's cross-entropies on the held-out text")
    # The perplexity of a model that was pruned too far can exceed every float.
    value = math.exp(min(float(nll.mean()), LARGEST))
    se = value * float(nll.std()) / math.sqrt(len(nll))
    return Perplexity(value, se, len(nll), windows.shape[1])


@torch.inference_mode()
def _window_nats(
    model: PreTrainedModel, retokenize: Retokenize | None, windows: Sequence[torch.Tensor]
) -> list[float]:
    """The cross-entropy of each window `(T,)` in nats, its first token left out, read in one batch."""
    read = [row if retokenize is None else retokenize(row) for row in windows]
    begins = [1 if retokenize is None else len(retokenize(row[:1])) for row in windows]
    rows, lengths = rows_of(read)
    rows = rows.to(model.device)
    logits = model(input_ids=rows, use_cache=False).logits
    return [
        float(F.cross_entropy(scores[begin - 1 : end - 1].float(), row[begin:end], reduction="sum"))
        for row, scores, begin, end in zip(rows, logits, begins, lengths.tolist(), strict=True)
    ]


class TaskBatches:
    """A task, tokenised and packed once for a model's tokenizer.

    Attributes:
        cut: how many items lost the beginning of their context, which was too long.
    """

    def __init__(self, task: Task, encoder: Encoder) -> None:
        """Tokenise and pack.

        Raises:
            UserError: the tokenizer cannot represent the task.
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
        """Tokens that one measurement reads."""
        return self._likelihoods.tokens

    def choices(self, model: PreTrainedModel) -> Generator[int, None, list[list[Likelihood]]]:
        """Log-likelihoods per item and choice; for last words, also whether greedy decoding writes them.

        Yields:
            How many tokens the step read.

        Raises:
            UserError: a log-likelihood is not a finite number.
        """
        found = iter((yield from self._likelihoods.measure(model, self.task.greedy)))
        return [[next(found) for _ in item.choices] for item in self.task.items]

    def measure(self, model: PreTrainedModel) -> Generator[int, None, TaskResult]:
        """Accuracy of `model`.

        Yields:
            How many tokens the step read.
        """
        return self.result((yield from self.choices(model)))

    def result(self, found: Sequence[Sequence[Likelihood]]) -> TaskResult:
        """Accuracy from the likelihoods of `choices`."""
        task, plain, norm = self.task, "", ""
        for item, answers in zip(task.items, found, strict=True):
            if task.greedy:
                plain += "01"[answers[0][1]]
                continue
            values = [nats for nats, _ in answers]
            per_character = [v / len(c) for v, c in zip(values, item.choices, strict=True)]
            # Of equal choices the first counts, as with argmax.
            plain += "01"[values.index(max(values)) == item.gold]
            norm += "01"[per_character.index(max(per_character)) == item.gold]
        hits = norm if task.metric == "acc_norm" else plain
        accuracy, se = share(hits)
        acc, acc_se = share(plain)
        acc_norm, acc_norm_se = share(norm) if norm else (None, None)
        return TaskResult(
            name=task.name,
            accuracy=accuracy,
            se=se,
            items=len(hits),
            chance=task.chance,
            hits=hits,
            metric=task.metric,
            acc=acc,
            acc_se=acc_se,
            acc_norm=acc_norm,
            acc_norm_se=acc_norm_se,
            digest=task.digest,
            cut=self.cut,
            duplicates=task.duplicates,
        )


class PageBatches:
    """Documents, tokenised and packed once, for perplexity per word and per byte.

    As lm-evaluation-harness measures WikiText: every token is predicted once, in windows of the whole
    context, one after another in each document (the last one reaches back); pages of WikiText are
    detokenised, and words and bytes are those of the original text.
    """

    def __init__(self, pages: Pages, encoder: Encoder) -> None:
        self.pages = pages
        self.window = encoder.context
        try:
            read = map(wikitext_detokenized, pages.pages) if pages.wikitext else pages.pages
            documents = [encoder.windows(page) for page in read]
        except UserError as error:
            raise UserError(f"The task {pages.name} cannot be measured: {error}") from None
        self._counts = [len(d) for d in documents]
        self._likelihoods = Likelihoods([[window] for d in documents for window in d])

    @property
    def tokens(self) -> int:
        """Tokens that one measurement reads."""
        return self._likelihoods.tokens

    def documents(self, model: PreTrainedModel) -> Generator[int, None, list[float]]:
        """Log-likelihood of each document in nats.

        Yields:
            How many tokens the step read.
        """
        found = iter((yield from self._likelihoods.measure(model)))
        return [sum(next(found)[0] for _ in range(count)) for count in self._counts]

    def measure(self, model: PreTrainedModel) -> Generator[int, None, TextResult]:
        """Perplexity of `model`.

        Yields:
            How many tokens the step read.
        """
        nats = -sum((yield from self.documents(model)))
        # An empty text at either end counts as a word, as in lm-evaluation-harness.
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
    """The tasks and texts that a run measures on, prepared once and measured after every removal.

    Attributes:
        requested: all tasks that the evaluator was given.
        skipped: tasks that the model's tokenizer cannot represent; they are left out.
    """

    def __init__(
        self,
        tasks: Sequence[Measured],
        windows: torch.Tensor,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig,
        retokenize: Retokenize | None = None,
    ) -> None:
        """Tokenise and pack.

        Args:
            windows: for perplexity, see `text_windows`.
            retokenize: see `perplexity`.

        Raises:
            UserError: no task is left.
        """
        self.requested, self.windows, self.retokenize = tuple(tasks), windows, retokenize
        self.tasks: list[TaskBatches | WritingBatches] = []
        self.texts: list[PageBatches] = []
        self.begun: list[BeginningBatches] = []
        self.skipped: list[Skipped] = []
        encoder = Encoder(tokenizer, context_length(config, tokenizer))
        for task in tasks:
            try:
                if isinstance(task, Task):
                    self.tasks.append(TaskBatches(task, encoder))
                elif isinstance(task, WritingTask):
                    self.tasks.append(WritingBatches(task, encoder))
                elif isinstance(task, Beginnings):
                    self.begun.append(BeginningBatches(task, encoder))
                else:
                    self.texts.append(PageBatches(task, encoder))
            except UserError as error:
                self.skipped.append(Skipped(task.name, str(error)))
        if not self.tasks:
            raise UserError(" ".join(s.reason for s in self.skipped))

    def retokenized(
        self, retokenize: Retokenize, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> Evaluator:
        """The same texts and tasks for a model with a smaller vocabulary."""
        return Evaluator(self.requested, self.windows, tokenizer, config, retokenize)

    @property
    def tokens(self) -> int:
        """Tokens that one measurement reads."""
        return self.windows.numel() + sum(t.tokens for t in (*self.tasks, *self.texts, *self.begun))

    def measure(self, model: PreTrainedModel, iteration: int) -> Generator[int, None, Evaluated]:
        """Perplexity and the result of every task for `model`.

        Args:
            iteration: recorded in the result.

        Yields:
            How many tokens the step read.

        Raises:
            UserError: a likelihood is not a finite number.
        """
        began, results, texts, writing = time.monotonic(), [], [], []
        width = self.windows.shape[1]
        ppl = yield from map_progress(
            perplexity(model, self.windows, self.retokenize), lambda count: count * width
        )
        for task in self.tasks:
            results.append((yield from task.measure(model)))
        for text in self.texts:
            texts.append((yield from text.measure(model)))
        for begun in self.begun:
            writing.append((yield from begun.measure(model)))
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
            writing=tuple(writing),
        )
