"""Files of texts as people have them: conversations, arrays, tables with other separators, other names."""

from __future__ import annotations

import gzip
import io
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from pip_core.core.errors import UserError
from pip_core.data import json_rows as module
from pip_core.data.calibration import CalibrationText
from pip_core.data.corpora import documents
from pip_core.data.files import rows
from pip_core.data.json_rows import json_rows
from pip_core.data.preview import beginnings
from pip_core.evaluation.tasks import load_task

from .. import tiny

SHAREGPT = {"id": "x1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}]}
PARTS = {
    "source": "web",
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": "Yes?", "tool_calls": None},
        {"role": "assistant", "content": None},
    ],
}
CHAT = "Hi\nYes?"
PLAIN = [{"text": "One."}, {"text": "Two."}]
ITEM = {"query": "It is", "choices": ["so", "thus"], "gold": 1}


def lines(values) -> str:
    return "\n".join(map(json.dumps, values))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.jsonl", lines([SHAREGPT, SHAREGPT | {"conversations": []}]), [CHAT]),
        ("a.json", json.dumps([SHAREGPT, PARTS], indent=2), None),
        ("a.json", json.dumps([SHAREGPT]), [CHAT]),
        ("a.jsonl", lines([PARTS]), [CHAT]),
        ("a.jsonl", lines([PARTS["messages"]]), [CHAT]),
        ("a.json", json.dumps(PLAIN), ["One.", "Two."]),
        ("a.json", json.dumps(["One.", "Two."]), ["One.", "Two."]),
        ("a.json", lines(PLAIN), ["One.", "Two."]),
        ("a.json", json.dumps({"version": 1, "data": PLAIN}, indent=1), ["One.", "Two."]),
        ("a.json", json.dumps({"text": {"0": "One.", "1": "Two."}, "n": {"0": 1, "1": 2}}), ["One.", "Two."]),
        ("a.json", json.dumps({"text": ["One.", "Two."], "n": [1, 2]}), ["One.", "Two."]),
        ("a.json", json.dumps(PLAIN[0]), ["One."]),
        ("A.JSONL", lines(PLAIN), ["One.", "Two."]),
        ("A.CSV", "text,n\nOne.,1\n", ["One."]),
        ("a.tsv", "text\tn\nOne, and\t1\n", ["One, and"]),
        ("a.csv", 'text;n\n"One; and";1\n', ["One; and"]),
        ("a.csv", "n|text\n1|One.\n", None),
        ("a.csv#text", "n|text\n1|One.\n", ["One."]),
        ("a.csv", "text\nOne.\n", ["One."]),
        (
            "a.jsonl#data.body",
            lines([{"data": {"body": "One."}}, {"data": {"body": "Two."}}]),
            ["One.", "Two."],
        ),
    ],
)
def test_what_is_read(tmp_path, name, content, found):
    path = tmp_path / name.partition("#")[0]
    path.write_text(content, encoding="utf-8")
    whole = str(path.with_name(name))
    if found is None:
        found = [CHAT] if "json" in name else ["One."]
        if "json" in name:
            with pytest.raises(UserError, match="no column 'conversations'"):
                documents(whole)
            return
    assert documents(whole) == found
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert documents(f"{packed}{'#' if '#' in name else ''}{name.partition('#')[2]}") == found


def test_nested_parquet(tmp_path):
    table = {"id": ["a"], "conversations": [SHAREGPT["conversations"]], "more": [{"inner": {"body": "One."}}]}
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    assert documents(str(tmp_path / "a.parquet")) == [CHAT]
    assert documents(f"{tmp_path / 'a.parquet'}#more.inner.body") == ["One."]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.ipynb", "rows"])
@pytest.mark.parametrize("content", [lines(PLAIN), json.dumps(PLAIN, indent=1), json.dumps({"cells": PLAIN})])
def test_json_is_never_taken_as_text(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"holds JSON.*\.jsonl"):
        documents(str(tmp_path / name))


@pytest.mark.parametrize("text", ["[1] A reference.", "{ int x; }", "[link](to) more", "[], then"])
def test_text_with_braces_is_text(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert documents(str(tmp_path / "a.txt")) == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"n": 1},\n {"n": ]', "a.json, line 2: not valid JSON"),
        ("a.json", b'[{"n": 1}] {', "a.json, line 1: not valid JSON"),
        ("a.json", b"[1, 2]", "must be a JSON object"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.json", b'[{"n": "caf\xe9"}]', "is not UTF-8 text"),
        ("a.json", b"[]", "The task 'a.json' is empty."),
        ("a.json", b"", "The task 'a.json' is empty."),
        ("a.json", b'{"train": [{"n": 1}], "test": [{"n": 1}]}', "several tables (train, test)"),
        ("a.jsonl.gz", b"{}", "cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(b'{"n": 1}\n', mtime=0)[:-9], "cannot be unpacked"),
        ("a.csv", b"a;b\n1;2;3\n", "A cell with semicolons"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        rows(tmp_path / name, "task")
    assert message in str(refused.value)


def test_an_array_is_read_only_as_far_as_it_is_needed(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    text = json.dumps([{"text": f"number {n} \u00e9\U0001f600"} for n in range(40)], indent=1)
    assert [row["text"] for row in json_rows(io.StringIO(text).read, "a")] == [
        row["text"] for row in json.loads(text)
    ]
    broken = json_rows(io.StringIO(text[: len(text) // 2] + "!").read, "a")
    assert next(broken) == {"text": "number 0 \u00e9\U0001f600"}
    monkeypatch.setattr(module, "LONGEST_VALUE", 100)
    with pytest.raises(UserError, match="a row is longer"):
        list(json_rows(io.StringIO(json.dumps(["x" * 1000])).read, "a"))


def test_pasted_items_are_cut_at_line_breaks_alone():
    item = json.dumps(ITEM | {"query": "One\u2028two\u0085three\x0bfour"}, ensure_ascii=False)
    for pasted in (f"{item}\r\n{item}\n", f"[{item},\n {item}]"):
        task = load_task("text:" + pasted.replace("\x0b", "\\u000b"))
        assert [i.prompt for i in task.items] == ["One\u2028two\u0085three\x0bfour"] * 2


@pytest.mark.parametrize("name", ["T.JSONL", "t.json", "T.CSV", "t.tsv"])
def test_tasks_are_read_from_the_same_files(tmp_path, name):
    text = {
        ".jsonl": json.dumps(ITEM),
        ".json": json.dumps([ITEM]),
        ".csv": 'query;choices;gold\nIt is;"[""so"", ""thus""]";1\n',
        ".tsv": 'query\tchoices\tgold\nIt is\t"[""so"", ""thus""]"\t1\n',
    }[f".{name.lower().partition('.')[2]}"]
    (tmp_path / name).write_text(text)
    (item,) = load_task(str(tmp_path / name)).items
    assert (item.prompt, item.choices, item.gold) == ("It is", ("so", "thus"), 1)


def test_what_was_made_of_a_file_is_shown_before_the_run(tmp_path):
    path = tiny.write_lines(tmp_path / "chats.jsonl", [SHAREGPT])
    recipe = tiny.recipe_for("unused", calibration=f"mix:code=0.5,{path}=0.5")
    (line,) = beginnings(CalibrationText.read(recipe))
    assert "'chats.jsonl'" in line
    assert line.endswith("Hi Yes?")
