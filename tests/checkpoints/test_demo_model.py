"""The demo model and the grammar it comes from: small, able, and never told what it is asked."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.demo import data, grammar, train
from pip_core.checkpoints.load import Source, load_folder
from pip_core.core.paths import ASSETS
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.data.corpora import documents
from pip_core.evaluation.evaluator import TaskBatches, mean_accuracy
from pip_core.evaluation.requests import Encoder
from pip_core.evaluation.tasks import Task, load_task
from pip_core.structure.families import blocks_of

from .. import tiny
from ..tiny import ROOT

FOLDER = ASSETS / data.MODEL
KINDS = tuple(grammar.KINDS)
TEXT = str(ASSETS / "text" / "stories.txt")
HELDOUT = str(ASSETS / "text" / "stories-heldout.txt")
# Steps of the training that the tests read; `train --check` reads all.
STEPS = tuple(range(0, data.STEPS, data.STEPS // 50))


def task(kind: str, limit: int = 0) -> Task:
    return load_task(str(ASSETS / "tasks" / f"stories-{kind}.jsonl"), limit)


def answered(kind: str) -> list[str]:
    """The sentence that each shipped question ends in when answered rightly."""
    return [grammar.sentences(f"{i.prompt} {i.choices[i.gold]}")[-1] for i in task(kind).items]


def read_in_training(steps=STEPS) -> list[str]:
    return [s.text for step in steps for s in itertools.chain.from_iterable(data.training_rows(step))]


@pytest.fixture(scope="module")
def loaded():
    return load_folder(Source(FOLDER, "demo", "shipped", "apache-2.0"))


def test_it_is_small_and_whole():
    names = {p.name for p in FOLDER.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names >= {"generation_config.json", "README.md"}
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 15_000_000
    assert "license: apache-2.0" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_it_loads_plainly_and_tells_a_story():
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert model.config.model_type == "llama"
    assert model.dtype == torch.bfloat16
    assert len(blocks_of(model)) >= 12
    in_blocks = sum(p.numel() for p in blocks_of(model).parameters())
    assert in_blocks / model.num_parameters() > 0.9
    ids = tokenizer("One windy morning", return_tensors="pt")["input_ids"]
    told = model.generate(ids, do_sample=False, max_new_tokens=30, use_cache=True)[0]
    text = tokenizer.decode(told, skip_special_tokens=True)
    assert any(name in text for name in grammar.NAMES)


def test_any_text_can_be_read():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.is_fast
    text = "Teh lihgthouse wsa qiute drak, züm Beispiel 42 \U0001f989!"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    pairs = tiny.draw(Recipe(model=str(FOLDER), calibration=TEXT, windows=4), tokenizer)
    assert all(p.edits and not torch.equal(p.clean.ids, p.perturbed.ids) for p in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tasks_are_sound(kind):
    items = task(kind).items
    assert len(items) >= 60
    assert 0.25 <= task(kind).chance <= 0.5
    assert len({i.prompt for i in items}) == len(items)
    assert all(len(set(i.choices)) == len(i.choices) for i in items)
    counts = Counter(i.gold for i in items)
    assert max(counts.values()) / len(items) < task(kind).chance + 0.15
    # What is asked about was told: the thing that the last sentence names stands before it, too.
    for item, sentence in zip(items, answered(kind), strict=True):
        told = " ".join(grammar.sentences(item.prompt)[:-1])
        things = set(grammar.THINGS) & set(sentence.rstrip(".").split())
        assert things
        assert all(thing in told for thing in things)


@pytest.mark.parametrize("kind", KINDS)
def test_every_question_is_about_something_held_out(kind):
    for sentence in answered(kind):
        assert grammar.held_out_pairs(sentence), sentence


def test_nothing_held_out_is_read_in_training():
    stories = read_in_training()
    assert len(stories) > 100
    assert [s for s in stories if grammar.held_out_pairs(s)] == []
    answers = {sentence for kind in KINDS for sentence in answered(kind)}
    assert len(answers) > 300
    read = {sentence for story in stories for sentence in grammar.sentences(story)}
    assert not answers & read


def test_a_leak_would_be_seen():
    name, thing = next((n, t) for n in grammar.NAMES for t in grammar.OBJECTS if grammar.held_out(n, t))
    assert grammar.held_out_pairs(f"So the {thing} went home with {name}.") == [(name, thing)]
    assert grammar.held_out_pairs(f"So the {thing}s went home with {name}son.") == []


def test_the_texts_are_apart():
    calibration, held_back = documents(TEXT), documents(HELDOUT)
    assert len(set(calibration)) >= 100
    assert len(set(held_back)) >= 100
    assert not set(calibration) & set(held_back)
    # A grammar can tell a short story twice; it must not happen often enough to be measured.
    read = set(read_in_training())
    assert not read & set(calibration + held_back)


def test_the_shipped_files_are_what_the_grammar_makes(tmp_path):
    data.write_data(tmp_path)
    made = [p.relative_to(tmp_path) for f in ("text", "tasks") for p in sorted((tmp_path / f).iterdir())]
    assert len(made) == 2 + len(KINDS)
    assert [m for m in made if (tmp_path / m).read_bytes() != (ASSETS / m).read_bytes()] == []
    # How a tokenizer is written down changes with the library; what it does must not.
    again, shipped = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / data.MODEL, FOLDER))
    assert again.get_vocab() == shipped.get_vocab()
    story = documents(HELDOUT)[0]
    assert again(story)["input_ids"] == shipped(story)["input_ids"]


def test_the_grammar_tells_the_same_in_every_process():
    program = "from benchmarks.demo import grammar; print(next(grammar.stories('training/5')).text)"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {next(grammar.stories("training/5")).text}
    assert next(grammar.stories("training/6")).text not in told


def test_an_answer_stands_where_it_is_said_to():
    for story in itertools.islice(grammar.stories("training/5"), 20):
        assert story.answers
        assert all(story.text[start] == " " and story.text[end] == "." for start, end in story.answers)


def test_growing_changes_nothing_yet():
    tokenizer = data.build_tokenizer()
    shallow = train.build_model(tokenizer, train.SHALLOW)
    deep = train.grow(shallow, tokenizer)
    ids, _ = data.batch(0, tokenizer)
    with torch.inference_mode():
        assert torch.equal(shallow(ids).logits, deep(ids).logits)
    assert len(blocks_of(deep)) == train.DEEP


def test_stories_are_stories():
    for story in read_in_training(STEPS[:3]):
        assert story[0].isupper()
        assert story.endswith(".")
        assert "{" not in story
        assert "  " not in story
        assert all(s[0].isupper() for s in grammar.sentences(story))


def test_it_answers_what_it_never_read(loaded):
    results = [
        drain(TaskBatches(task(kind, 30), Encoder(loaded.tokenizer, data.CONTEXT)).measure(loaded.model))
        for kind in KINDS
    ]
    assert len(results) >= 4
    assert mean_accuracy(results)[0] >= 0.85
