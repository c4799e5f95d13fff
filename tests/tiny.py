"""Tiny random models, a tokenizer and tasks: everything a run needs, made in a second, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from pip_core.events import Event
from pip_core.families import blocks_of
from pip_core.recipe import Recipe
from pip_core.texts import ASSETS
from pip_core.views import Pair, draw_pairs

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 1600
BLOCKS = 5
PATTERN = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Larger than usual, so that every block changes what the model says.
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))


def gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=128,
        n_embd=32,
        n_layer=4,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config)


def qwen2() -> PreTrainedModel:
    """Per-layer attention: some blocks see all of the text, some four tokens."""
    config = Qwen2Config(
        **SHAPE,
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=list(PATTERN),
    )
    return Qwen2ForCausalLM(config)


def gemma2() -> PreTrainedModel:
    config = Gemma2Config(**SHAPE, head_dim=8, sliding_window=4, layer_types=list(PATTERN))
    return Gemma2ForCausalLM(config)


def smollm3() -> PreTrainedModel:
    """Per-layer rotary positions."""
    return SmolLM3ForCausalLM(SmolLM3Config(**SHAPE, no_rope_layers=[1, 0, 1, 1, 0]))


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "gpt2": gpt2,
    "qwen2": qwen2,
    "gemma2": gemma2,
    "smollm3": smollm3,
}


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """A random model of `family` in evaluation mode, float32."""
    torch.manual_seed(seed)
    model = FAMILIES[family]()
    for name, weight in model.named_parameters():
        # Weights that are made as ones and zeros would hide a mistake in them.
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
        assert weight.isfinite().all(), name
    return model.eval()


def build_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the shipped texts; `bos` puts `<s>` before every text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(p) for p in sorted((ASSETS / "text").glob("*.txt"))], trainer)
    if bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def fixed_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a dozen merges that never change, for token ids that were written down."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t"), ("i", "n")]
    merges += [("Ġ", "in"), ("Ġ", "a"), ("a", "t"), ("m", "at"), ("o", "n"), ("Ġ", "Ġ"), ("Ġ", "s")]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *letters, *("".join(m) for m in merges)]
    bpe = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(words)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<s>", "</s>"])
    if bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def save(folder: Path, family: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Path:
    """A checkpoint folder as a publisher would make it."""
    build(family, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """An encoder, which cannot be pruned here."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_lines(path: Path, rows: Sequence[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def choice_rows(count: int = 8) -> list[dict]:
    """Multiple choice with choices of unequal length."""
    things = ("bread", "a long wooden ladder", "rain", "the last train home")
    return [
        {
            "query": f"On day {n} she looked out and saw",
            "choices": list(things[: 2 + n % 3]),
            "gold": n % 2,
        }
        for n in range(count)
    ]


def word_rows(count: int = 8) -> list[dict]:
    return [
        {"context": f"The dog ran {n} times around the tree. It was a good", "continuation": w}
        for n, w in zip(range(count), ("dog", "tree", "day", "run") * count, strict=False)
    ]


def recipe_for(model: Path | str, tasks: Sequence[str] = ("endings",), **changes) -> Recipe:
    """A recipe that runs in a few seconds; on the tiny models two blocks go."""
    settings = {
        "model": str(model),
        "target": 0.2,
        "windows": 3,
        "window_tokens": 24,
        "tasks": tuple(tasks),
        "items": 6,
        "perplexity_windows": 2,
        "perplexity_tokens": 32,
        "dtype": "float32",
    }
    return Recipe(**{**settings, **changes})


def pairs_for(tokenizer: PreTrainedTokenizerFast, count: int = 3, **changes) -> list[Pair]:
    return draw_pairs(recipe_for("unused", windows=count, **changes), tokenizer, 1)


def token_rows(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def bypass(model: PreTrainedModel, positions: Sequence[int]) -> list:
    """Make the blocks at `positions` hand on what they were given; returns the hooks' handles."""

    def hand_on(block: nn.Module, args: tuple, kwargs: dict, output):
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    blocks = blocks_of(model)
    return [blocks[p].register_forward_hook(hand_on, with_kwargs=True) for p in positions]


def only(events: Sequence[Event], kind: type) -> list:
    return [e for e in events if isinstance(e, kind)]


def endless(values: Iterator[bool]) -> Callable[[], bool]:
    """A `stop` that answers `values` one by one, then goes on with true."""
    return lambda: next(values, True)


def cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """`python -m pip_core ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pip_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=240,
    )
