"""Speed and memory of two models: what is measured, and that both meet the same machine."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import DynamicCache

from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.inspection import latency
from pip_core.inspection.latency import Spread, compare_latency, table, weights_memory

from .. import tiny, zoo
from ..processes import cli

# Keys and values of two heads of eight numbers, four bytes each.
BLOCK_TOKEN = 2 * 2 * 8 * 4


@pytest.fixture
def pair(opened):
    """A tiny Llama, and the same with two of its five blocks gone."""
    dense, pruned = opened("llama"), opened("llama")
    tiny.without_blocks(pruned, [1, 3])
    return dense, pruned


def test_memory(pair, checkpoints):
    found = drain(compare_latency(*pair, prompt_tokens=6, new_tokens=3, rounds=2))
    assert found.dense.cache_per_token == zoo.BLOCKS * BLOCK_TOKEN
    assert found.pruned.cache_per_token == (zoo.BLOCKS - 2) * BLOCK_TOKEN
    assert found.dense.cache_total == 9 * found.dense.cache_per_token
    assert found.dense.weights_memory == 4 * sum(p.numel() for p in pair[0].model.parameters()) + sum(
        b.numel() * b.element_size() for b in pair[0].model.buffers()
    )
    assert found.pruned.weights_memory < found.dense.weights_memory
    file = checkpoints["llama"] / "model.safetensors"
    assert found.dense.weights_disk == file.stat().st_size
    assert (found.prompt_tokens, found.new_tokens, found.rounds) == (6, 3, 2)
    assert (found.device, found.dtype) == ("cpu", "float32")


def test_tied_weights_count_once():
    model = zoo.build("llama")
    before = weights_memory(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    assert weights_memory(model) == before + 4 * zoo.VOCABULARY * 32


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_a_sliding_window_stops_growing(opened, family):
    loaded = opened(family)
    found = drain(compare_latency(loaded, loaded, prompt_tokens=12, new_tokens=5, rounds=2)).dense
    per_block = found.cache_per_token / zoo.BLOCKS
    config = zoo.CONFIGS[family]()
    # Keys and values of every key-value head, four bytes each.
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert per_block == 2 * config.num_key_value_heads * head * 4
    sliding = zoo.PATTERN.count("sliding_attention")
    # What is kept is the window's four tokens, at most.
    assert found.cache_total == per_block * (17 * (zoo.BLOCKS - sliding) + 4 * sliding)


@pytest.mark.parametrize("family", tiny.SAVED)
def test_what_is_timed_is_greedy_decoding(opened, family):
    loaded = opened(family)
    prompt = tiny.token_rows(1, 9)
    expected = loaded.model.generate(prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False)[0, 9:]
    written, ids, cache = [], prompt, None
    with torch.inference_mode():
        for _ in range(8):
            ids, cache = latency.next_token(loaded.model, ids, cache)
            written.append(int(ids))
    # generate() never writes the token that ends a text; where it would come, both would differ.
    until = written.index(1) if 1 in written else 8
    assert written[:until] == expected[:until].tolist()
    assert until > 0


def faked(monkeypatch, pruned, read, write) -> list[tuple]:
    """Let functions of the number of the turn and of whose it is say how long reading and writing take;
    returns the turns: (what, whether the pruned model's, tokens)."""
    turns: list[tuple] = []

    def read_(model, prompt):
        turns.append(("read", model is pruned.model, prompt.shape[1]))
        return read(len(turns) - 1, turns[-1][1]), (None, DynamicCache())

    def write_(model, state, tokens):
        turns.append(("write", model is pruned.model, tokens))
        return write(len(turns) - 1, turns[-1][1]), state

    monkeypatch.setattr(latency, "_read", read_)
    monkeypatch.setattr(latency, "_write", write_)
    return turns


def test_models_take_turns(pair, monkeypatch):
    turns = faked(monkeypatch, pair[1], lambda *_: 1.0, lambda *_: 1.0)
    steps = [(s.done, s.total) for s in compare_latency(*pair, prompt_tokens=8, new_tokens=6, rounds=4)]
    assert steps == [(n, 6) for n in range(1, 7)]
    first = [("read", p, 8) for p in (False, True)] + [("write", p, n) for n in (4, 2) for p in (False, True)]
    other = [(what, not pruned, tokens) for what, pruned, tokens in first]
    assert turns == [*first, *other] * 3


def test_ratios_come_from_the_rounds(pair, monkeypatch):
    """Turn by turn the machine becomes slower; the ratio of the two stays what it is."""
    faked(
        monkeypatch,
        pair[1],
        lambda turn, pruned: 2.0 ** (turn // 2) * (1 if pruned else 3),
        lambda turn, pruned: 2.0 ** (turn // 2) * (1 if pruned else 5),
    )
    found = drain(compare_latency(*pair, prompt_tokens=12, new_tokens=6, rounds=4))
    assert found.prefill_ratio == Spread(3, 3, 3)
    assert found.decode_ratio == Spread(5, 5, 5)
    # Two rounds of warm-up are not counted; a round has three pairs of turns.
    assert found.dense.prefill == Spread.of([12 / (3 * 8.0**n) for n in range(2, 6)])
    assert found.pruned.decode == Spread.of([6 / (2 * 8.0**n + 4 * 8.0**n) for n in range(2, 6)])


def test_spread():
    assert Spread.of([5, 1, 2, 4, 3]) == Spread(3, 2, 4)
    assert Spread.of([1, 2]) == Spread(1.5, 1.25, 1.75)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_tokens": 0}, "at least 1 prompt token"),
        ({"new_tokens": 0}, "1 new token"),
        ({"rounds": 1}, "2 rounds"),
        (
            {"prompt_tokens": 250, "new_tokens": 7},
            "test/llama reads at most 256 tokens, and prompt and answer",
        ),
    ],
)
def test_what_cannot_be_measured(pair, settings, message):
    with pytest.raises(UserError, match=message):
        drain(compare_latency(*pair, **settings))


def test_a_prompt_longer_than_the_text(opened, monkeypatch):
    monkeypatch.setattr(latency, "documents", lambda name: ["The dog ran."])
    assert latency.make_prompt(opened("llama"), 100, 4).shape == (1, 100)


def test_table(pair):
    found = drain(compare_latency(*pair, prompt_tokens=8, new_tokens=4, rounds=2))
    told = table(found)
    assert "prompt 8 tokens, answer 4; float32 on cpu" in told
    assert f"{found.prefill_ratio.median:.2f} (" in told
    assert "| cache per token, kB, at most | 0.6 | 0.4 | 0.60 |" in told


def test_command(llama_folder, checkpoints):
    sizes = ("--prompt-tokens", "8", "--new-tokens", "4", "--rounds", "2")
    pair = ("--model", checkpoints["qwen2"], "--against", llama_folder)
    done = cli("latency", *pair, *sizes, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["dense"]["cache_total"] == 12 * zoo.BLOCKS * BLOCK_TOKEN
    assert found["pruned"]["cache_total"] < found["dense"]["cache_total"]
    assert found["prefill_ratio"]["low"] <= found["prefill_ratio"]["median"]
    refused = cli("latency", *pair, "--prompt-tokens", "999")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: llama reads at most 256 tokens")
