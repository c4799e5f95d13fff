"""Tasks: questions with known answers, shipped or brought along as a `.jsonl` file.

A line is either multiple choice - `{"query": ..., "choices": [...], "gold": 0}` - or last word -
`{"context": ..., "continuation": ...}`. Multiple choice is answered by the choice with the highest
log-likelihood of `" " + choice` after the query, divided by the choice's characters (the field's
`acc_norm`); a last word counts when greedy decoding would write it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .errors import UserError
from .recipe import TASKS
from .texts import ASSETS, own_file, read_text


@dataclass(frozen=True)
class Item:
    """One question: a prompt, what may follow it, and which of those is right.

    A last-word item has a single choice.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """A named list of items. `greedy` is true for last-word tasks."""

    name: str
    items: tuple[Item, ...]
    greedy: bool

    @property
    def chance(self) -> float:
        """Expected accuracy of guessing; 0 for a last word."""
        if self.greedy:
            return 0.0
        return sum(1 / len(i.choices) for i in self.items) / len(self.items)


def load_task(name: str, limit: int = 0) -> Task:
    """A shipped task by name, or a `.jsonl` file by path.

    Args:
        limit: take only the first so many items; 0 takes all.

    Raises:
        UserError: no such task, or a line that is not an item.
    """
    if name in TASKS:
        path = ASSETS / "tasks" / f"{name}.jsonl"
    elif name.endswith(".jsonl"):
        path = own_file(name)
    else:
        raise UserError(f"Unknown task '{name}': choose {', '.join(TASKS)}, or the path of a .jsonl file.")
    items: list[Item] = []
    kinds: set[bool] = set()
    for number, line in enumerate(read_text(path, "task").split("\n"), 1):
        if not line.strip():
            continue
        item, greedy = _item(line, f"{path.name}, line {number}")
        items.append(item)
        kinds.add(greedy)
        if limit and len(items) == limit:
            break
    if len(kinds) != 1:
        raise UserError(f"{path.name} mixes multiple choice and last words; use one file for each.")
    return Task(path.stem, tuple(items), kinds.pop())


def _item(line: str, where: str) -> tuple[Item, bool]:
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"{where}: not valid JSON.") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be a JSON object.")
    if "context" in row or "continuation" in row:
        for field in ("context", "continuation"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise UserError(f"{where}: '{field}' is missing or not a text.")
        return Item(row["context"], (row["continuation"],), 0), True
    if not isinstance(row.get("query"), str) or not row["query"].strip():
        raise UserError(
            f"{where}: 'query' is missing or not a text. A line needs query, choices and gold, or "
            "context and continuation."
        )
    choices, gold = row.get("choices"), row.get("gold")
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise UserError(f"{where}: 'choices' must be a list of at least two texts.")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise UserError(
            f"{where}: 'gold' is {gold!r}, but must be a whole number from 0 to {len(choices) - 1}."
        )
    return Item(row["query"], tuple(choices), gold), False
