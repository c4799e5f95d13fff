"""What a model writes: short answers that must be right to the letter, and how much a text repeats itself.

Likelihoods hide damage that shows in writing, where one wrong word leads to the next. Both are greedy: the
likeliest token at every step, so that the same model writes the same.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from ..core.errors import UserError
from ..core.events import TaskResult, WritingResult
from ..core.portions import in_portions
from ..core.process_group import current
from .items import checksum, text, texts
from .loglikelihood import BATCH_COST
from .requests import Encoder, chat_text
from .statistics import share

# The metric's name in results.
EXACT = "exact_match"
# Fields of a row that asks for a written answer.
WRITTEN_FIELDS = frozenset(("prompt", "turns", "answer", "answers"))
# Tokens that may be written beyond those of the longest right answer.
SPARE_TOKENS = 8
# Prompts that are answered at a time.
ROWS = 16
# Characters of a document that are given to be continued, and tokens that are then written.
BEGINNING, CONTINUED_TOKENS = 200, 64
# Words in a row whose repetition is counted: seq-rep-4 of Welleck et al. (arXiv 1908.04319), over words.
WORDS_IN_A_ROW = 4


@dataclass(frozen=True)
class Question:
    """Something to be answered in writing.

    Attributes:
        turns: what was said, the user's first; the last one is the question, and those before it are solved
            examples. A single turn without `chat` is a text that the answer continues.
        answers: each is right.
        chat: whether it is asked in the model's chat template, where it has one.
    """

    turns: tuple[str, ...]
    answers: tuple[str, ...]
    chat: bool = False

    @property
    def characters(self) -> int:
        """Number of characters that a model has to read, counting a written one as several."""
        return sum(map(len, self.turns)) + 4 * (len(self.answers[0]) + SPARE_TOKENS)

    @property
    def solved(self) -> str:
        """The question with its answer."""
        return f"{self.turns[-1]} {self.answers[0]}"


@dataclass(frozen=True)
class WritingTask:
    """A named list of questions. There is nothing to guess from, so chance is 0."""

    name: str
    items: tuple[Question, ...]

    @property
    def duplicates(self) -> int:
        """Number of items that are equal to an earlier one."""
        return len(self.items) - len(set(self.items))

    @property
    def digest(self) -> str:
        """Checksum of the items, as that of other tasks."""
        return checksum([(i.turns, i.answers, i.chat) for i in self.items])

    @property
    def characters(self) -> int:
        """Number of characters that a model has to read."""
        return sum(i.characters for i in self.items)


@dataclass(frozen=True)
class Beginnings:
    """Beginnings of documents, each to be continued."""

    name: str
    texts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Checksum of the beginnings, as that of tasks."""
        return checksum(self.texts)

    @property
    def characters(self) -> int:
        """Number of characters that a model has to read, counting a written one as several."""
        return sum(map(len, self.texts)) + 4 * CONTINUED_TOKENS * len(self.texts)


def beginnings(name: str, documents: Sequence[str]) -> Beginnings:
    """The beginnings of documents, up to the end of a word, of those that go on long enough."""
    found = (re.match(rf".{{{BEGINNING // 2},{BEGINNING}}}(?=\s)", d.strip(), re.DOTALL) for d in documents)
    return Beginnings(name, tuple(m[0] for m in found if m))


def question(row: dict) -> Question:
    """Read a row: `{"prompt": "...", "answer": "..."}`, a text that the answer continues to the end of its
    line, or `{"turns": ["...", ...], "answer": "..."}`, a chat that ends with a question. `answers` is a list
    of right ones.

    Raises:
        UserError: what is wrong with the row; the caller adds which row.
    """
    answers = texts(row, "answers", 1) if "answers" in row else (text(row, "answer"),)
    if "turns" not in row:
        return Question((text(row, "prompt"),), answers)
    turns = texts(row, "turns", 1)
    if len(turns) % 2 == 0:
        raise UserError("'turns' must begin and end with what the user says, so their number is odd.")
    return Question(turns, answers, chat=True)


def repeated(text: str) -> float:
    """Share of the runs of four words in a text that occur in it before; 0 where it has none."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    runs = [tuple(words[i : i + WORDS_IN_A_ROW]) for i in range(len(words) - WORDS_IN_A_ROW + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


class Writer:
    """Prompts, tokenised and packed once, continued greedily by any number of models in turn.

    Several prompts are continued at a time, filled up on the left. Whether a model writes the same then as
    when it reads a prompt alone is tried first; where it does not, only prompts of equal length go together.
    """

    def __init__(self, prompts: Sequence[tuple[Sequence[int], int, bool]], encoder: Encoder) -> None:
        """Pack.

        Args:
            prompts: per prompt its token ids, the most tokens to write, and whether to end with the line.
        """
        self.tokenizer: PreTrainedTokenizerBase = encoder.tokenizer
        self.cut = 0
        self._prompts: list[tuple[list[int], int, bool]] = []
        for ids, tokens, one_line in prompts:
            room = max(1, encoder.context - tokens)
            self.cut += len(ids) > room
            self._prompts.append((list(ids)[-room:], tokens, one_line))
        self._order = sorted(range(len(self._prompts)), key=lambda n: (self._prompts[n][2], self._length(n)))
        self._filled_up: bool | None = None

    @property
    def tokens(self) -> int:
        """What a measurement costs, in tokens read: a step costs `BATCH_COST` beside the tokens it writes."""
        return sum(map(self._cost, range(len(self._prompts))))

    def write(self, model: PreTrainedModel) -> Generator[int, None, list[str]]:
        """What the model writes after each prompt.

        Yields:
            How many of `tokens` the step took.
        """
        found: dict[int, str] = {}
        own: dict[int, str] = {}
        group = current()
        for batch in group.share(self._batches(model)):
            texts = in_portions(partial(self._continued, model), batch)
            own |= zip(batch, itertools.chain.from_iterable(texts), strict=True)
            yield sum(map(self._cost, batch)) * group.size
        for part in group.gather(own):
            found |= part
        return [found[n] for n in range(len(self._prompts))]

    def _cost(self, number: int) -> int:
        ids, tokens, _ = self._prompts[number]
        return len(ids) + tokens * (1 + BATCH_COST // ROWS)

    def _length(self, number: int) -> int:
        return len(self._prompts[number][0])

    def _batches(self, model: PreTrainedModel) -> list[list[int]]:
        kinds = (True, False)
        lines = [[n for n in self._order if self._prompts[n][2] == kind] for kind in kinds]
        mixed = [part[i : i + ROWS] for part in lines for i in range(0, len(part), ROWS)]
        if self._filled_up is None:
            uneven = next((b for b in mixed if self._length(b[0]) < self._length(b[-1])), None)
            self._filled_up = uneven is None or (
                self._continued(model, uneven)[0] == self._continued(model, uneven[:1])[0]
            )
            self._filled_up = all(current().gather(self._filled_up))
        if self._filled_up:
            return mixed
        equal: list[list[int]] = []
        for batch in mixed:
            for number in batch:
                if equal and equal[-1][0] in batch and self._length(equal[-1][0]) == self._length(number):
                    equal[-1].append(number)
                else:
                    equal.append([number])
        return equal

    def _continued(self, model: PreTrainedModel, batch: Sequence[int]) -> list[str]:
        width = max(map(self._length, batch))
        rows = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(rows)
        for row, number in enumerate(batch):
            ids = self._prompts[number][0]
            rows[row, width - len(ids) :] = torch.tensor(ids)
            mask[row, width - len(ids) :] = 1
        one_line, end = self._prompts[batch[0]][2], model.generation_config.eos_token_id
        options: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
        if one_line:
            options["stopping_criteria"] = StoppingCriteriaList([_EndOfLine(self.tokenizer, width)])
        with torch.inference_mode():
            out = model.generate(  # type: ignore[operator]
                input_ids=rows.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max(self._prompts[n][1] for n in batch),
                pad_token_id=(end[0] if isinstance(end, list) else end) or 0,
                **options,
            )
        return self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)


class _EndOfLine(StoppingCriteria):
    """Ends a row where the first line of what it wrote ends."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int) -> None:
        self.tokenizer, self.width = tokenizer, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        written = self.tokenizer.batch_decode(input_ids[:, self.width :], skip_special_tokens=True)
        return torch.tensor(["\n" in text.lstrip() for text in written], device=input_ids.device)


class WritingBatches:
    """A task with written answers, tokenised once for a model's tokenizer.

    Attributes:
        cut: how many prompts lost their beginning, which was too long.
    """

    def __init__(self, task: WritingTask, encoder: Encoder) -> None:
        """Tokenise and pack.

        Raises:
            UserError: the chat template takes no such turns.
        """
        self.task = task
        has_template = bool(encoder.tokenizer.chat_template)
        prompts = []
        for item in task.items:
            in_template = item.chat and has_template
            text = chat_text(encoder.tokenizer, item.turns) if in_template else _as_lines(item.turns)
            (ids,) = encoder.encode([text], special=not in_template)
            answers = encoder.encode(list(item.answers), special=False)
            prompts.append((ids, max(map(len, answers)) + SPARE_TOKENS, not in_template))
        self._writer = Writer(prompts, encoder)
        self.cut = self._writer.cut

    @property
    def tokens(self) -> int:
        """What a measurement costs, in tokens read."""
        return self._writer.tokens

    def measure(self, model: PreTrainedModel) -> Generator[int, None, TaskResult]:
        """Share of the questions that `model` answers to the letter.

        White space around an answer, quotation marks around it and a full stop behind it do not count.

        Yields:
            How many of `tokens` the step took.
        """
        written = yield from self._writer.write(model)
        hits = "".join(
            "01"[_bare(_first_line(text)) in set(map(_bare, item.answers))]
            for item, text in zip(self.task.items, written, strict=True)
        )
        accuracy, se = share(hits)
        return TaskResult(
            name=self.task.name,
            accuracy=accuracy,
            se=se,
            items=len(hits),
            chance=0.0,
            hits=hits,
            metric=EXACT,
            digest=self.task.digest,
            cut=self.cut,
            duplicates=self.task.duplicates,
        )


class BeginningBatches:
    """Beginnings to be continued, tokenised once for a model's tokenizer."""

    def __init__(self, begun: Beginnings, encoder: Encoder) -> None:
        self.begun = begun
        prompts = encoder.encode(list(begun.texts))
        self._writer = Writer([(ids, CONTINUED_TOKENS, False) for ids in prompts], encoder)

    @property
    def tokens(self) -> int:
        """What a measurement costs, in tokens read."""
        return self._writer.tokens

    def measure(self, model: PreTrainedModel) -> Generator[int, None, WritingResult]:
        """How much of what `model` writes repeats itself.

        Yields:
            How many of `tokens` the step took.
        """
        shares = [repeated(text) for text in (yield from self._writer.write(model))]
        error = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
        return WritingResult(self.begun.name, statistics.mean(shares), error, len(shares), CONTINUED_TOKENS)


def _as_lines(turns: Sequence[str]) -> str:
    """A chat for a model without a template: questions and answers below one another."""
    if len(turns) == 1:
        return turns[0]
    pairs = [f"{turns[i]}\n{turns[i + 1]}\n\n" for i in range(0, len(turns) - 1, 2)]
    return "".join(pairs) + turns[-1] + "\n"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _bare(text: str) -> str:
    return text.strip().rstrip(".").strip("\"'").rstrip(".").strip()
