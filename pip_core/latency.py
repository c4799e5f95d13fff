"""Speed and memory of two models, measured side by side.

Both models stand in memory and take turns, so that whatever else the machine does meets both: every
round gives a ratio of its own, and the ratios' median and spread are what is told. Batch 1, greedy
decoding, key-value cache on.
"""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from .checkpoint import Loaded
from .errors import UserError
from .texts import HELDOUT, documents

PROMPT_TOKENS = 256
NEW_TOKENS = 64
ROUNDS = 7
WARM_UP = 2


@dataclass(frozen=True)
class Spread:
    """A quantity measured several times: its median and the bounds of its middle half."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """`values` at least 2."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)


@dataclass(frozen=True)
class Cost:
    """What a model takes.

    Attributes:
        prefill, decode: tokens per second of reading the prompt, and of writing after it.
        weights_memory: bytes of parameters and buffers, shared ones once.
        weights_disk: bytes of the checkpoint's safetensors files.
        cache_per_token: bytes that one more token takes in the key-value cache while every block keeps
            it: the most, since a block with a sliding window stops growing when its window is full.
        cache_total: bytes of the cache after prompt and answer.
    """

    prefill: Spread
    decode: Spread
    weights_memory: int
    weights_disk: int
    cache_per_token: int
    cache_total: int


@dataclass(frozen=True)
class Comparison:
    """Two models side by side. `prefill_ratio` and `decode_ratio` are pruned over dense, above 1 where
    the pruned model is faster, from the rounds' own ratios."""

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
class Step:
    """`done` of `total` rounds, the warm-up counted too."""

    done: int
    total: int


def compare(
    dense: Loaded,
    pruned: Loaded,
    prompt_tokens: int = PROMPT_TOKENS,
    new_tokens: int = NEW_TOKENS,
    rounds: int = ROUNDS,
) -> Generator[Step, None, Comparison]:
    """Measure two models in turn.

    The prompt is the beginning of the shipped held-back text, in each model's own tokens.

    Raises:
        UserError: lengths that are not positive, fewer than 2 rounds, a prompt and answer longer than a
            model reads, or models on different devices.
    """
    if prompt_tokens < 1 or new_tokens < 1 or rounds < 2:
        raise UserError("Speed needs at least 1 prompt token, 1 new token and 2 rounds.")
    models, both = (dense, pruned), range(2)
    if dense.model.device != pruned.model.device:
        raise UserError("The two models must be on the same device to be compared.")
    prompts = [_prompt(loaded, prompt_tokens, new_tokens) for loaded in models]
    seconds: list[list[tuple[float, float]]] = [[], []]
    totals = [0, 0]
    for number in range(-WARM_UP, rounds):
        # Who goes first changes, so that neither always finds the machine as the other left it.
        for i in both if number % 2 == 0 else reversed(both):
            prefill, decode, cache = _run(models[i].model, prompts[i], new_tokens)
            totals[i] = _bytes(cache)
            if number >= 0:
                seconds[i].append((prefill, decode))
        yield Step(number + WARM_UP + 1, rounds + WARM_UP)
    costs = [
        Cost(
            prefill=Spread.of([prompt_tokens / prefill for prefill, _ in seconds[i]]),
            decode=Spread.of([new_tokens / decode for _, decode in seconds[i]]),
            weights_memory=weights_memory(models[i].model),
            weights_disk=sum(f.stat().st_size for f in models[i].source.folder.glob("*.safetensors")),
            cache_per_token=_cache_per_token(models[i].model, prompts[i]),
            cache_total=totals[i],
        )
        for i in both
    ]
    prefills, decodes = zip(
        *((d[0] / p[0], d[1] / p[1]) for d, p in zip(*seconds, strict=True)),
        strict=True,
    )
    formats = dict.fromkeys(str(m.model.dtype).removeprefix("torch.") for m in models)
    return Comparison(
        *costs,
        prefill_ratio=Spread.of(prefills),
        decode_ratio=Spread.of(decodes),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        rounds=rounds,
        device=_device_name(dense.model.device),
        threads=torch.get_num_threads(),
        dtype=" and ".join(formats),
    )


def weights_memory(model: PreTrainedModel) -> int:
    """Bytes that a model's parameters and buffers take; what several share counts once."""
    return _storage((*model.parameters(), *model.buffers()))


def table(found: Comparison) -> str:
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
        ratio = f"{pruned / dense:.2f}" if dense else "-"
        lines.append(f"| {name} | {dense / unit:.1f} | {pruned / unit:.1f} | {ratio} |")
    return "\n".join(lines)


def _prompt(loaded: Loaded, prompt_tokens: int, new_tokens: int) -> torch.Tensor:
    """Token ids of the prompt, `(1, prompt_tokens)`."""
    context = getattr(loaded.model.config, "max_position_embeddings", None) or 2**30
    if prompt_tokens + new_tokens > context:
        raise UserError(
            f"{loaded.source.name} reads at most {context} tokens, and prompt and answer have "
            f"{prompt_tokens + new_tokens}. Choose fewer."
        )
    text = "\n\n".join(documents(HELDOUT))
    ids = loaded.tokenizer(text, return_tensors="pt", verbose=False)["input_ids"]
    # A longer prompt than the text goes on with it from the beginning: its content costs nothing.
    ids = ids.repeat(1, -(-prompt_tokens // ids.shape[1]))
    return ids[:, :prompt_tokens].to(loaded.model.device)


def _run(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float, Cache]:
    """Seconds of reading the prompt and of writing `new_tokens` after it, and the cache at the end."""
    with torch.inference_mode():
        began = _now(model)
        token, cache = _forward(model, prompt, None)
        read = _now(model)
        for _ in range(new_tokens):
            token, cache = _forward(model, token, cache)
        written = _now(model)
    return read - began, written - read, cache


def _forward(model: PreTrainedModel, ids: torch.Tensor, cache: Cache | None) -> tuple[torch.Tensor, Cache]:
    """The likeliest next token, `(1, 1)`, and the cache with `ids` in it."""
    # As generate() does: only the last position needs logits.
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    out = model(input_ids=ids, past_key_values=cache, use_cache=True, **last)
    return out.logits[:, -1:].argmax(-1), out.past_key_values


def _cache_per_token(model: PreTrainedModel, prompt: torch.Tensor) -> int:
    """Bytes that the cache grows by from one token to two."""
    with torch.inference_mode():
        token, cache = _forward(model, prompt[:, :1], None)
        one = _bytes(cache)
        return _bytes(_forward(model, token, cache)[1]) - one


def _bytes(cache: Cache) -> int:
    """Memory of every tensor in a cache, whatever kind of cache each block has."""
    return _storage(t for layer in cache.layers for t in _tensors(vars(layer)))


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor) and value.dim():  # without the counters
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)


def _storage(tensors: Iterable[torch.Tensor]) -> int:
    storages = {(s.device, s.data_ptr()): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


def _now(model: PreTrainedModel) -> float:
    """The clock, when all that was asked of the device is done."""
    if model.device.type != "cpu":
        torch.accelerator.synchronize(model.device)
    return time.perf_counter()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
