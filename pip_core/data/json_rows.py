"""Rows of JSON: objects one a line, one after another, in an array, or as the columns of a table.

Read one by one, only as far as they are needed, since files of conversations have gigabytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from ..core.errors import UserError, some
from .conversations import is_conversation

# Characters that a single value may have, and that are read at a time.
LONGEST_VALUE = 64 * 2**20
CHUNK = 2**16
_DECODER = json.JSONDecoder()


def json_lines(lines: Iterable[str], name: str) -> Iterator[dict]:
    """Rows written as JSON objects, one a line.

    Args:
        name: name of the file, for error messages.

    Raises:
        UserError: a line that is no JSON object, or no text.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not valid JSON.") from None
        yield _row(value, where, escaped="\\u" in line)


def json_rows(read: Callable[[int], str], name: str) -> Iterator[dict]:
    """Rows of a JSON text: an array of rows, rows one after another, an object that holds an array of rows,
    or one of columns, as pandas writes it.

    Args:
        read: returns the next so many characters, fewer at the end.
        name: name of the file, for error messages.

    Raises:
        UserError: it is not valid JSON, or something else than rows.
    """
    source = _Source(read, name)
    if source.peek() == "[":
        yield from _array(source)
        return
    found = 0
    while source.peek():
        where, value = source.where, source.value()
        found += 1
        if found == 1 and not source.peek():
            yield from _table(value, where)
        else:
            yield _row(value, where)


def _array(source: _Source) -> Iterator[dict]:
    source.skip()
    if source.peek() == "]":
        return
    while True:
        where = source.where
        value = source.value()
        yield _row({"text": value} if isinstance(value, str) else value, where)
        mark = source.peek()
        source.skip()
        if mark == "]":
            break
        if mark != ",":
            raise source.invalid()
    if source.peek():
        raise source.invalid()


def _table(value: object, where: str) -> Iterator[dict]:
    """Rows of the only value in a file."""
    if not isinstance(value, dict):
        yield _row(value, where)
        return
    tables = [k for k, v in value.items() if _are(dict, v) and not is_conversation(v)]
    if len(tables) > 1:
        raise UserError(f"{where}: holds several tables ({some(tables)}). Give each a file of its own.")
    columns = list(value.values())
    if tables:
        yield from (_row(row, where) for row in value[tables[0]])
    elif columns and all(_are(str | int | float | None, c) and len(c) == len(columns[0]) for c in columns):
        yield from (_row(dict(zip(value, cells, strict=True)), where) for cells in zip(*columns, strict=True))
    elif columns and all(isinstance(c, dict) and c.keys() == columns[0].keys() for c in columns):
        yield from (_row({k: v[number] for k, v in value.items()}, where) for number in columns[0])
    else:
        yield _row(value, where)


def _are(kind, values: object) -> bool:
    """Whether something is a list of values of one kind, and not empty."""
    return isinstance(values, list) and bool(values) and all(isinstance(v, kind) for v in values)


def _row(value: object, where: str, escaped: bool = True) -> dict:
    """A row; of a conversation by itself a row that holds it.

    Args:
        escaped: whether the JSON had escapes, so that it may hold half a character.
    """
    if is_conversation(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be a JSON object.")
    try:
        # "\ud800" is valid JSON, but half a character, which no tokenizer takes.
        if escaped:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half a character (an unpaired surrogate).") from None
    return value


class _Source:
    """Values of a JSON text, one after another."""

    def __init__(self, read: Callable[[int], str], name: str) -> None:
        self.read = read
        self.name = name
        self._text, self._at, self._line = "", 0, 1

    @property
    def where(self) -> str:
        """The place of what comes next, for error messages."""
        return f"{self.name}, line {self._line + self._text.count(chr(10), 0, self._at)}"

    def peek(self) -> str:
        """The next character that is no white space, unread; empty at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def skip(self) -> None:
        """Pass the character that `peek` found."""
        self._at += 1

    def value(self) -> object:
        """The next value."""
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if self._more():
                    continue
                raise self.invalid() from None
            except RecursionError:
                raise self.invalid() from None
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._at = end
            return found

    def invalid(self) -> UserError:
        """The error for what comes next."""
        return UserError(f"{self.where}: not valid JSON.")

    def _more(self) -> bool:
        left = len(self._text) - self._at
        if left > LONGEST_VALUE:
            raise UserError(
                f"{self.where}: a row is longer than {LONGEST_VALUE // 2**20} million characters. Save the "
                "rows as JSON lines (.jsonl), one a line."
            )
        part = self.read(max(CHUNK, left))
        if part:
            self._line += self._text.count("\n", 0, self._at)
            self._text, self._at = self._text[self._at :] + part, 0
        return bool(part)
