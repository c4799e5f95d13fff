"""Local files of texts and rows: what is read, and what is wrong with those that are not."""

from __future__ import annotations

import datetime
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from pip_core.core.errors import UserError
from pip_core.data import files
from pip_core.data.files import own_file, read_text, rows

from .. import tiny

NESTED = {
    "question": ["Why?", "How?"],
    "choices": [{"text": ["so", "thus"], "label": ["A", "B"]}, {"text": ["by foot"], "label": ["A"]}],
    "when": [datetime.date(2020, 1, 2), None],
    "picture": [b"\x89PNG", b""],
}


@pytest.fixture
def write(tmp_path):
    def write_(name: str, content: bytes | str) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    return write_


def test_jsonl(write):
    path = write(
        "a.jsonl", '\ufeff{"query": "naïve", "n": 1}\r\n\r\n{"query": "\\u00e9\\ud83d\\ude00", "n": [2]}'
    )
    assert rows(path, "task") == [{"query": "naïve", "n": 1}, {"query": "é\U0001f600", "n": [2]}]


def test_csv_cells_are_texts(write):
    path = write("a.csv", '\ufeffquery,gold\r\n"one, ""two""\nthree",1\r\nNA,\r\n')
    assert rows(path, "task") == [
        {"query": 'one, "two"\nthree', "gold": "1"},
        {"query": "NA", "gold": ""},
    ]


def test_parquet_with_nested_values(tmp_path):
    parquet.write_table(pa.table(NESTED), tmp_path / "a.parquet")
    found = rows(tmp_path / "a.parquet", "task")
    assert [r["choices"] for r in found] == NESTED["choices"]
    assert [r["when"] for r in found] == ["2020-01-02", None]
    assert found[0]["picture"] is None
    json.dumps(found)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_only_as_much_as_is_needed_is_read(tmp_path, kind, write):
    """What stands behind the last row that is wanted is broken, and nobody minds."""
    if kind == "jsonl":
        path = write("a.jsonl", b'{"n": 0}\n{"n": 1}\n\xff\xfe broken\n')
    elif kind == "csv":
        path = write("a.csv", b"n\n0\n1\n\xff\xfe,broken\n")
    else:
        path = tmp_path / "a.parquet"
        column = [str(n) + "x" * 4000 for n in range(4000)]
        parquet.write_table(pa.table({"n": column}), path, row_group_size=500, compression="none")
        data = path.read_bytes()
        middle = data.index(b"3000x")
        path.write_bytes(data[: middle - 400] + b"\xff" * 2_000_000 + data[middle + 1_999_600 :])
    assert [int(str(r["n"]).rstrip("x")) for r in rows(path, "task", 2)] == [0, 1]
    with pytest.raises(UserError, match=r"a\."):
        rows(path, "task")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "The task 'a.jsonl' is empty."),
        ("a.jsonl", b"\xef\xbb\xbf\r\n \n", "The task 'a.jsonl' is empty."),
        ("a.jsonl", b'{"n": 1}\n{"n": \n', "a.jsonl, line 2: not valid JSON."),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not valid JSON."),
        ("a.jsonl", b'{"n": 1}\n\n[1]\n', "a.jsonl, line 3: must be a JSON object."),
        ("a.jsonl", b'{"n": "caf\xe9"}\n', "The task 'a.jsonl', line 1, is not UTF-8 text."),
        ("a.jsonl", b'{"n": 1}\n\x00\x00\n', "The task 'a.jsonl', line 2, is not UTF-8 text."),
        ("a.jsonl", b'{"n": "\\ud83d"}\n', "a.jsonl, line 1: holds half a character"),
        ("a.jsonl", '{"n": 1}\n'.encode("utf-16"), "is not UTF-8 text"),
        ("a.csv", b"", "The task 'a.csv' is empty."),
        ("a.csv", b"query,gold\n", "The task 'a.csv' is empty."),
        ("a.csv", b"query,gold\na,1\nb, and c,1\n", "a.csv, line 3: 3 cells, where the first line names 2"),
        ("a.csv", b'query,gold\n"a,1\n', "a.csv, line 2: not valid CSV"),
        ("a.csv", b"query,query\na,1\n", "names a column twice"),
        ("a.csv", b"query\n\xe9\n", "The task 'a.csv', line 2, is not UTF-8 text."),
        ("a.parquet", b"", "The task 'a.parquet' is not a readable Parquet file"),
        ("a.parquet", b"PAR1 not really PAR1", "The task 'a.parquet' is not a readable Parquet file"),
        (
            "a.xlsx",
            b"PK",
            "The task 'a.xlsx' is no table: give a .jsonl, .json, .parquet, .csv or .tsv file.",
        ),
        ("a", b"{}", "The task 'a' is no table"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(write, name, content, message):
    with pytest.raises(UserError) as refused:
        rows(write(name, content), "task")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("none.jsonl", "a\0b.csv"):
        with pytest.raises(UserError, match=r"not exist|cannot be read"):
            rows(str(tmp_path / name), "task")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="not exist"):
        rows(tmp_path / "folder.csv", "task")


def test_a_line_without_an_end(write, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 2**20)
    with pytest.raises(UserError, match=r"a\.jsonl', line 2, is longer than 1 MiB"):
        rows(write("a.jsonl", b"{}\n" + b"x" * 2_000_000), "task")


@pytest.mark.parametrize("longest", range(1, 12))
def test_of_a_giant_text_the_beginning_is_read(write, longest):
    whole = "a😀ïz\r\n😀" * 9
    text = read_text(own_file(write("a.txt", whole)), "calibration text", longest)
    assert whole.startswith(text.rstrip("\n"))
    assert longest - 3 <= len(text.encode()) <= longest


def test_line_breaks_of_every_system(write):
    assert read_text(own_file(write("a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n")), "x") == "one\ntwo\nthree\n"


def test_on_a_space_only_uploads_and_what_is_shipped(tmp_path, monkeypatch):
    secret, uploads = tmp_path / "secret.jsonl", tmp_path / "uploads"
    (uploads / "deep").mkdir(parents=True)
    for path in (secret, uploads / "deep" / "mine.jsonl"):
        path.write_text('{"n": 1}\n')
    (uploads / "link.jsonl").symlink_to(secret)
    shipped = tiny.ROOT / "assets" / "tasks" / "facts.jsonl"
    assert rows(secret, "task")  # no Space: one's own machine
    monkeypatch.setenv("SPACE_ID", "somebody/pip-studio")
    for allowed in (None, str(uploads), f"{tmp_path / 'other'}:{uploads}"):
        if allowed:
            monkeypatch.setenv(files.UPLOADS, allowed)
            assert rows(uploads / "deep" / "mine.jsonl", "task") == [{"n": 1}]
        assert rows(shipped, "task", 1)
        outside = (
            secret,
            "/etc/passwd",
            uploads / ".." / "secret.jsonl",
            uploads / "link.jsonl",
            "nowhere.csv",
        )
        for path in outside:
            with pytest.raises(UserError, match="cannot be read on a page"):
                rows(path, "task")
