"""Written answers against one token at a time, and what counts as right."""

from __future__ import annotations

import pytest
import torch

from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.data.corpora import HELDOUT, documents
from pip_core.evaluation.evaluator import Evaluator
from pip_core.evaluation.requests import Encoder
from pip_core.evaluation.tasks import WRITING_TASKS, Pages, load_task
from pip_core.evaluation.writing import Question, Writer, WritingBatches, WritingTask, beginnings, repeated

from .. import tiny, zoo

CONTEXT = 128
PROMPTS = (
    "The dog ran",
    "Then it slept, and the cat sat on",
    "Once there was a girl who saw a tree and a",
    "He",
)


@pytest.fixture(scope="module")
def encoder(tokenizer) -> Encoder:
    return Encoder(tokenizer, CONTEXT)


def naive(model, tokenizer, ids: list[int], tokens: int) -> str:
    """One prompt, one token at a time, everything read anew."""
    written: list[int] = []
    for _ in range(tokens):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*ids, *written]])).logits[0, -1]
        written.append(int(logits.argmax()))
        if written[-1] == model.generation_config.eos_token_id:
            break
    return tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "bloom"])
def test_many_prompts_are_continued_as_one_by_one(family, encoder):
    model = zoo.build(family).eval()
    prompts = encoder.encode(list(PROMPTS))
    writer = Writer([(ids, 9, False) for ids in prompts], encoder)
    steps = []
    found = drain(_counted(writer.write(model), steps))
    assert [t.strip() for t in found] == [naive(model, encoder.tokenizer, i, 9).strip() for i in prompts]
    assert sum(steps) == writer.tokens


def _counted(generator, steps: list[int]):
    value = None
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            value = end.value
            break
        yield steps[-1]
    return value


def test_a_model_that_minds_being_filled_up_reads_equal_lengths_together(encoder, monkeypatch):
    model = zoo.build("llama").eval()
    prompts = encoder.encode(list(PROMPTS))
    expected = [naive(model, encoder.tokenizer, ids, 5) for ids in prompts]
    generate, widths = model.generate, []

    def careless(input_ids, attention_mask, **options):
        widths.append(attention_mask.sum(1).unique().tolist())
        return generate(input_ids=input_ids, attention_mask=torch.ones_like(attention_mask), **options)

    monkeypatch.setattr(model, "generate", careless)
    assert drain(Writer([(ids, 5, False) for ids in prompts], encoder).write(model)) == expected
    assert all(len(width) == 1 for width in widths[1:])


def test_what_counts_as_right(encoder, monkeypatch):
    questions = tuple(
        Question(("Say it:",), (answer,)) for answer in ("Oslo", "Oslo.", "oslo", '"7"', "river")
    )
    batches = WritingBatches(WritingTask("own", questions), encoder)
    said = [" Oslo\n\nText", '"Oslo"', "Oslo", " 7.\n", "The river"]
    monkeypatch.setattr(Writer, "write", lambda self, model: _said(said))
    result = drain(batches.measure(None))
    assert result.hits == "11010"
    assert (result.metric, result.chance, result.accuracy) == ("exact_match", 0.0, 0.6)


def _said(texts):
    yield 1
    return texts


def test_repetition():
    assert repeated("one two three four five six") == 0
    assert repeated("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeated("so") == 0


def test_a_chat_is_asked_in_the_template():
    tokenizer = tiny.build_tokenizer()
    asked = WritingTask("own", (Question(("Hi?", "Yes", "Sure?"), ("No",), chat=True),))
    plain = WritingBatches(asked, Encoder(tokenizer, CONTEXT)).tokens
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    assert WritingBatches(asked, Encoder(tokenizer, CONTEXT)).tokens > plain
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(UserError, match="questions and answers in turn"):
        WritingBatches(asked, Encoder(tokenizer, CONTEXT))


def test_rows(tmp_path):
    rows = [{"prompt": "2 + 2 =", "answers": ["4", "four"]}, {"turns": ["Hi", "Yo", "Hi"], "answer": "Yo"}]
    task = load_task(tiny.write_lines(tmp_path / "own.jsonl", rows))
    assert isinstance(task, WritingTask)
    assert task.items[0].answers == ("4", "four")
    assert [item.chat for item in task.items] == [False, True]
    for wrong in ({"prompt": "x"}, {"prompt": 1, "answer": "x"}, {"turns": ["a", "b"], "answer": "x"}):
        with pytest.raises(UserError, match="row 1"):
            load_task(tiny.write_lines(tmp_path / "wrong.jsonl", [wrong]))


@pytest.mark.parametrize("name", WRITING_TASKS)
def test_shipped_questions(name):
    task = load_task(name)
    assert len(task.items) >= 60
    assert not task.duplicates
    # Nothing is gained by writing the same answer always.
    answers = [item.answers[0] for item in task.items]
    assert max(map(answers.count, answers)) <= len(answers) / 8


def test_texts_are_measured_and_continued(encoder, tokenizer):
    bits, begun = load_task(f"bits={HELDOUT}", 2), load_task(f"continue={HELDOUT}", 2)
    assert isinstance(bits, Pages)
    assert bits.pages == tuple(documents(HELDOUT)[:2])
    assert begun == beginnings(f"continue of {HELDOUT}", documents(HELDOUT)[:2])
    assert all(document.startswith(text) for document, text in zip(bits.pages, begun.texts, strict=True))
    model = zoo.build("llama").eval()
    evaluator = Evaluator(
        (load_task("copying", 2), bits, begun), torch.ones(2, 8, dtype=torch.long), tokenizer, model.config
    )
    steps: list[int] = []
    result = drain(_counted(evaluator.measure(model, 0), steps))
    assert sum(steps) == evaluator.tokens
    (text,), (written,) = result.texts, result.writing
    assert text.bits_per_byte > 0
    assert 0 <= written.repeated <= 1
    assert written.texts == 2
    with pytest.raises(UserError, match="Unknown text"):
        load_task("continue=nowhere")
