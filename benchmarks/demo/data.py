"""What the demo model is trained and measured on: texts, tasks, tokenizer and batches, all made from
the grammar."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pip_core.core.recipe import Recipe
from pip_core.data import corpora
from pip_core.data.contamination import grams

from . import grammar

SEED = 0
# Steps of the training; of both stages together.
STEPS = 10000
# A step's batch: short rows, and every fourth time fewer long ones.
TOKENS, ROW_TOKENS, LONG_ROW_TOKENS = 512, 128, 256
CONTEXT = 512
# A story is mostly chance; an answer, which follows from it, weighs as much as so many tokens more.
ANSWER_WEIGHT = 8.0
VOCABULARY = 1536
BOS, EOS = "<s>", "</s>"
ITEMS = 80
# Documents of the calibration text and of the held-back text.
DOCUMENTS = 120
MODEL, TEXTS, TASKS = "models/demo", "text", "tasks"


def recipe(assets: Path = corpora.ASSETS) -> Recipe:
    """A run on the demo model in `assets` with its own texts and its tasks, whole; everything else as
    usual."""
    return Recipe(
        model=str(assets / MODEL),
        calibration=str(assets / TEXTS / "stories.txt"),
        heldout=str(assets / TEXTS / "stories-heldout.txt"),
        tasks=tuple(str(assets / TASKS / f"stories-{kind}.jsonl") for kind in grammar.KINDS),
        items=0,
    )


def write_data(assets: Path) -> None:
    """Texts, tasks and tokenizer, into a folder laid out like `assets`."""
    for folder in (MODEL, TEXTS, TASKS):
        (assets / folder).mkdir(parents=True, exist_ok=True)
    asked = {kind: grammar.questions(kind, ITEMS, SEED) for kind in grammar.KINDS}
    for kind, items in asked.items():
        rows = (json.dumps(item) for item in items)
        _write(assets / TASKS / f"stories-{kind}.jsonl", "\n".join(rows) + "\n")
    heldout = [s.text for s in itertools.islice(grammar.stories(grammar.HELDOUT, SEED), DOCUMENTS)]
    measured = heldout + [
        f"{i['query']} {i['choices'][i['gold']]}" for items in asked.values() for i in items
    ]
    # The grammar says some things in the same words again; not what is measured in what is calibrated on.
    asked_words = {words for text in measured for words in grams(text)}
    told = (s.text for s in grammar.stories(grammar.CALIBRATION, SEED))
    apart = (text for text in told if asked_words.isdisjoint(grams(text)))
    for name, documents in (("stories", itertools.islice(apart, DOCUMENTS)), ("stories-heldout", heldout)):
        _write(assets / TEXTS / f"{name}.txt", corpora.DOCUMENT_BREAK.join(documents) + "\n")
    build_tokenizer().save_pretrained(assets / MODEL)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that has a token of its own for nearly every word of the grammar."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    told = itertools.islice(grammar.stories("tokenizer", SEED), 4000)
    tokenizer.train_from_iterator((s.text for s in told), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def row_tokens(step: int) -> int:
    """How long the rows of a training step are."""
    return LONG_ROW_TOKENS if step % 4 == 3 else ROW_TOKENS


def training_rows(step: int) -> Iterator[list[grammar.Story]]:
    """The stories of each row of a training step's batch: enough to fill it."""
    told, tokens = grammar.stories(f"{grammar.TRAINING}/{step}", SEED), row_tokens(step)
    for _ in range(TOKENS // tokens):
        row: list[grammar.Story] = []
        # A word is at least one token.
        while sum(len(s.text.split()) for s in row) < tokens:
            row.append(next(told))
        yield row


def batch(step: int, tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and the weights of their losses, `(rows, row_tokens(step))` each. Half of the rows
    are stories one below the other, as in the texts; in the others each has a beginning and an end."""
    rng, rows, weights = random.Random(f"{SEED}/rows/{step}"), [], []
    for told in training_rows(step):
        joined = rng.random() < 0.5
        text, answers = "", []
        for story in told:
            answers += [(len(text) + start, len(text) + end) for start, end in story.answers]
            text += story.text + ("\n\n" if joined else EOS + BOS)
        encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
        rows.append(encoded["input_ids"][: row_tokens(step)])
        extra = [0.0] * len(text)
        for start, end in answers:
            extra[start:end] = [ANSWER_WEIGHT / (end - start)] * (end - start)
        covered = encoded["offset_mapping"][: row_tokens(step)]
        weights.append([1 + sum(extra[start:end]) for start, end in covered])
    return torch.tensor(rows), torch.tensor(weights)


def differences(assets: Path) -> list[str]:
    """What is wrong with the shipped texts, tasks and tokenizer: files that the grammar does not
    make again byte for byte, and anything held out that stands in the training text."""
    found = []
    with tempfile.TemporaryDirectory() as again:
        write_data(Path(again))
        for made in sorted(p for p in Path(again).rglob("*") if p.is_file()):
            name = made.relative_to(again)
            shipped = assets / name
            if not shipped.is_file() or shipped.read_bytes() != made.read_bytes():
                found.append(f"{name.as_posix()} is not what the grammar makes")
    asked = {item for kind in grammar.KINDS for item in answers(kind)}
    for step in range(STEPS):
        for story in itertools.chain.from_iterable(training_rows(step)):
            found += [f"step {step} tells of {' and '.join(p)}" for p in grammar.held_out_pairs(story.text)]
            told = asked.intersection(grammar.sentences(story.text))
            found += [f"step {step} answers '{s}'" for s in told]
    return found


def answers(kind: str) -> list[str]:
    """The sentence that answers each shipped question of a kind."""
    items = grammar.questions(kind, ITEMS, SEED)
    return [grammar.sentences(f"{i['query']} {i['choices'][i['gold']]}")[-1] for i in items]
