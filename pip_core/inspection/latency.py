"""Speed and memory of two models, measured side by side.

Both models are in memory and take turns every few tokens, so that other load on the machine affects both
alike. Every round gives a ratio; the result is the median and the spread of the ratios. Batch 1, greedy
decoding, key-value cache on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ..checkpoints.load import Loaded
from ..core.accelerator import name_of, synchronize
from ..core.decoding import read_on
from ..core.device import number_name
from ..core.errors import UserError
from ..data.corpora import HELDOUT, documents

PROMPT_TOKENS = 256
NEW_TOKENS = 64
ROUNDS = 7
WARM_UP = 2
# Tokens that a model writes in one turn.
TURN = 4
# The next token, `(1, 1)`, and the cache of all tokens before it.
Decoding = tuple[torch.Tensor, Cache]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles (`low`, `high`) of a quantity that was measured several times."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of two or more values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)


@dataclass(frozen=True)
class Cost:
    """Speed and memory of one model.

    Attributes:
        prefill, decode: tokens per second of reading the prompt, and of writing the answer.
        weights_memory: bytes of parameters and buffers, shared ones once.
        weights_disk: bytes of the checkpoint's safetensors files.
        cache_per_token: the most bytes that one more token takes in the key-value cache; a block with a
            sliding window takes none when its window is full.
        cache_total: bytes of the cache after prompt and answer.
    """

    prefill: Spread
    decode: Spread
    weights_memory: int
    weights_disk: int
    cache_per_token: int
    cache_total: int


@dataclass(frozen=True)
class LatencyComparison:
    """Speed and memory of two models, and their ratios.

    Attributes:
        prefill_ratio, decode_ratio: speed of the pruned model over that of the dense one, round by round.
        threads: of torch, on a processor.
        dtype: number format of both, or of each if they differ.
    """

    dense: Cost
    pruned: Cost
    prefill_ratio: Spread
    decode_ratio: Spread
    prompt_tokens: int
    new_tokens: int
    rounds: int
    device: str
    threads: int
    dtype: str


@dataclass(frozen=True)
class _Round:
    """One round, each of (dense, pruned): seconds of reading and of writing, final bytes of the cache."""

    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    cache: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Progress: `done` of `total` rounds, including the warm-up."""

    done: int
    total: int


def compare_latency(
    dense: Loaded,
    pruned: Loaded,
    prompt_tokens: int = PROMPT_TOKENS,
    new_tokens: int = NEW_TOKENS,
    rounds: int = ROUNDS,
) -> Generator[Step, None, LatencyComparison]:
    """Measure the speed and memory of two models that take turns.

    The prompt is the beginning of the shipped held-out text, in each model's own tokens.

    Raises:
        UserError: lengths that are not positive, fewer than 2 rounds, a prompt and answer longer than the
            context of a model, or models on different devices.
    """
    if prompt_tokens < 1 or new_tokens < 1 or rounds < 2:
        raise UserError("Speed needs at least 1 prompt token, 1 new token and 2 rounds.")
    models = (dense, pruned)
    if dense.model.device != pruned.model.device:
        raise UserError("The two models must be on the same device to be compared.")
    prompts = [make_prompt(loaded, prompt_tokens, new_tokens) for loaded in models]
    measured = []
    for number in range(-WARM_UP, rounds):
        # The order alternates, so that neither model always runs right after the other.
        order = (0, 1) if number % 2 == 0 else (1, 0)
        measured.append(_round([m.model for m in models], prompts, new_tokens, order))
        yield Step(len(measured), rounds + WARM_UP)
    counted = measured[WARM_UP:]
    dense_cost, pruned_cost = (
        Cost(
            prefill=Spread.of([prompt_tokens / r.prefill[i] for r in counted]),
            decode=Spread.of([new_tokens / r.decode[i] for r in counted]),
            weights_memory=weights_memory(models[i].model),
            weights_disk=sum(f.stat().st_size for f in models[i].source.folder.glob("*.safetensors")),
            cache_per_token=_cache_per_token(models[i].model, prompts[i]),
            cache_total=counted[-1].cache[i],
        )
        for i in (0, 1)
    )
    formats = dict.fromkeys(number_name(m.model.dtype) for m in models)
    return LatencyComparison(
        dense=dense_cost,
        pruned=pruned_cost,
        prefill_ratio=Spread.of([r.prefill[0] / r.prefill[1] for r in counted]),
        decode_ratio=Spread.of([r.decode[0] / r.decode[1] for r in counted]),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        rounds=rounds,
        device=name_of(dense.model.device),
        threads=torch.get_num_threads(),
        dtype=" and ".join(formats),
    )


def speed_ratios(
    dense: PreTrainedModel, other: PreTrainedModel, prompt_tokens: int, new_tokens: int, rounds: int
) -> Generator[int, None, tuple[Spread, Spread]]:
    """How many times as fast as the dense model another reads a prompt and writes, taking turns as in
    `compare_latency`. What they read is one token over and over.

    Yields:
        How many rounds are done, those of the warm-up among them.
    """
    prompt = torch.zeros(1, prompt_tokens, dtype=torch.long, device=dense.device)
    measured = []
    for number in range(-WARM_UP, rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        measured.append(_round((dense, other), (prompt, prompt), new_tokens, order))
        yield len(measured)
    counted = measured[WARM_UP:]
    reading = Spread.of([r.prefill[0] / r.prefill[1] for r in counted])
    return reading, Spread.of([r.decode[0] / r.decode[1] for r in counted])


def weights_memory(model: PreTrainedModel) -> int:
    """Bytes of a model's parameters and buffers; memory that several share is counted once."""
    return _storage((*model.parameters(), *model.buffers()))


def table(found: LatencyComparison) -> str:
    """A comparison as a table in Markdown."""
    rows = [
        ("prefill, tokens/s", found.dense.prefill, found.pruned.prefill, found.prefill_ratio),
        ("decode, tokens/s", found.dense.decode, found.pruned.decode, found.decode_ratio),
    ]
    lines = [
        f"Batch 1, greedy, cache on; prompt {found.prompt_tokens} tokens, answer {found.new_tokens}; "
        f"{found.dtype} on {found.device}, {found.threads} threads. Median of {found.rounds} rounds in turn "
        "(middle half).",
        "",
        "| | dense | pruned | pruned / dense |",
        "|---|---|---|---|",
    ]
    for name, dense, pruned, ratio in rows:
        cells = [f"{s.median:.1f} ({s.low:.1f} to {s.high:.1f})" for s in (dense, pruned)]
        last = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {last} |")
    for name, field, unit in (
        ("weights on disk, MB", "weights_disk", 1e6),
        ("weights in memory, MB", "weights_memory", 1e6),
        ("cache per token, kB, at most", "cache_per_token", 1e3),
        (f"cache after {found.prompt_tokens + found.new_tokens} tokens, MB", "cache_total", 1e6),
    ):
        dense, pruned = getattr(found.dense, field), getattr(found.pruned, field)
        share = f"{pruned / dense:.2f}" if dense else "-"
        lines.append(f"| {name} | {dense / unit:.1f} | {pruned / unit:.1f} | {share} |")
    return "\n".join(lines)


def make_prompt(loaded: Loaded, prompt_tokens: int, new_tokens: int) -> torch.Tensor:
    """Token ids of the prompt, `(1, prompt_tokens)`."""
    context = getattr(loaded.model.config, "max_position_embeddings", None) or 2**30
    if prompt_tokens + new_tokens > context:
        raise UserError(
            f"{loaded.source.name} reads at most {context} tokens, and prompt and answer have "
            f"{prompt_tokens + new_tokens}. Choose fewer."
        )
    text = "\n\n".join(documents(HELDOUT))
    ids = loaded.tokenizer(text, return_tensors="pt", verbose=False)["input_ids"]
    # A prompt longer than the text repeats it; the content has no influence on the speed.
    ids = ids.repeat(1, -(-prompt_tokens // ids.shape[1]))
    return ids[:, :prompt_tokens].to(loaded.model.device)


def _round(
    models: Sequence[PreTrainedModel], prompts: Sequence[torch.Tensor], new_tokens: int, order: Sequence[int]
) -> _Round:
    """One round: both models read the prompt, then both write, a few tokens each in turn."""
    prefill, decode = [0.0, 0.0], [0.0, 0.0]
    states: list = [None, None]
    for i in order:
        prefill[i], states[i] = _read(models[i], prompts[i])
    for start in range(0, new_tokens, TURN):
        for i in order:
            seconds, states[i] = _write(models[i], states[i], min(TURN, new_tokens - start))
            decode[i] += seconds
    return _Round(tuple(prefill), tuple(decode), tuple(_bytes(cache) for _, cache in states))


def _read(model: PreTrainedModel, prompt: torch.Tensor) -> tuple[float, Decoding]:
    """Seconds that a model takes to read the prompt, and its state afterwards."""
    with torch.inference_mode():
        began = _now(model)
        state = next_token(model, prompt, None)
        return _now(model) - began, state


def _write(model: PreTrainedModel, state: Decoding, tokens: int) -> tuple[float, Decoding]:
    """Seconds that a model takes to write `tokens` tokens one by one, and its state afterwards."""
    with torch.inference_mode():
        began = _now(model)
        for _ in range(tokens):
            state = next_token(model, *state)
        return _now(model) - began, state


def next_token(model: PreTrainedModel, ids: torch.Tensor, cache: Cache | None) -> Decoding:
    """The likeliest next token, `(1, 1)`, and the cache with `ids` in it."""
    logits, found = read_on(model, ids, cache)
    return logits[:, None].argmax(-1), found


def _cache_per_token(model: PreTrainedModel, prompt: torch.Tensor) -> int:
    """Bytes by which the cache grows from one token to two."""
    with torch.inference_mode():
        token, cache = next_token(model, prompt[:, :1], None)
        one = _bytes(cache)
        return _bytes(next_token(model, token, cache)[1]) - one


def _bytes(cache: Cache) -> int:
    """Bytes of all tensors in a cache, for every kind of cache."""
    return _storage(t for layer in cache.layers for t in _tensors(vars(layer)))


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor) and value.dim():  # scalars are counters
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)


def _storage(tensors: Iterable[torch.Tensor]) -> int:
    storages = {(s.device, s.data_ptr()): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


def _now(model: PreTrainedModel) -> float:
    """The time in seconds, after the device has finished its work."""
    synchronize(model.device)
    return time.perf_counter()
