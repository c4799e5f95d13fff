"""Perplexity and accuracy against one row at a time: no batches, no filling up."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from pip_core.core.errors import UserError
from pip_core.core.events import Skipped
from pip_core.core.progress import drain
from pip_core.data.corpora import documents
from pip_core.evaluation.evaluator import Evaluator, PageBatches, TaskBatches, perplexity, text_windows
from pip_core.evaluation.items import Item
from pip_core.evaluation.requests import Encoder
from pip_core.evaluation.standard_tasks import wikitext_detokenized
from pip_core.evaluation.statistics import share
from pip_core.evaluation.tasks import TASKS, Pages, Task, load_task

from .. import tiny, zoo

CONTEXT = 128


def naive_perplexity(model: PreTrainedModel, windows: torch.Tensor) -> tuple[float, float]:
    with torch.inference_mode():
        losses = [float(model(input_ids=w[None], labels=w[None]).loss) for w in windows]
    value = math.exp(statistics.mean(losses))
    return value, value * statistics.stdev(losses) / math.sqrt(len(losses))


def naive_likelihood(
    model: PreTrainedModel, encoder: Encoder, request: tuple[str, str]
) -> tuple[float, bool]:
    """Log-likelihood of the continuation's tokens, and whether greedy decoding would write them."""
    (found,) = encoder.requests([request])
    total, greedy, ids = 0.0, True, [*found.ids, found.targets[-1]]
    for position in range(len(ids) - len(found.targets), len(ids)):
        with torch.inference_mode():
            logp = F.log_softmax(model(input_ids=torch.tensor([ids[:position]])).logits[0, -1], dim=-1)
        total += float(logp[ids[position]])
        greedy &= int(logp.argmax()) == ids[position]
    return total, greedy


def naive_hits(model, encoder: Encoder, task: Task, metric: str) -> str:
    hits = ""
    for item in task.items:
        found = [naive_likelihood(model, encoder, r) for r in item.requests]
        if task.greedy:
            hits += str(int(found[0][1]))
            continue
        lengths = [len(c) if metric == "acc_norm" else 1 for c in item.choices]
        values = [v / n for (v, _), n in zip(found, lengths, strict=True)]
        hits += str(int(values.index(max(values)) == item.gold))
    return hits


@pytest.fixture
def encoder(tokenizer) -> Encoder:
    return Encoder(tokenizer, CONTEXT)


@pytest.fixture(params=["choices", "words", "facts", "endings"])
def task(request, tasks) -> Task:
    own = {"choices": tasks[0], "words": tasks[1]}
    return load_task(own.get(request.param, request.param), 10)


def test_perplexity_equals_one_window_at_a_time(model, tokenizer):
    windows = text_windows(documents("heldout"), tokenizer, 48, 7)
    found = drain(perplexity(model, windows))
    value, se = naive_perplexity(model, windows)
    assert found.value == pytest.approx(value, rel=1e-4)
    assert found.se == pytest.approx(se, rel=1e-3)
    assert (found.windows, found.window_tokens) == (7, 48)


def test_perplexity_of_a_broken_model_is_a_number(tokenizer):
    model = zoo.build("llama")
    model.model.norm.weight.data *= 1e6
    found = drain(perplexity(model, text_windows(documents("heldout"), tokenizer, 48, 3)))
    assert math.isfinite(found.value)
    assert found.value > 1e6


def test_perplexity_of_a_model_with_nan_is_refused(tokenizer):
    model = zoo.build("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="finite"):
        drain(perplexity(model, tiny.token_rows(3, 20)))


@pytest.mark.parametrize("kind", [TaskBatches, PageBatches])
def test_a_model_with_nan_answers_nothing(kind, encoder, task):
    model = zoo.build("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    batches = kind(task, encoder) if kind is TaskBatches else kind(Pages("w", ("A cat sat .",)), encoder)
    with pytest.raises(UserError, match="finite"):
        drain(batches.measure(model))


def test_windows_stand_side_by_side(tokenizer):
    ids = tokenizer("\n\n".join(documents("heldout")))["input_ids"]
    windows = text_windows(documents("heldout"), tokenizer, 64, 0)
    assert windows.shape == (len(ids) // 64, 64)
    assert windows.flatten().tolist() == ids[: windows.numel()]


def test_a_limit_spreads_the_windows(tokenizer):
    everything = text_windows(documents("heldout"), tokenizer, 64, 0)
    few = text_windows(documents("heldout"), tokenizer, 64, 4)
    assert few.shape == (4, 64)
    assert torch.equal(few[0], everything[0])
    assert torch.equal(few[-1], everything[-1])
    assert torch.equal(text_windows(documents("heldout"), tokenizer, 64, 10**6), everything)


def test_text_too_short_for_perplexity(tokenizer):
    with pytest.raises(UserError, match="at least two windows of 64 are needed"):
        text_windows(["Too short."], tokenizer, 64, 4)


def test_predictions_equal_one_row_at_a_time(model, encoder, task):
    batches = TaskBatches(task, encoder)
    result = drain(batches.measure(model))
    assert result.hits == naive_hits(model, encoder, task, task.metric)
    assert result.name == task.name
    assert result.items == len(task.items) == len(result.hits)
    assert (result.chance, result.metric, result.digest) == (task.chance, task.metric, task.digest)
    assert (result.accuracy, result.se) == share(result.hits)
    plain = naive_hits(model, encoder, task, "acc")
    assert (result.acc, result.acc_se) == share(plain)
    if task.greedy:
        assert (result.acc_norm, result.acc_norm_se) == (None, None)
    else:
        norm = naive_hits(model, encoder, task, "acc_norm")
        assert (result.acc_norm, result.acc_norm_se) == share(norm)


def test_both_metrics_differ_and_the_main_one_is_reported(encoder):
    """Otherwise the comparison above would show little."""
    model, task = zoo.build("llama"), load_task("household", 40)
    both = [replace(task, metric=m) for m in ("acc", "acc_norm")]
    found = {t.metric: drain(TaskBatches(t, encoder).measure(model)) for t in both}
    assert found["acc"].hits != found["acc_norm"].hits
    for metric, result in found.items():
        assert result.accuracy == getattr(result, metric)
        assert 3 < result.hits.count("1") < 37


def test_steps_add_up(model, encoder, task):
    batches = TaskBatches(task, encoder)
    assert sum(batches.measure(model)) == batches.tokens


def test_last_word_is_greedy(model, encoder):
    """A last word that the model itself would write is right, another is wrong."""
    prompt, tokenizer = "The dog ran around the tree and the", encoder.tokenizer
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    words = {t: i for t, i in tokenizer.get_vocab().items() if t.startswith("Ġ") and t[1:].isalpha()}
    best = max(words, key=lambda t: float(logits[words[t]]))
    # Make that word the likeliest of all tokens.
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    head.weight.data[words[best]] *= 50 * float(logits[words[best]].sign())
    other = next(t for t in words if t != best)
    items = tuple(Item(prompt, (t[1:],), 0) for t in (best, other))
    assert drain(TaskBatches(Task("x", items, True, "acc"), encoder).measure(model)).hits == "10"


def test_equal_choices_give_the_first(encoder):
    model = zoo.build("llama")
    for gold, hits in ((0, "1"), (1, "0")):
        task = Task("x", (Item("The dog", ("ran", "ran"), gold),), False)
        assert drain(TaskBatches(task, encoder).measure(model)).hits == hits


def test_openings_compete(model, encoder):
    """The same ending after different beginnings: only what comes before can decide."""
    items = tuple(
        Item("", ("slept.",) * 2, gold, (f"The dog and the cat were tired, so the {a}", f"It rained, so {b}"))
        for gold, (a, b) in enumerate((("dog", "the cat"), ("tree", "she")))
    )
    task = Task("x", items, False, "acc")
    result = drain(TaskBatches(task, encoder).measure(model))
    assert result.hits == naive_hits(model, encoder, task, "acc")
    assert result.acc == result.acc_norm


def test_a_long_row_loses_its_beginning_and_is_counted(model, tokenizer):
    encoder = Encoder(tokenizer, 32)
    long = "The dog ran around the tree and then it slept for a while. " * 6
    items = (
        Item(long + "It was a good", ("dog", "long wooden ladder"), 0),
        Item("Short", ("dog", "cat"), 0),
        Item("Count", (" and ".join(["one two three"] * 80), "no"), 0),
    )
    task = Task("long", items, False)
    result = drain(TaskBatches(task, encoder).measure(model))
    assert result.hits == naive_hits(model, encoder, task, "acc_norm")
    assert result.cut == 2


def test_repeated_items_are_counted(model, encoder):
    item = Item("The dog", ("ran", "slept"), 0)
    task = Task("x", (item, Item("The cat", ("ran", "slept"), 0), item, item), False)
    assert drain(TaskBatches(task, encoder).measure(model)).duplicates == 2


def test_items_have_a_digest():
    first, second = load_task("facts", 10), load_task("facts", 11)
    assert first.digest == load_task("facts", 10).digest != second.digest
    assert len(first.digest) == 12


class Swallowing(Encoder):
    """As a tokenizer that makes one token of a prompt and the choice after it."""

    def requests(self, pairs):
        raise UserError("with this model's tokenizer 'x' has no token of its own.")


def test_an_unanswerable_task_is_named(tokenizer):
    with pytest.raises(UserError, match="The task facts cannot be measured: with this model's tokenizer"):
        TaskBatches(load_task("facts", 3), Swallowing(tokenizer, 64))


def test_a_bench_goes_on_without_a_task_that_cannot_be_asked(tokenizer, monkeypatch):
    model, own = zoo.build("llama"), Encoder.requests
    pages = Pages("wikitext", ("The dog slept . ", "The cat ran and ran and ran ."))

    def requests(self, pairs):
        if any("Question" in before for before, _ in pairs):
            raise UserError("no.")
        return own(self, pairs)

    monkeypatch.setattr(Encoder, "requests", requests)
    bad = Task("bad", (Item("Question", ("a", "b"), 0),), False)
    windows = text_windows(documents("heldout"), tokenizer, 48, 2)
    bench = Evaluator([load_task("facts", 3), bad, pages], windows, tokenizer, model.config)
    assert bench.skipped == [Skipped("bad", "The task bad cannot be measured: no.")]
    steps, result = [], None
    work = bench.measure(model, 3)
    try:
        while True:
            steps.append(next(work))
    except StopIteration as end:
        result = end.value
    assert sum(steps) == bench.tokens
    assert [t.name for t in result.tasks] == ["facts"]
    assert [t.name for t in result.texts] == ["wikitext"]
    assert (result.iteration, result.accuracy) == (3, result.tasks[0].accuracy)
    with pytest.raises(UserError, match="The task bad cannot be measured"):
        Evaluator([bad], windows, tokenizer, model.config)


def test_perplexity_of_pages(model, tokenizer):
    """Every token once, after all that the window holds, per word of the text as it was."""
    encoder = Encoder(tokenizer, 16)
    pages = ("The dog ran around the tree , and then it slept for a while @-@ long . ", " A cat .")
    nats = 0.0
    for page in pages:
        tokens = tokenizer(wikitext_detokenized(page))["input_ids"]
        ids = [tokenizer.bos_token_id, *tokens]
        for position in range(1, len(ids)):
            start = (position - 1) // 16 * 16
            end = min(start + 16, len(tokens))
            first = max(0, end - 16) if start else 0
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids[first:position]])).logits[0, -1]
            nats -= float(F.log_softmax(logits, dim=-1)[ids[position]])
    found = drain(PageBatches(Pages("w", pages, wikitext=True), encoder).measure(model))
    words = sum(len(re.split(r"\s+", p)) for p in pages)
    assert found.words == words
    assert found.word_perplexity == pytest.approx(math.exp(nats / words), rel=1e-4)
    size = sum(len(p.encode()) for p in pages)
    assert found.byte_perplexity == pytest.approx(math.exp(nats / size), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(nats / size / math.log(2), rel=1e-4)
    assert (found.documents, found.window) == (2, 16)


@pytest.mark.parametrize("name", TASKS)
def test_the_scored_tokens_are_the_choice(name, tokenizer):
    task = load_task(name)
    encoder = Encoder(tokenizer, 1000)
    for item in task.items:
        for request, choice in zip(encoder.requests(item.requests), item.choices, strict=True):
            assert tokenizer.decode(request.targets) == f" {choice}"
