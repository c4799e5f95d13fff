"""What is shipped: enough of it, well formed, and nothing measured was calibrated on."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pip_core.core.paths import ASSETS
from pip_core.data.corpora import DOMAINS, HELDOUT, documents
from pip_core.evaluation.tasks import TASKS, WRITING_TASKS, load_task

SEQUENCE = 13


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def sequences(texts: list[str]) -> set[tuple[str, ...]]:
    """Every run of 13 lower-cased words inside one of the `texts`."""
    return {tuple(w[i : i + SEQUENCE]) for w in map(words, texts) for i in range(len(w) - SEQUENCE + 1)}


def lines(texts: list[str]) -> set[str]:
    """Lines of four words or more, without regard to case and punctuation."""
    found = (words(line) for text in texts for line in text.splitlines())
    return {" ".join(w) for w in found if len(w) >= 4}


def calibration() -> list[str]:
    return [d for domain in DOMAINS for d in documents(domain)]


def item_texts(name: str) -> list[str]:
    return [f"{i.prompt} {choice}" for i in load_task(name).items for choice in i.choices]


def test_five_tasks():
    assert len(TASKS) >= 5
    shipped = {p.stem for p in (ASSETS / "tasks").glob("*.jsonl")}
    # The demo model's own, see test_demo.py.
    assert {s for s in shipped if not s.startswith("stories-")} == {*TASKS, *WRITING_TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_large_enough_and_unique(name):
    task = load_task(name)
    assert len(task.items) >= 60
    assert len({(i.prompt, i.choices) for i in task.items}) == len(task.items)
    assert len({" ".join(words(i.prompt)) for i in task.items}) >= 0.95 * len(task.items)
    assert all(len(set(i.choices)) == len(i.choices) for i in task.items)
    assert all(0 <= i.gold < len(i.choices) for i in task.items)
    assert all(text == text.strip() for i in task.items for text in (i.prompt, *i.choices))


@pytest.mark.parametrize("name", TASKS)
def test_the_right_answer_stands_anywhere(name):
    task = load_task(name)
    if task.greedy:
        assert {i.gold for i in task.items} == {0}
        return
    for limit in (60, len(task.items)):
        items = task.items[:limit]
        expected = sum(1 / len(i.choices) for i in items)
        for position, count in Counter(i.gold for i in items).items():
            share = count / sum(position < len(i.choices) for i in items)
            chance = expected / limit
            assert abs(share - chance) <= 0.12, f"answer {position} is right in {share:.0%}"


def test_the_longest_answer_is_not_the_right_one_too_often():
    hits = chance = total = 0.0
    for name in TASKS:
        for item in load_task(name).items:
            if len(item.choices) > 1:
                longest = max(range(len(item.choices)), key=lambda i: len(item.choices[i]))
                hits += longest == item.gold
                chance += 1 / len(item.choices)
                total += 1
    assert total
    assert abs(hits - chance) / total < 0.15


@pytest.mark.parametrize("name", [n for n in TASKS if n == "endings"])
def test_last_words_are_single_words(name):
    task = load_task(name)
    assert task.greedy
    assert all(re.fullmatch(r"[A-Za-z']+", i.choices[0]) for i in task.items)
    assert all(len(i.prompt.split()) >= 12 for i in task.items)


def test_calibration_is_large_enough():
    sizes = {d: (ASSETS / "text" / f"{d}.txt").stat().st_size for d in DOMAINS}
    # As many tokens as the refit of SmolLM2-135M reads, at four letters each and a little more.
    assert sum(sizes.values()) >= 49_152 * 5
    assert min(sizes.values()) >= 10_000


def test_measure_of_overlap():
    text = "One two three four five six seven eight nine ten, eleven twelve THIRTEEN fourteen."
    assert len(sequences([text])) == 2
    assert sequences(["x " + text.lower()]) > sequences([text])
    assert lines([text]) == lines([text.upper()])


@pytest.mark.parametrize("measured", [HELDOUT, *TASKS])
def test_nothing_measured_was_calibrated_on(measured):
    texts = documents(HELDOUT) if measured == HELDOUT else item_texts(measured)
    assert not sequences(calibration()) & sequences(texts)
    assert not lines(calibration()) & lines(texts)


def test_heldout_fills_many_windows():
    assert len(" ".join(documents(HELDOUT))) > 15_000


def test_texts_and_tasks_hold_plain_characters():
    for path in [*(ASSETS / "text").glob("*.txt"), *(ASSETS / "tasks").glob("*.jsonl")]:
        text = path.read_text(encoding="utf-8")
        assert "\r" not in text
        assert "\ufffd" not in text
        assert "\t" not in text or path.stem == "code"
