"""Tasks and texts: what is read, and what is said about a file that cannot be."""

from __future__ import annotations

import json

import pytest

from pip_core.core.errors import UserError
from pip_core.data.corpora import DOMAINS, calibration_texts, documents
from pip_core.evaluation.tasks import TASKS, Item, load_task, load_tasks

from .. import tiny

GOOD = {"query": "The sun is", "choices": ["hot.", "cold."], "gold": 0}
WORD = {"context": "The sun is", "continuation": "hot"}


def test_multiple_choice(tmp_path):
    path = tiny.write_lines(tmp_path / "own.jsonl", tiny.choice_rows(4))
    task = load_task(path)
    assert task.name == "own"
    assert not task.greedy
    assert len(task.items) == 4
    assert task.items[1] == Item(
        "On day 1 she looked out and saw", ("bread", "a long wooden ladder", "rain"), 1
    )
    assert task.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 1 / 2) / 4)


def test_last_word(tmp_path):
    task = load_task(tiny.write_lines(tmp_path / "words.jsonl", tiny.word_rows(3)))
    assert task.greedy
    assert task.chance == 0
    assert task.items[0].choices == ("dog",)


def test_limit(tmp_path):
    path = tiny.write_lines(tmp_path / "own.jsonl", tiny.choice_rows(8))
    assert load_task(path, 3).items == load_task(path).items[:3]
    assert len(load_task(path, 100).items) == 8


def test_blank_lines_and_other_characters(tmp_path):
    path = tmp_path / "own.jsonl"
    # U+2028 and U+0085 break lines elsewhere, not in JSON.
    odd = {**GOOD, "query": "Größe\u2028und\u0085mehr"}
    path.write_text(f"\n{json.dumps(odd, ensure_ascii=False)}\r\n\n{json.dumps(GOOD)}", encoding="utf-8")
    task = load_task(str(path))
    assert [i.prompt for i in task.items] == ["Größe\u2028und\u0085mehr", "The sun is"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "not valid JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        ({}, "'query' is missing or not a text"),
        ({**GOOD, "query": 5}, "'query' is missing or not a text"),
        ({**GOOD, "query": " "}, "'query' is missing or not a text"),
        ({"query": "x", "gold": 0}, "'choices' must be a list of at least two texts"),
        ({**GOOD, "choices": "hot"}, "'choices' must be a list of at least two texts"),
        ({**GOOD, "choices": ["hot."]}, "'choices' must be a list of at least two texts"),
        (
            {**GOOD, "choices": ["hot.", 3]},
            "'choices' must be a list of at least two texts",
        ),
        (
            {**GOOD, "choices": ["hot.", ""]},
            "'choices' must be a list of at least two texts",
        ),
        ({"query": "x", "choices": ["a", "b"]}, "'gold' is None, but must be a whole number from 0 to 1"),
        ({**GOOD, "gold": 2}, "'gold' is 2, but must be a whole number from 0 to 1"),
        ({**GOOD, "gold": -1}, "'gold' is -1"),
        ({**GOOD, "gold": "0"}, "'gold' is '0'"),
        ({**GOOD, "gold": True}, "'gold' is True"),
        ({"context": "x"}, "'continuation' is missing or not a text"),
        ({"continuation": "x"}, "'context' is missing or not a text"),
        ({**WORD, "continuation": " "}, "'continuation' is missing or not a text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "own.jsonl"
    bad = line if isinstance(line, str) else json.dumps(line)
    path.write_text(f"{json.dumps(GOOD)}\n\n{bad}\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_task(str(path))
    text = str(refused.value)
    assert text.startswith(("own.jsonl, row 2: ", "own.jsonl, line 3: ")), text
    assert message in text
    assert "\n" not in text


def test_pasted_items():
    rows = tiny.choice_rows(3)
    task = load_task("text:" + "\n".join(map(json.dumps, rows)))
    assert task.name == "own questions"
    assert [i.prompt for i in task.items] == [r["query"] for r in rows]
    assert len(load_task("text:" + "\n".join(map(json.dumps, rows)), 2).items) == 2
    with pytest.raises(UserError, match="Your own questions: there is no"):
        load_task("text:  \n ")
    with pytest.raises(UserError, match="Your own questions, line 2: not valid JSON"):
        load_task("text:" + json.dumps(rows[0]) + "\n{")


def test_mixed_kinds(tmp_path):
    path = tiny.write_lines(tmp_path / "own.jsonl", [GOOD, WORD])
    with pytest.raises(UserError, match=r"own\.jsonl mixes multiple choice and last words"):
        load_task(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The task 'own.jsonl' is empty."),
        (b"\n\n", "The task 'own.jsonl' is empty."),
        ('{"query": "Größe"}'.encode("latin-1"), "The task 'own.jsonl', line 1, is not UTF-8 text."),
        (b"\x00\x01\x02", "The task 'own.jsonl', line 1, is not UTF-8 text."),
    ],
)
def test_unreadable_task(tmp_path, content, message):
    path = tmp_path / "own.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_task(str(path))
    assert message in str(refused.value)


def test_missing_task(tmp_path):
    with pytest.raises(UserError, match=r"The task '.*gone\.jsonl' does not exist"):
        load_task(str(tmp_path / "gone.jsonl"))
    with pytest.raises(UserError, match=f"Unknown task 'chess': choose {', '.join(TASKS)}"):
        load_task("chess")
    with pytest.raises(UserError, match="Unknown task"):
        load_task("../facts")


def test_calibration_domains():
    assert [list(d.documents) for d in calibration_texts("mixed")] == [documents(d) for d in DOMAINS]
    assert [list(d.documents) for d in calibration_texts("code")] == [documents("code")]
    assert all(len(documents(d)) > 5 for d in DOMAINS)


def test_documents_of_a_file(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("One.\nStill one.\n\nStill.\n\n\nTwo.\n\n\n\n\n\nThree.\n")
    assert documents(str(path)) == ["One.\nStill one.\n\nStill.", "Two.", "Three."]


def test_a_text_is_called_what_it_is_for(tmp_path):
    missing = str(tmp_path / "gone.txt")
    with pytest.raises(UserError, match="The calibration text '"):
        calibration_texts(missing)
    with pytest.raises(UserError, match="The held-out text '"):
        documents(missing, "held-out text")
    with pytest.raises(UserError, match="not exist"):
        documents(str(tmp_path))


def test_what_a_run_measures_on(tmp_path):
    page = tiny.write_lines(tmp_path / "pages.jsonl", [{"page": "One page."}])
    own = tiny.write_lines(tmp_path / "facts.jsonl", [GOOD])
    assert [t.name for t in load_tasks(("facts", f"wikitext={page}"), 2)] == ["facts", "wikitext"]
    with pytest.raises(UserError, match="at least one task"):
        load_tasks((f"wikitext={page}",))
    with pytest.raises(UserError, match=r"same name \(facts, facts\)"):
        load_tasks(("facts", own))
