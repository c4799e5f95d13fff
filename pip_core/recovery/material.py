"""What recovery learns from, and what it is watched on: texts, and questions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..core.cached import cached_property
from ..core.errors import UserError
from ..core.process_group import current
from ..core.progress import map_progress
from ..core.recipe import Recipe
from ..core.settings import AUTO
from ..data.calibration import ROW_TOKENS, Calibration, CalibrationText
from ..data.corpora import POOL_CHARACTERS, title
from ..data.rows import count_tokens
from ..data.windows import CHARACTERS_PER_TOKEN
from ..evaluation.evaluator import TaskBatches
from ..evaluation.requests import Encoder, context_length
from ..evaluation.tasks import Measured, Task, load_task
from .kept import Kept
from .text import WRITING_ROWS, beginnings, write_batch

# Names of the text that the dense model writes, and of the one that is calibrated on.
WRITTEN, CALIBRATION = "written", "calibration"
# Rows that are held out, and the tokens in them.
WATCHED_ROWS = 16
WATCHED_TOKENS = WATCHED_ROWS * ROW_TOKENS
# Fewer tokens of a text are refused: nothing could be learnt that is more than these.
LEAST_TOKENS = 2048
# The dense model writes at most so many tokens; they are then read more than once.
MOST_WRITTEN = 300_000
# Of a text at most so many tokens are read; they are then read more than once.
MOST_READ = 2_000_000
# Rows share text with others where they share so many tokens in a row.
SHARED = 32
# Questions of each task, and how few of all say nothing.
QUESTIONS, LEAST_QUESTIONS = 24, 20


class Material:
    """The text that recovery learns from.

    Attributes:
        name: of the text beside or instead of what the dense model writes; empty where there is none.
        rows: what is learnt from, by the dense model's ids, int64 `(N, T)`.
        watched: what is held out, `(W, T)`; none of it is learnt from.
    """

    # Of the texts that were measured the one that cost no task answers, see the research log.
    USUAL: ClassVar[str] = WRITTEN

    def __init__(self, text: str, recipe: Recipe) -> None:
        self.writes = text == WRITTEN or text.startswith(f"{WRITTEN}+")
        self.name = text.removeprefix(WRITTEN).removeprefix("+") if self.writes else text
        if self.name in (CALIBRATION, AUTO):
            self.name = recipe.calibration
        self.recipe = recipe
        self.rows = self.watched = torch.empty(0, ROW_TOKENS, dtype=torch.long)
        self._source = self.rows

    @cached_property
    def own_text(self) -> CalibrationText | None:
        """The named text, where it is not the one that is calibrated on."""
        if not self.name or self.name == self.recipe.calibration:
            return None
        return CalibrationText.read(self.recipe.replace(calibration=self.name), "recovery text")

    @property
    def pinned(self) -> str:
        """Its name, with the commit of every dataset on the Hub."""
        named = CALIBRATION if self.own_text is None else self.own_text.name
        if not self.writes:
            return named
        return f"{WRITTEN}+{named}" if self.name else WRITTEN

    @property
    def words(self) -> str:
        """Its name in words."""
        named = f"'{title(self.name)}'" if self.name else ""
        return " and ".join(filter(None, ["what the dense model wrote" if self.writes else "", named]))

    def to_write(self, tokens: int) -> int:
        """Tokens that the dense model writes where `tokens` are learnt from."""
        wanted = tokens // 2 if self.name else tokens
        return min(wanted, MOST_WRITTEN) if self.writes else 0

    def read(self, calibration: Calibration, tokens: int, before: int = 0) -> None:
        """Read and tokenise the texts, and hold some of them out.

        Args:
            calibration: the text that is calibrated on, for the dense model's tokenizer: some of it is held
                out in any case, since it is of several domains usually.
            tokens: that will be learnt from, with those `before`, which were learnt from already and are not
                read again where there are others.

        Raises:
            UserError: too short a text.
        """
        length = min(ROW_TOKENS, calibration.context)
        least = LEAST_TOKENS + length
        need = f"Recovery needs {least:,} tokens"
        wanted = min(tokens // 2 if self.writes else tokens, MOST_READ)
        read = max(wanted + WATCHED_ROWS * length, POOL_CHARACTERS // CHARACTERS_PER_TOKEN)

        def rows(text: Calibration) -> torch.Tensor:
            # In the order of the refit, which so reads what is held out, the end, only of a short text.
            return torch.cat(text.rows(read, least, need, "refit"))

        self._source = named = rows(calibration)
        self.watched = _end(named, WATCHED_ROWS)
        if self.own_text is not None:
            named = rows(calibration.of_text(self.own_text))
            self.watched = torch.cat([_end(part, WATCHED_ROWS // 2) for part in (self._source, named)])
        found = apart(named, self.watched)[: -(-wanted // length)] if self.name else named[:0]
        fresh = found[(before // 2 if self.writes else before) // length :]
        self.rows = fresh if len(fresh) * length >= LEAST_TOKENS else found
        if self.name and len(self.rows) * length < LEAST_TOKENS:
            raise UserError(
                f"{need}, and the text '{title(self.name)}' holds {len(self.rows) * length:,} beside those "
                "that are held out. Use a longer text, or 'written': the whole model then writes one.",
                "recover_text",
            )

    def write(
        self, dense: PreTrainedModel, known: int, tokens: int, seed: int, kept: Kept
    ) -> Generator[int, None, None]:
        """Let the dense model write, and add that to `rows`; what was kept of an earlier attempt is taken.
        Several processes share the rest, and the first keeps what it wrote.

        Args:
            known: see `write_batch`.

        Yields:
            How many tokens more were written.
        """
        length = self._source.shape[1]
        count = -(-tokens // length)
        begun = beginnings(apart(self._source, self.watched), count, seed)
        group = current()
        found: list[torch.Tensor] = group.gather(list((kept.load("written") or {}).get("rows", ())))[0]
        own: list[torch.Tensor] = []
        save = kept.saver("written")
        if found:
            yield count_tokens(found)
        for number, part in group.share(list(enumerate(begun.split(WRITING_ROWS)))[len(found) :]):
            yield part.numel() * group.size
            writing = write_batch(dense, part, length, known, seed + number)
            own.append((yield from map_progress(writing, lambda count: count * group.size)))
            save({"rows": [*found, *own]})
        written = [part for some in group.gather(own) for part in some]
        self.rows = torch.cat([self.rows, *found, *written])


def _end(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The last rows; of a short text most are left."""
    return rows[-max(1, min(count, len(rows) // 8)) :]


def apart(rows: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """The rows that share no `SHARED` tokens in a row with any of `held`."""
    seen = {gram for row in held.tolist() for gram in _grams(row)}
    return rows[[n for n, row in enumerate(rows.tolist()) if seen.isdisjoint(_grams(row))]]


def _grams(row: Sequence[int]) -> set[tuple[int, ...]]:
    return {tuple(row[i : i + SHARED]) for i in range(len(row) - SHARED + 1)}


def questions(
    names: Sequence[str],
    measured: Sequence[Measured],
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
) -> list[TaskBatches]:
    """Questions to watch: those of the shipped tasks `names` that are not among `measured`; none where these
    are too few."""
    asked = {item for task in measured if isinstance(task, Task) for item in task.items}
    tasks = [task for task in map(load_task, names) if isinstance(task, Task)]
    left = [
        Task(task.name, items, task.greedy, task.metric)
        for task in tasks
        if (items := tuple(item for item in task.items if item not in asked)[-QUESTIONS:])
    ]
    if sum(len(task.items) for task in left) < LEAST_QUESTIONS:
        return []
    encoder = Encoder(tokenizer, context_length(config, tokenizer))
    found = []
    for task in left:
        try:
            found.append(TaskBatches(task, encoder))
        except UserError:  # this tokenizer cannot write its texts, as the run has said by then
            continue
    return found
