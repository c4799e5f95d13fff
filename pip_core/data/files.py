"""Files of texts and rows: text, JSON, JSON lines, CSV and Parquet, each of them packed by gzip too.

A file is read only as far as it is needed, whatever is wrong with it is reported in one sentence with
the number of the line, and on a public Space only uploaded and shipped files are read.

Parquet is read by pyarrow and CSV by Python's own `csv`. pandas and pyarrow are not used for CSV and JSON
lines: they guess the types of cells ("NA" becomes a missing value, "01" a number, a date a timestamp),
fill short rows silently, do not name the line of an error in JSON, and read ahead by blocks, so that a fault
behind the last row that is wanted would be an error.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path

import pyarrow
from pyarrow import parquet

from ..core.errors import UserError, shortened, some
from ..core.limits import local_files
from ..core.paths import ASSETS
from .conversations import is_conversation
from .json_rows import json_lines, json_rows

TABLES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
TABLES_TEXT = ".jsonl, .json, .parquet, .csv or .tsv"
# All cells of these are texts.
CELLS = (".csv", ".tsv")
PACKED = ".gz"
# What stands between the cells of a .csv file, the likeliest first.
SEPARATORS = ",;\t|"
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Environment variable: folders with the uploads of visitors of a public Space, separated as in PATH.
UPLOADS = "PIP_STUDIO_UPLOADS"
# Bytes that are read of a text file at most: more than any run can use.
LONGEST_TEXT = 64 * 2**20
LONGEST_LINE = 16 * 2**20
_BATCH = 256
# Bytes of one column of a part of a Parquet file.
LARGEST_PART = 2 * 2**30
csv.field_size_limit(LONGEST_LINE)


def own_file(name: str | Path) -> Path:
    """The path of a file the user names.

    Raises:
        UserError: on a public Space, where a visitor must not read the machine's files, the file is
            neither a shipped nor an uploaded one (in a folder of the environment variable
            `PIP_STUDIO_UPLOADS`).
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # nobody's home
        raise UserError(f"'{name}' does not exist.") from None
    if not local_files():
        uploads = [Path(p).resolve() for p in os.environ.get(UPLOADS, "").split(os.pathsep) if p]
        real = path.resolve()  # a link may lead anywhere
        if not any(real.is_relative_to(root) for root in (ASSETS, *uploads)):
            raise UserError(
                "Files of this machine cannot be read on a page that is open to others; upload the file, or "
                "choose a shipped text or task."
            )
    return path


def kind_of(name: str | Path) -> str:
    """The kind of table that a file's name says it is, one of `TABLES`; empty for any other file."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes[-1:] == [PACKED]:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in TABLES else ""


def read_text(path: Path, what: str, longest: int = LONGEST_TEXT, json: bool = False) -> str:
    """The content of a UTF-8 text file, with line breaks as `\\n`.

    Args:
        what: the file's purpose, for error messages ("calibration text").
        longest: read at most so many bytes, from the beginning.
        json: whether JSON is a text like any other.

    Raises:
        UserError: missing, empty, not UTF-8 text, or, unless `json`, JSON.
    """
    with _unpacking(path, what), _opened(path, what) as file:
        data = file.read(longest)
        whole = not file.read(1)
    text = _decoded(data, f"{what} '{path.name}'", whole)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UserError(f"The {what} '{path.name}' is empty.")
    if not json and _is_json(text):
        raise UserError(
            f"The {what} '{path.name}' holds JSON, not plain text. If it holds rows, let its name end in "
            ".jsonl (one a line) or .json; what is no text in them is then left out."
        )
    return text


def rows(reference: str | Path, what: str, limit: int = 0) -> list[dict]:
    """The rows of a local table (`TABLES`), in their order.

    All cells of a CSV file are texts; nested values of a Parquet file are lists and dicts.

    Args:
        what: the file's purpose, for error messages ("task").
        limit: read only the first so many rows; 0 reads all.

    Raises:
        UserError: missing, empty, of another kind, not in the format that its name says, or (on a Space)
            not the user's.
    """
    path = own_file(reference)
    found = list(islice(iterate(path, what), limit or None))
    if not found:
        raise UserError(f"The {what} '{path.name}' is empty.")
    return found


def iterate(path: Path, what: str, needed: Callable[[list[str]], list[str]] = list) -> Iterator[dict]:
    """The rows of `path` one by one; see `rows`.

    Args:
        needed: which of a table's columns; of a Parquet file no others are read.
    """
    kinds = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv}
    with _unpacking(path, what):
        if (kind := kind_of(path)) == ".parquet":
            yield from _parquet(path, what, needed)
        elif kind in kinds:
            yield from kinds[kind](path, what)
        else:
            raise UserError(f"The {what} '{path.name}' is no table: give a {TABLES_TEXT} file.")


@contextmanager
def _unpacking(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(
            f"The {what} '{path.name}' cannot be unpacked: it is damaged or no gzip file."
        ) from None


def _opened(path: Path, what: str):
    try:
        if not path.is_file():
            raise UserError(f"The {what} '{path}' does not exist or is not a file.")
        return gzip.open(path) if path.suffix.lower() == PACKED else path.open("rb")
    except (OSError, ValueError) as error:  # no right to read it, or no path at all
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"The {what} '{path.name}' cannot be read: {reason}.") from None


def _decoded(data: bytes, what: str, whole: bool = True) -> str:
    """`data` as text; where it is not `whole`, it may end in the middle of a character."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _not_text(what)
    return text


def _not_text(what: str) -> UserError:
    return UserError(f"The {what} is not UTF-8 text. Save it as plain text (UTF-8).")


def _lines(path: Path, what: str) -> Iterator[str]:
    """Lines without a byte order mark and with `\\n` at their ends."""
    with _opened(path, what) as file:
        number = 0
        while data := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(data) > LONGEST_LINE:
                raise UserError(
                    f"The {what} '{path.name}', line {number}, is longer than {LONGEST_LINE // 2**20} MiB: "
                    "a file of rows has one row a line."
                )
            line = _decoded(data, f"{what} '{path.name}', line {number},")
            if number == 1:
                line = line.removeprefix("\ufeff")
            yield line.rstrip("\r\n") + "\n"


def _jsonl(path: Path, what: str) -> Iterator[dict]:
    return json_lines(_lines(path, what), path.name)


def _json(path: Path, what: str) -> Iterator[dict]:
    with _opened(path, what) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            yield from json_rows(text.read, path.name)
        except UnicodeDecodeError:
            raise _not_text(f"{what} '{path.name}'") from None


def _is_json(text: str) -> bool:
    """Whether a text begins with a row of JSON, or is a single value of several rows."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    parts = iter((text, ""))
    try:
        return next(json_rows(lambda _: next(parts, ""), ""), None) is not None
    except UserError:
        return False


def pasted_rows(text: str, what: str) -> Iterator[dict]:
    """Rows that were pasted: JSON objects one a line, or an array of them.

    Raises:
        UserError: as `json_rows.json_lines`.
    """
    if text.lstrip().startswith("["):
        return json_rows(io.StringIO(text).read, what)
    # Not by `splitlines`, which breaks lines at characters that JSON may hold.
    return json_lines(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), what)


def _csv(path: Path, what: str) -> Iterator[dict]:
    lines = _lines(path, what)
    first = next(lines, "")
    separator = "\t" if kind_of(path) == ".tsv" else _separator(first)
    reader = csv.reader(chain([first], lines), strict=True, delimiter=separator)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise UserError(f"The {what} '{path.name}' names a column twice in its first line.")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{path.name}, line {reader.line_num}: {len(cells)} cells, where the first line names "
                    f"{len(header)} columns. A cell with {_SEPARATOR_NAMES[separator]} or line breaks needs "
                    "quotation marks."
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path.name}, line {reader.line_num}: not valid CSV ({error}).") from None


def _separator(first: str) -> str:
    """What stands between the cells of a CSV file, from its first line."""
    for separator in SEPARATORS:
        with suppress(csv.Error):
            if len(next(csv.reader([first], delimiter=separator), [])) > 1:
                return separator
    return SEPARATORS[0]


def _parquet(path: Path, what: str, needed: Callable[[list[str]], list[str]]) -> Iterator[dict]:
    with _opened(path, what) as file:
        try:
            table = parquet.ParquetFile(file)
            columns = needed(table.schema_arrow.names)
            at_once = rows_at_once(table.metadata, f"{what} '{path.name}'", columns)
            for batch in table.iter_batches(at_once, columns=columns):
                yield from map(plain, batch.to_pylist())
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = shortened(str(error), 120)
            raise UserError(f"The {what} '{path.name}' is not a readable Parquet file ({reason}).") from None


def rows_at_once(found: parquet.FileMetaData, name: str, columns: Sequence[str]) -> int:
    """How many rows of a Parquet file may be unpacked at once: a cell that is stored once may stand in all of
    them, and a few bytes become gigabytes.

    Args:
        columns: those that are read.

    Raises:
        UserError: a part of the file is larger than any that is needed.
    """
    groups = (found.row_group(n) for n in range(found.num_row_groups))
    parts = (group.column(n) for group in groups for n in range(group.num_columns))
    # What is nested has a path, whose parts stand between dots, as those of a name may.
    read = tuple(f"{column}." for column in columns)
    sizes = (p.total_uncompressed_size for p in parts if f"{p.path_in_schema}.".startswith(read))
    largest = max(sizes, default=0)
    if largest > LARGEST_PART:
        raise UserError(
            f"The {name} unpacks to parts of {largest / 1e9:.1f} GB. Write it in smaller row groups."
        )
    return max(1, min(_BATCH, LONGEST_TEXT // max(1, largest)))


def plain(value: object) -> object:
    """`value` in types that JSON has; bytes (of a picture, of a sound) become None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, str | int | float | bool | None) else None


def column_of(names: Iterable[str], wanted: str | None, first: dict, where: str) -> str:
    """The column of a table that holds its texts: the `wanted` one, or `text`, or the only one that holds
    conversations, or the only one that holds text.

    Args:
        names: the table's columns.
        wanted: a column, or `COLUMN.FIELD` for a field of one that holds objects.
        first: its first row.
        where: the table, for error messages.

    Raises:
        UserError: no such column, or several.
    """
    names = list(names)
    if wanted is not None:
        if wanted.partition(".")[0] not in names and wanted not in names:
            raise UserError(f"{where} has no column '{wanted}'; it has {some(names)}.")
        return wanted
    if "text" in names:
        return "text"
    for texts in (
        [n for n in names if is_conversation(first.get(n))],
        [n for n in names if isinstance(first.get(n), str)],
    ):
        if len(texts) == 1:
            return texts[0]
        if texts:
            break
    raise UserError(
        f"{where} has no column 'text'; its columns are {some(names)}. Name the one that holds the "
        "text by adding #COLUMN to the name."
    )


def cell(row: dict, column: str) -> object:
    """What a row holds in a column, or in a field of it (`COLUMN.FIELD`); None for nothing."""
    if column in row:
        return row[column]
    value: object = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
