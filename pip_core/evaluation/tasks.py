"""Loading tasks (questions with known answers) by reference.

A reference is a shipped task's name, the path of a file in the project's own format (see `items` and
`writing`), a standard task's name (rows from the Hub), `NAME=PATH`, a standard task with rows of a local
file, `bits=TEXT` or `continue=TEXT`, a text that is measured or continued, or `text:` and items that were
pasted, in the project's own format.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.paths import ASSETS, named_path
from ..core.recipe import STORIES
from ..data import files
from ..data.corpora import PASTED, documents, refuse_left_out, title
from ..data.files import own_file, read_text
from ..data.hub_datasets import hub_rows
from .items import Item, checksum, own_item, text
from .standard_tasks import STANDARD, WIKITEXT, WIKITEXT_ROWS, wikitext_pages
from .writing import WRITTEN_FIELDS, Beginnings, WritingTask, beginnings, question

NAMES = {s.name: s for s in STANDARD}
TASKS = ("endings", "causes", "household", "facts", "sense")
STORY_TASKS = tuple(f"{STORIES}-{kind}" for kind in ("who", "possession", "places", "counting", "causes"))
# Answered in writing.
WRITING_TASKS = ("copying", "arithmetic", "following")
SHIPPED = (*TASKS, *STORY_TASKS, *WRITING_TASKS)
# What can be asked of any text: its bits per byte, and how much its continuations repeat themselves.
BITS, CONTINUE = "bits", "continue"
# Fields that hold a list or a number; in a CSV file they are written as JSON.
JSON_FIELDS = {"choices", "gold", "label", "endings", "context_options", "turns", "answers"}


@dataclass(frozen=True)
class Task:
    """A named list of items.

    Attributes:
        greedy: true for last-word tasks, where greedy decoding has to write the one choice.
        metric: "acc" (the choice with the largest likelihood is the answer) or "acc_norm" (the one with
            the largest likelihood per character); "acc" for last words.
    """

    name: str
    items: tuple[Item, ...]
    greedy: bool
    metric: str = "acc_norm"

    @property
    def chance(self) -> float:
        """Expected accuracy of guessing; 0 for last words."""
        if self.greedy:
            return 0.0
        return sum(1 / len(i.choices) for i in self.items) / len(self.items)

    @property
    def duplicates(self) -> int:
        """Number of items that are equal to an earlier one."""
        return len(self.items) - len(set(self.items))

    @property
    def digest(self) -> str:
        """Checksum of the items, 12 hexadecimal digits; only results with equal digests can be compared."""
        return checksum([(i.requests, i.gold) for i in self.items])

    @property
    def characters(self) -> int:
        """Number of characters that a model has to read."""
        return sum(i.characters for i in self.items)


@dataclass(frozen=True)
class Pages:
    """Documents of which every token is predicted; those of WikiText-2 (`wikitext`) as in the data set."""

    name: str
    pages: tuple[str, ...]
    wikitext: bool = False

    @property
    def digest(self) -> str:
        """Checksum of the documents, 12 hexadecimal digits."""
        return checksum(self.pages)

    @property
    def characters(self) -> int:
        """Number of characters that a model has to read."""
        return sum(map(len, self.pages))


# What questions that were pasted are called in a refusal: the label of their field, which is marked by it.
OWN_QUESTIONS = "Your own questions"
# And in what was measured, which others read too. Earlier runs have them as "pasted".
OWN = "own questions"
Measured = Task | WritingTask | Pages | Beginnings


def load_tasks(references: Sequence[str], limit: int = 0) -> list[Measured]:
    """Load the tasks of a recipe.

    Args:
        limit: see `load_task`.

    Raises:
        UserError: as `load_task`; no task with right and wrong answers; two tasks of one name.
    """
    found = [load_task(reference, limit) for reference in references]
    if not any(isinstance(t, Task | WritingTask) for t in found):
        raise UserError("Choose at least one task with right and wrong answers, for example endings.")
    names = [t.name for t in found]
    if len(set(names)) < len(names):
        raise UserError(f"Two tasks have the same name ({', '.join(names)}); rename one of the files.")
    return found


def load_task(reference: str, limit: int = 0) -> Measured:
    """Load a task by reference; the module's docstring lists the kinds of references.

    Args:
        limit: the most items to take, from the first on; 0 takes all.

    Raises:
        UserError: no such task, or a row that is not an item.
    """
    refuse_left_out(reference, "task")
    if reference.startswith(PASTED):
        pasted = files.pasted_rows(reference.removeprefix(PASTED), OWN_QUESTIONS)
        rows = list(pasted)[: limit or None]
        if not rows:
            raise UserError(f"{OWN_QUESTIONS}: there is no question in them.")
        return _own(OWN, rows, OWN_QUESTIONS)
    name, given, place = reference.partition("=")
    name = name.strip()
    if given and name in (BITS, CONTINUE):
        return _text(name, place.strip(), limit)
    if given and name not in (*NAMES, WIKITEXT) and not _is_file(reference):
        raise UserError(
            f"'{name}' is no standard task that could be read from '{place}': choose "
            f"{', '.join((*NAMES, WIKITEXT))}, {BITS} or {CONTINUE} for a text, or name the file alone."
        )
    if name == WIKITEXT:
        return _pages(place.strip(), limit)
    if name in NAMES:
        return _standard(name, place.strip(), limit)
    if reference in SHIPPED:
        path = ASSETS / "tasks" / f"{reference}.jsonl"
    elif files.kind_of(reference):
        path = Path(reference)
    else:
        raise UserError(
            f"Unknown task '{reference}': choose {', '.join(SHIPPED)}; a standard task ("
            f"{', '.join((*NAMES, WIKITEXT))}); or the path of a {files.TABLES_TEXT} file.",
            "tasks",
        )
    return _own(path.stem, _local_rows(path, limit), path.name)


def _is_file(reference: str) -> bool:
    """Whether this is the path of a table; its name may hold the sign "=" too."""
    path = named_path(reference) if files.kind_of(reference) else None
    return path is not None and own_file(reference).is_file()


def _own(name: str, rows: list[dict], where: str) -> Task | WritingTask:
    """A task from rows in the project's own format."""
    if any(WRITTEN_FIELDS & row.keys() for row in rows):
        return WritingTask(name, tuple(_items(rows, question, where)))
    found = _items(rows, own_item, where)
    kinds = {greedy for _, greedy in found}
    if len(kinds) != 1:
        raise UserError(f"{where} mixes multiple choice and last words; use one file for each.")
    greedy = kinds.pop()
    return Task(name, tuple(item for item, _ in found), greedy, "acc" if greedy else "acc_norm")


def _standard(name: str, place: str, limit: int) -> Task:
    task = NAMES[name]
    if place:
        rows, where = _local_rows(place, limit), Path(place).name
    else:
        rows, where = hub_rows(task.dataset, task.config, task.split, limit=limit), name
    return Task(name, tuple(_items(rows, task.item, where)), task.greedy, task.metric)


def _text(name: str, text_name: str, limit: int) -> Pages | Beginnings:
    """The documents of a text, to be measured or to be continued."""
    found = documents(text_name, "text to measure")[: limit or None]
    called = f"{name} of {title(text_name)}"
    if name == BITS:
        return Pages(called, tuple(found))
    begun = beginnings(called, found)
    if not begun.texts:
        raise UserError(f"'{text_name}' has no document that is long enough to be continued.")
    return begun


def _pages(place: str, limit: int) -> Pages:
    if place and not files.kind_of(place):
        pages = wikitext_pages(read_text(own_file(place), "task"))[: limit or None]
    else:
        rows = _local_rows(place, limit) if place else hub_rows(*WIKITEXT_ROWS, limit=limit)
        pages = _items(rows, lambda row: text(row, "page"), Path(place).name or WIKITEXT)
    return Pages(WIKITEXT, tuple(pages), wikitext=True)


def _items(rows: list[dict], read: Callable[[dict], Any], where: str) -> list:
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(read(row))
        except UserError as error:
            raise UserError(f"{where}, row {number}: {error}") from None
    return found


def _local_rows(place: str | Path, limit: int) -> list[dict]:
    found = files.rows(place, "task", limit)
    return [_from_cells(row) for row in found] if files.kind_of(place) in files.CELLS else found


def _from_cells(row: dict) -> dict:
    """A CSV row, whose cells are all texts, with the lists and numbers that some cells hold as JSON."""
    values = dict(row)
    for field in JSON_FIELDS & values.keys():
        # A cell without JSON stays a text, which is refused later with its name.
        with contextlib.suppress(ValueError, TypeError):
            values[field] = json.loads(values[field])
    return values
