"""Perplexity and accuracy against one row at a time: no batches, no filling up."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pip_core import evaluation
from pip_core.errors import UserError
from pip_core.evaluation import TaskBatches, mean_accuracy, perplexity, text_windows
from pip_core.events import TaskResult
from pip_core.recipe import TASKS
from pip_core.streams import drain
from pip_core.tasks import Item, Task, load_task
from pip_core.texts import documents

from . import zoo

CONTEXT = 128


def naive_perplexity(model: PreTrainedModel, windows: torch.Tensor) -> tuple[float, float]:
    with torch.inference_mode():
        losses = [float(model(input_ids=w[None], labels=w[None]).loss) for w in windows]
    value = math.exp(statistics.mean(losses))
    return value, value * statistics.stdev(losses) / math.sqrt(len(losses))


def naive_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, choice: str, context: int
) -> tuple[float, bool]:
    """Log-likelihood of the choice's tokens, and whether greedy decoding would write them."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(f"{prompt} {choice}")["input_ids"]
    scored = min(len(ids) - start, context - 1)
    ids = ids[-context:]
    total, greedy = 0.0, True
    for position in range(len(ids) - scored, len(ids)):
        with torch.inference_mode():
            logp = F.log_softmax(model(input_ids=torch.tensor([ids[:position]])).logits[0, -1], dim=-1)
        total += float(logp[ids[position]])
        greedy &= int(logp.argmax()) == ids[position]
    return total, greedy


def naive_hits(model, tokenizer, task: Task, context: int = CONTEXT) -> str:
    hits = ""
    for item in task.items:
        found = [naive_likelihood(model, tokenizer, item.prompt, c, context) for c in item.choices]
        if task.greedy:
            hits += str(int(found[0][1]))
        else:
            normed = [value / len(c) for (value, _), c in zip(found, item.choices, strict=True)]
            hits += str(int(normed.index(max(normed)) == item.gold))
    return hits


def batched_likelihoods(model, batches: TaskBatches) -> dict[tuple[int, int], tuple[float, bool]]:
    return {
        (row.item, row.choice): found
        for batch in batches.batches
        for row, found in zip(batch, evaluation._score_rows(model, batch), strict=True)
    }


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


def test_likelihoods_equal_one_row_at_a_time(model, tokenizer, task):
    batches = TaskBatches(task, tokenizer, CONTEXT)
    found = batched_likelihoods(model, batches)
    assert len(found) == sum(len(i.choices) for i in task.items)
    for (number, index), (likelihood, greedy) in found.items():
        item = task.items[number]
        value, same = naive_likelihood(model, tokenizer, item.prompt, item.choices[index], CONTEXT)
        assert likelihood == pytest.approx(value, abs=1e-4 * max(1.0, abs(value)))
        assert greedy == same


def test_predictions_equal_one_row_at_a_time(model, tokenizer, task):
    result = drain(TaskBatches(task, tokenizer, CONTEXT).measure(model))
    assert result.hits == naive_hits(model, tokenizer, task)
    assert result.name == task.name
    assert result.items == len(task.items) == len(result.hits)
    assert result.chance == task.chance
    share = result.hits.count("1") / len(result.hits)
    assert result.accuracy == pytest.approx(share)
    values = [int(h) for h in result.hits]
    assert result.se == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))


def test_both_answers_occur(tokenizer):
    """Otherwise the comparison above would show little."""
    model = zoo.build("llama")
    hits = drain(TaskBatches(load_task("sense", 30), tokenizer, CONTEXT).measure(model)).hits
    assert 3 < hits.count("1") < 27


def test_batch_size_changes_nothing(model, tokenizer, task, monkeypatch):
    found = []
    for tokens in (1, 100, 100_000):
        monkeypatch.setattr(evaluation, "BATCH_TOKENS", tokens)
        batches = TaskBatches(task, tokenizer, CONTEXT)
        found.append((batched_likelihoods(model, batches), len(batches.batches)))
    assert found[0][1] > found[1][1] > found[2][1] == 1
    for other, _ in found[1:]:
        assert other.keys() == found[0][0].keys()
        for key, (likelihood, greedy) in other.items():
            assert likelihood == pytest.approx(found[0][0][key][0], abs=1e-4, rel=1e-5)
            assert greedy == found[0][0][key][1]


def test_steps_add_up(model, tokenizer, task):
    batches = TaskBatches(task, tokenizer, CONTEXT)
    assert sum(batches.measure(model)) == batches.tokens


def test_last_word_is_greedy(model, tokenizer):
    """A last word that the model itself would write is right, another is wrong."""
    prompt = "The dog ran around the tree and the"
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
    assert drain(TaskBatches(Task("x", items, True), tokenizer, CONTEXT).measure(model)).hits == "10"


def test_choices_are_weighed_by_their_characters(tokenizer):
    """The longer choice has the lower sum, yet wins where each character counts."""
    model = zoo.build("llama")
    weighed = summed = 0
    for item in load_task("household", 30).items:
        values = [naive_likelihood(model, tokenizer, item.prompt, c, CONTEXT)[0] for c in item.choices]
        normed = [v / len(c) for v, c in zip(values, item.choices, strict=True)]
        weighed += normed.index(max(normed)) != values.index(max(values))
        task = Task("x", (Item(item.prompt, item.choices, normed.index(max(normed))),), False)
        summed += int(drain(TaskBatches(task, tokenizer, CONTEXT).measure(model)).hits)
    assert summed == 30
    assert weighed > 0


def test_equal_choices_give_the_first(tokenizer):
    model = zoo.build("llama")
    for gold, hits in ((0, "1"), (1, "0")):
        task = Task("x", (Item("The dog", ("ran", "ran"), gold),), False)
        assert drain(TaskBatches(task, tokenizer, CONTEXT).measure(model)).hits == hits


def test_a_long_row_loses_its_beginning(model, tokenizer):
    context = 32
    long = "The dog ran around the tree and then it slept for a while. " * 6
    items = (
        Item(long + "It was a good", ("dog", "long wooden ladder"), 0),
        Item("Short", ("dog", "cat"), 0),
    )
    task = Task("long", items, False)
    batches = TaskBatches(task, tokenizer, context)
    rows = {(r.item, r.choice): r for b in batches.batches for r in b}
    assert len(rows[0, 0].ids) == context
    whole = tokenizer(f"{items[0].prompt} dog")["input_ids"]
    assert rows[0, 0].ids.tolist() == whole[-context:]
    for key, (likelihood, _) in batched_likelihoods(model, batches).items():
        item = items[key[0]]
        value, _ = naive_likelihood(model, tokenizer, item.prompt, item.choices[key[1]], context)
        assert likelihood == pytest.approx(value, rel=1e-4)
    assert drain(batches.measure(model)).hits == naive_hits(model, tokenizer, task, context)


def test_a_choice_longer_than_the_context(tokenizer):
    model = zoo.build("gpt2")
    items = (Item("Count", (" and ".join(["one two three"] * 80), "no"), 0),)
    result = drain(TaskBatches(Task("long", items, False), tokenizer, CONTEXT).measure(model))
    assert result.items == 1


def test_a_beginning_of_text_token_is_no_choice(bos_tokenizer):
    model = zoo.build("llama")
    batches = TaskBatches(load_task("facts", 4), bos_tokenizer, CONTEXT)
    for (number, index), (likelihood, _) in batched_likelihoods(model, batches).items():
        item = load_task("facts", 4).items[number]
        value, _ = naive_likelihood(model, bos_tokenizer, item.prompt, item.choices[index], CONTEXT)
        assert likelihood == pytest.approx(value, rel=1e-4)
        row = next(r for b in batches.batches for r in b if (r.item, r.choice) == (number, index))
        assert bos_tokenizer.decode(row.ids[-row.scored :]).strip() == item.choices[index]


@pytest.mark.parametrize("name", TASKS)
def test_the_scored_tokens_are_the_choice(name, tokenizer):
    task = load_task(name)
    for batch in TaskBatches(task, tokenizer, 1000).batches:
        for row in batch:
            text = tokenizer.decode(row.ids[-row.scored :])
            assert text.strip() == task.items[row.item].choices[row.choice]


def test_mean_accuracy():
    results = [TaskResult("a", 0.5, 0.03, 10, 0.5, ""), TaskResult("b", 0.7, 0.04, 90, 0.25, "")]
    mean, se = mean_accuracy(results)
    assert mean == pytest.approx(0.6)
    assert se == pytest.approx(0.025)
