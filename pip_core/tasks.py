"""Tasks: questions with known answers, by reference.

A reference is a shipped task's name, the path of a file in the project's own format (see `items`), a
standard task's name (rows from the Hub), or `NAME=PATH`, a standard task with rows of a local file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .items import Item, own_item, text
from .recipe import TASKS
from .standard import STANDARD, WIKITEXT, WIKITEXT_ROWS, wikitext_pages
from .texts import ASSETS, own_file, read_text

NAMES = {s.name: s for s in STANDARD}
SUFFIXES = (".jsonl", ".parquet", ".csv")


@dataclass(frozen=True)
class Task:
    """A named list of items.

    Attributes:
        greedy: true for last-word tasks, where greedy decoding has to write the one choice.
        metric: what the accuracy is: "acc" (the likeliest choice) or "acc_norm" (the likeliest per
            character); "acc" for last words.
    """

    name: str
    items: tuple[Item, ...]
    greedy: bool
    metric: str = "acc_norm"

    @property
    def chance(self) -> float:
        """Expected accuracy of guessing; 0 for a last word."""
        if self.greedy:
            return 0.0
        return sum(1 / len(i.choices) for i in self.items) / len(self.items)

    @property
    def duplicates(self) -> int:
        """How many items are the same as an earlier one."""
        return len(self.items) - len(set(self.items))

    @property
    def digest(self) -> str:
        """Twelve characters that tell these items from others: only equal ones can be compared."""
        said = json.dumps([(i.requests, i.gold) for i in self.items])
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    @property
    def characters(self) -> int:
        """What a model has to read for it."""
        return sum(i.characters for i in self.items)


@dataclass(frozen=True)
class Pages:
    """Documents whose every token is predicted: WikiText-2, `pages` as they are in the data set."""

    name: str
    pages: tuple[str, ...]

    @property
    def characters(self) -> int:
        return sum(map(len, self.pages))


def load_task(reference: str, limit: int = 0) -> Task | Pages:
    """A task by reference (see the module).

    Args:
        limit: take only the first so many items; 0 takes all.

    Raises:
        UserError: no such task, or a row that is not an item.
    """
    name, given, place = reference.partition("=")
    name = name.strip()
    if given and name not in (*NAMES, WIKITEXT):
        raise UserError(
            f"'{name}' is no standard task that could be read from '{place}': choose "
            f"{', '.join((*NAMES, WIKITEXT))}, or name the file alone."
        )
    if name == WIKITEXT:
        return _pages(place.strip(), limit)
    if name in NAMES:
        return _standard(name, place.strip(), limit)
    if reference in TASKS:
        path = ASSETS / "tasks" / f"{reference}.jsonl"
    elif reference.endswith(SUFFIXES):
        path = own_file(reference)
    else:
        raise UserError(
            f"Unknown task '{reference}': choose {', '.join(TASKS)}; a standard task ("
            f"{', '.join((*NAMES, WIKITEXT))}); or the path of a .jsonl, .parquet or .csv file."
        )
    found = _items(_rows(path), limit, own_item, path.name)
    kinds = {greedy for _, greedy in found}
    if len(kinds) != 1:
        raise UserError(f"{path.name} mixes multiple choice and last words; use one file for each.")
    greedy = kinds.pop()
    return Task(path.stem, tuple(item for item, _ in found), greedy, "acc" if greedy else "acc_norm")


def _standard(name: str, place: str, limit: int) -> Task:
    task = NAMES[name]
    if place:
        rows, where = _rows(own_file(place)), Path(place).name
    else:
        rows, where = _hub_rows(task.dataset, task.config, task.split), name
    return Task(name, tuple(_items(rows, limit, task.item, where)), task.greedy, task.metric)


def _pages(place: str, limit: int) -> Pages:
    if place.endswith(SUFFIXES) or not place:
        rows = _rows(own_file(place)) if place else _hub_rows(*WIKITEXT_ROWS)
        pages = _items(rows, limit, lambda row: text(row, "page"), Path(place).name or WIKITEXT)
    else:
        pages = wikitext_pages(read_text(own_file(place), "task"))
    return Pages(WIKITEXT, tuple(pages[: limit or None]))


def _items(rows: list[tuple[str, dict]], limit: int, read: Callable, where: str) -> list:
    found = []
    for place, row in rows[: limit or None]:
        try:
            if not isinstance(row, dict):
                raise UserError("must be a JSON object.")
            found.append(read(row))
        except UserError as error:
            raise UserError(f"{where}, {place}: {error}") from None
    if not found:
        raise UserError(f"{where} holds no items.")
    return found


def _hub_rows(dataset: str, config: str | None, split: str) -> list[tuple[str, dict]]:
    try:
        from .sources import hub_rows
    except ImportError:
        raise UserError(f"{dataset} cannot be read from the Hub by this version; use NAME=PATH.") from None
    rows = hub_rows(dataset, config, split, None)
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def _rows(path: Path) -> list[tuple[str, dict]]:
    """The rows of a local file, each with the place to name in an error."""
    if path.suffix != ".jsonl":
        raise UserError(f"The task '{path}' cannot be read; use a .jsonl file.")
    rows = []
    # Not splitlines: U+2028 and U+0085 may stand inside a JSON text.
    for number, line in enumerate(read_text(path, "task").split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append((f"line {number}", json.loads(line)))
        except ValueError:
            raise UserError(f"{path.name}, line {number}: not valid JSON.") from None
    return rows
