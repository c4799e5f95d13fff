"""Standard tasks: prompts and choices against those written down from lm-evaluation-harness, bad rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from pip_core.core.errors import UserError
from pip_core.evaluation import tasks
from pip_core.evaluation.standard_tasks import STANDARD, WIKITEXT, wikitext_detokenized, wikitext_pages
from pip_core.evaluation.tasks import NAMES, Pages, load_task

from .. import tiny
from ..evaluation.test_requests import SAID

ROWS = tiny.ROOT / "tests" / "fixtures" / "hub_rows"
METRICS = {
    "arc_easy": "acc_norm",
    "arc_challenge": "acc_norm",
    "piqa": "acc_norm",
    "hellaswag": "acc_norm",
    "winogrande": "acc",
    "boolq": "acc",
    "openbookqa": "acc_norm",
    "copa": "acc",
    "lambada_openai": "acc",
}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_those_of_the_harness(name):
    task = load_task(f"{name}={ROWS / name}.jsonl")
    assert [[list(pair) for pair in item.requests] for item in task.items] == SAID["prompts"][name]
    assert len(task.items) == 8
    assert task.name == name
    assert task.metric == METRICS[name]
    assert task.greedy == (name == "lambada_openai")


def test_pages_are_those_of_the_harness():
    task = load_task(f"{WIKITEXT}={ROWS / WIKITEXT}.jsonl")
    assert [[[wikitext_detokenized(p)]] for p in task.pages] == SAID["prompts"][WIKITEXT]


def test_the_right_answers():
    golds = {n: [i.gold for i in load_task(f"{n}={ROWS / n}.jsonl").items] for n in NAMES}
    assert golds["arc_easy"] == [1, 2, 3, 0, 1, 2, 0, 1]
    assert golds["winogrande"] == [0, 1, 0, 0, 1, 1, 0, 0]
    assert golds["hellaswag"] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert golds["openbookqa"] == [0, 1, 0, 1, 1, 1, 0, 0]


def own(name: str) -> list[dict]:
    """What the Hub's rows are in the project's own format, as MosaicML's LLM Foundry writes them."""
    found = []
    for row in rows(name):
        match name:
            case "arc_easy" | "arc_challenge":
                labels = row["choices"]["label"]
                found.append(
                    {
                        "query": f"Question: {row['question']}",
                        "choices": row["choices"]["text"],
                        "gold": labels.index(row["answerKey"]),
                    }
                )
            case "piqa":
                choices = [row["sol1"], row["sol2"]]
                found.append(
                    {"query": f"Question: {row['goal']}\n", "choices": choices, "gold": row["label"]}
                )
            case "copa":
                word = {"cause": "because", "effect": "therefore"}[row["question"]]
                choices = [row["choice1"], row["choice2"]]
                query = f"{row['premise'].strip()[:-1]}, {word}"
                found.append({"query": query, "choices": choices, "gold": row["label"]})
            case "lambada_openai":
                before, _, word = row["text"].rpartition(" ")
                found.append({"context": before, "continuation": word})
            case "winogrande":
                before, _, after = row["sentence"].partition("_")
                found.append(
                    {
                        "context_options": [before + row["option1"], before + row["option2"]],
                        "continuation": after.strip(),
                        "gold": int(row["answer"]) - 1,
                    }
                )
    return found


@pytest.mark.parametrize(
    "name", ["arc_easy", "arc_challenge", "piqa", "copa", "lambada_openai", "winogrande"]
)
def test_own_rows_get_the_standard_prompt(name, tmp_path):
    path = tiny.write_lines(tmp_path / "own.jsonl", own(name))
    assert load_task(f"{name}={path}") == load_task(f"{name}={ROWS / name}.jsonl")


@pytest.mark.parametrize("name", [s.name for s in STANDARD])
def test_a_row_of_another_schema_is_refused_in_one_sentence(name, tmp_path):
    path = tiny.write_lines(tmp_path / "own.jsonl", [{"prompt": "x", "answer": "y"}])
    with pytest.raises(UserError) as refused:
        load_task(f"{name}={path}")
    text = str(refused.value)
    assert text.startswith("own.jsonl, row 1: ")
    assert f"A row of {name} has {NAMES[name].fields}." in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("arc_easy", {"answerKey": "Z"}, "'answerKey' is 'Z', but the choices are labelled A, B, C, D."),
        ("arc_easy", {"choices": {"text": [], "label": []}}, "'text' must be a list of at least two texts"),
        ("arc_easy", {"choices": {"text": ["a", ""], "label": ["A", "B"]}}, "none of them empty"),
        ("arc_easy", {"choices": ["a", "b"]}, "'choices' must hold 'text' and 'label'"),
        ("piqa", {"label": -1}, "'label' is -1, but must be a whole number from 0 to 1."),
        ("hellaswag", {"label": ""}, "'label' is '', but must be a whole number from 0 to 3."),
        ("hellaswag", {"endings": ["[x]", "b", "c", "d"]}, "none of them empty"),
        ("winogrande", {"answer": ""}, "'answer' is '', but must be '1' or '2'."),
        ("winogrande", {"sentence": "No blank."}, "'sentence' must have a blank '_'"),
        ("copa", {"question": "why"}, "'question' is 'why', but must be 'cause' or 'effect'."),
        ("boolq", {"label": 2}, "'label' is 2"),
        ("lambada_openai", {"text": "one"}, "'text' must be several words"),
    ],
)
def test_a_bad_row_is_named(name, change, message, tmp_path):
    good = rows(name)[0]
    path = tiny.write_lines(tmp_path / "own.jsonl", [good, {**good, **change}])
    with pytest.raises(UserError) as refused:
        load_task(f"{name}={path}")
    assert str(refused.value).startswith("own.jsonl, row 2: ")
    assert message in str(refused.value)


def test_a_last_word_is_no_multiple_choice(tmp_path):
    path = tiny.write_lines(tmp_path / "own.jsonl", tiny.word_rows(1))
    with pytest.raises(UserError, match="no question of piqa"):
        load_task(f"piqa={path}")


def test_rows_from_the_hub(monkeypatch):
    asked = []

    def hub_rows(*where, limit: int) -> list[dict]:
        asked.append((*where, limit))
        return rows("arc_challenge")[:limit]

    monkeypatch.setattr(tasks, "hub_rows", hub_rows)
    assert (
        load_task("arc_challenge", 3).items == load_task(f"arc_challenge={ROWS}/arc_challenge.jsonl", 3).items
    )
    assert asked == [("allenai/ai2_arc", "ARC-Challenge", "test", 3)]


def test_wikitext_pages(tmp_path):
    whole = "".join(r["page"] for r in rows(WIKITEXT))
    path = tmp_path / "wiki.txt"
    path.write_text(whole, encoding="utf-8")
    assert wikitext_pages(whole) == [r["page"] for r in rows(WIKITEXT)]
    assert load_task(f"{WIKITEXT}={path}") == load_task(f"{WIKITEXT}={ROWS / WIKITEXT}.jsonl")
    assert load_task(f"{WIKITEXT}={path}", 2) == Pages(WIKITEXT, tuple(wikitext_pages(whole)[:2]), True)


def test_an_unknown_name_with_a_path():
    with pytest.raises(UserError, match="'chess' is no standard task"):
        load_task(f"chess={Path('x.jsonl')}")


def test_rows_of_a_csv_file(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text('query,choices,gold\nThe sun is,"[""hot"", ""cold""]",1\n', encoding="utf-8")
    (item,) = load_task(str(path)).items
    assert (item.prompt, item.choices, item.gold) == ("The sun is", ("hot", "cold"), 1)
    path.write_text("query,choices,gold\nThe sun is,hot or cold,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"own\.csv, row 1: 'choices' must be a list"):
        load_task(str(path))
    path.write_text("goal,sol1,sol2,label\n42,Add 40 and 2.,Add 1.,0\n", encoding="utf-8")
    (item,) = load_task(f"piqa={path}").items
    assert item.prompt == "Question: 42\nAnswer:"


def test_rows_of_a_parquet_file(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows("arc_easy")), path)
    assert load_task(f"arc_easy={path}") == load_task(f"arc_easy={ROWS / 'arc_easy'}.jsonl")
