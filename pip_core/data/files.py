"""Files of texts and rows: text, JSON lines, CSV and Parquet.

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
import json
import os
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pyarrow
from pyarrow import parquet

from ..core.errors import UserError
from ..core.paths import ASSETS

TABLES = (".jsonl", ".parquet", ".csv")
# Environment variable: folders with the uploads of visitors of a public Space, separated as in PATH.
UPLOADS = "PIP_STUDIO_UPLOADS"
# Bytes that are read of a text file at most: more than any run can use.
LONGEST_TEXT = 64 * 2**20
LONGEST_LINE = 16 * 2**20
_BATCH = 256
csv.field_size_limit(LONGEST_LINE)


def own_file(name: str | Path) -> Path:
    """The path of a file the user names.

    Raises:
        UserError: on a public Space, where a visitor must not read the machine's files, the file is
            neither a shipped nor an uploaded one (in a folder of the environment variable
            `PIP_STUDIO_UPLOADS`).
    """
    path = Path(name).expanduser()
    if os.environ.get("SPACE_ID"):
        uploads = [Path(p).resolve() for p in os.environ.get(UPLOADS, "").split(os.pathsep) if p]
        real = path.resolve()  # a link may lead anywhere
        if not any(real.is_relative_to(root) for root in (ASSETS, *uploads)):
            raise UserError(
                "Files of this machine cannot be read on a Space; upload the file, or choose a shipped "
                "text or task."
            )
    return path


def read_text(path: Path, what: str, longest: int = LONGEST_TEXT) -> str:
    """The content of a UTF-8 text file, with line breaks as `\\n`.

    Args:
        what: the file's purpose, for error messages ("calibration text").
        longest: read at most so many bytes, from the beginning.

    Raises:
        UserError: missing, empty, or not UTF-8 text.
    """
    with _opened(path, what) as file:
        data = file.read(longest)
        whole = not file.read(1)
    text = _decoded(data, f"{what} '{path.name}'", whole)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UserError(f"The {what} '{path.name}' is empty.")
    return text


def rows(reference: str | Path, what: str, limit: int = 0) -> list[dict]:
    """The rows of a local `.jsonl`, `.parquet` or `.csv` file, in their order.

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


def iterate(path: Path, what: str) -> Iterator[dict]:
    """The rows of `path` one by one; see `rows`."""
    kinds = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    read = kinds.get(path.suffix.lower())
    if read is None:
        raise UserError(
            f"The {what} '{path.name}' is no table: give a {', '.join(TABLES[:-1])} or .csv file."
        )
    yield from read(path, what)


def _opened(path: Path, what: str):
    try:
        if not path.is_file():
            raise UserError(f"The {what} '{path}' does not exist or is not a file.")
        return path.open("rb")
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
        raise UserError(f"The {what} is not UTF-8 text. Save it as plain text (UTF-8).")
    return text


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
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not valid JSON.") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: must be a JSON object.")
        try:
            # "\ud800" is valid JSON, but half a character, which no tokenizer takes.
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{where}: holds half a character (an unpaired surrogate).") from None
        yield row


def _csv(path: Path, what: str) -> Iterator[dict]:
    reader = csv.reader(_lines(path, what), strict=True)
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
                    f"{len(header)} columns. A cell with commas or line breaks needs quotation marks."
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path.name}, line {reader.line_num}: not valid CSV ({error}).") from None


def _parquet(path: Path, what: str) -> Iterator[dict]:
    with _opened(path, what) as file:
        try:
            for batch in parquet.ParquetFile(file).iter_batches(_BATCH):
                yield from map(plain, batch.to_pylist())
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"The {what} '{path.name}' is not a readable Parquet file ({reason}).") from None


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
    text.

    Args:
        names: the table's columns.
        first: its first row.
        where: the table, for error messages.

    Raises:
        UserError: no such column, or several.
    """
    names = list(names)
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"{where} has no column '{wanted}'; it has {', '.join(names)}.")
        return wanted
    texts = [n for n in names if isinstance(first.get(n), str)]
    if "text" in names:
        return "text"
    if len(texts) == 1:
        return texts[0]
    raise UserError(
        f"{where} has no column 'text'; its columns are {', '.join(names)}. Name the one that holds the "
        "text by adding #COLUMN to the name."
    )
