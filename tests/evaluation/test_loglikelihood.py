"""Trees against one row at a time, in families that take them and families that cannot."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pip_core.core import notices, portions
from pip_core.core.batching import rows_of_trees, tree_of
from pip_core.core.device import is_out_of_memory, user_message
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.evaluation import loglikelihood
from pip_core.evaluation.loglikelihood import Likelihoods
from pip_core.evaluation.requests import Encoder

from .. import zoo

EXTRA = {
    "gemma2, softcapped": {
        "model_type": "gemma2",
        **zoo.SHAPE,
        "head_dim": 8,
        "sliding_window": 512,
        "final_logit_softcapping": 2.0,
    },
    "mistral, long window": {"model_type": "mistral", **zoo.SHAPE, "sliding_window": 200},
    "mamba": {
        "model_type": "mamba",
        "vocab_size": zoo.VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
    },
}
# Which of them score a tree as they score its rows, and which must read every row by itself.
TREES = {"llama", "gpt2", "qwen3", "phi", "gpt_neox", "cohere", "gemma2, softcapped", "mistral, long window"}
ROWS = {"mistral", "qwen2", "gemma2", "gemma3_text", "gpt_neo", "bloom", "falcon-alibi", "mamba"}


@pytest.fixture(scope="module", params=[*zoo.CONFIGS, *EXTRA])
def family(request) -> tuple[str, PreTrainedModel]:
    if request.param in zoo.CONFIGS:
        return request.param, zoo.build(request.param)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**EXTRA[request.param]))
    return request.param, model.eval()


def pairs() -> list[list[tuple[str, str]]]:
    """Questions with one to four choices: of one token, of many, alike at first, equal, after openings."""
    prompt = "She looked out of the window and saw"
    return [
        [(prompt, " the rain"), (prompt, " the rain and the wind"), (prompt, " a long wooden ladder")],
        [(prompt, " no"), (prompt, " yes")],
        [
            ("The dog ran around the tree, and then the dog", " slept"),
            ("The cat ran around the tree", " slept"),
        ],
        [
            (
                "Once upon a time there was a small house by the river where nobody lived, and its door",
                " stood open",
            )
        ],
        [("a", " b"), ("a", " b"), ("a", " c d e f g h i j k l m n o p q"), ("a", " c d e f g h x")],
    ]


def naive(model: PreTrainedModel, request) -> tuple[float, bool]:
    """One position at a time, nothing shared, nothing filled up."""
    total, greedy, ids = 0.0, True, [*request.ids, request.targets[-1]]
    with torch.inference_mode():
        for position in range(len(ids) - len(request.targets), len(ids)):
            logits = model(input_ids=torch.tensor([ids[:position]]), use_cache=False).logits[0, -1]
            logp = F.log_softmax(logits.double(), dim=-1)
            total += float(logp[ids[position]])
            greedy &= int(logp.argmax()) == ids[position]
    return total, greedy


@pytest.mark.parametrize("bos", [False, True], ids=["without bos", "with bos"])
def test_likelihoods_equal_one_row_at_a_time(family, bos, tokenizer, bos_tokenizer):
    name, model = family
    encoder = Encoder(bos_tokenizer if bos else tokenizer, 100)
    groups = [encoder.requests(group) for group in pairs()]
    likelihoods = Likelihoods(groups)
    flat = [request for group in groups for request in group]
    found = drain(likelihoods.measure(model, greedy=True))
    assert len(found) == len(flat)
    for (value, greedy), request in zip(found, flat, strict=True):
        expected, same = naive(model, request)
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == same
    if name in TREES | ROWS:
        assert likelihoods.shares == (name in TREES)
    again = drain(likelihoods.measure(model, greedy=True))
    assert [v for v, _ in again] == pytest.approx([v for v, _ in found], abs=1e-5)


def test_steps_add_up_either_way(family, tokenizer):
    encoder = Encoder(tokenizer, 100)
    likelihoods = Likelihoods([encoder.requests(group) for group in pairs()])
    assert sum(likelihoods.measure(family[1])) == likelihoods.tokens


def test_shared_beginnings_are_read_once(tokenizer):
    encoder = Encoder(tokenizer, 100)
    groups = [encoder.requests(group) for group in pairs()]
    whole = sum(len(r.ids) for group in groups for r in group)
    prompt = len(groups[1][0].ids)
    assert Likelihoods(groups).tokens < 0.75 * whole
    # Choices of one token each: the prompt alone is read.
    assert [len(r.targets) for r in groups[1]] == [1, 1]
    assert Likelihoods(groups[1:2]).tokens == prompt


def test_the_head_sees_scored_positions_only(tokenizer, monkeypatch):
    model, seen = zoo.build("llama"), []
    model.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(args[0].shape[1]))
    encoder = Encoder(tokenizer, 100)
    group = encoder.requests(pairs()[3])
    drain(Likelihoods([group]).measure(model))
    assert seen == [len(group[0].targets)]
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("tokens", [1, 60, 100_000])
def test_packing_changes_nothing(tokens, tokenizer, monkeypatch):
    model, encoder = zoo.build("llama"), Encoder(tokenizer, 100)
    groups = [encoder.requests(group) for group in pairs()]
    expected = drain(Likelihoods(groups).measure(model))
    monkeypatch.setattr(loglikelihood, "BATCH_TOKENS", tokens)
    found = drain(Likelihoods(groups).measure(model))
    assert [v for v, _ in found] == pytest.approx([v for v, _ in expected], abs=1e-4)


def test_batches_waste_little(monkeypatch):
    monkeypatch.setattr(loglikelihood, "BATCH_COST", 3)
    entries = [loglikelihood.make_entry([_request(n)], i) for i, n in enumerate([50, 3, 49, 3, 50, 4, 20])]
    lengths = [[len(e.tree.ids) for e in batch] for batch in loglikelihood.make_batches(entries)]
    assert lengths == [[50, 50, 49], [20], [4, 3, 3]]


def _request(length: int):
    from pip_core.evaluation.requests import Request

    return Request(tuple(range(length)), (1,))


def test_a_broken_model_gives_numbers(tokenizer):
    model, encoder = zoo.build("llama"), Encoder(tokenizer, 100)
    model.model.norm.weight.data *= 1e6
    for value, _ in drain(Likelihoods([encoder.requests(g) for g in pairs()]).measure(model)):
        assert math.isfinite(value)


# Of the processor's allocator on Linux and Windows, and of the accelerators' libraries.
MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda e: f"{type(e).__name__} {e}"[:60])
def test_a_failure_of_memory_is_not_taken_for_a_refused_mask(tokenizer, monkeypatch, error):
    encoder, calls = Encoder(tokenizer, 100), []
    likelihoods = Likelihoods([encoder.requests(g) for g in pairs()])
    model = zoo.build("llama")

    def fail_once(*given, **named):
        calls.append(given)
        if len(calls) == 1:
            raise error
        return forward(*given, **named)

    forward = model.forward
    monkeypatch.setattr(model, "forward", fail_once)
    if is_out_of_memory(error):  # fewer rows are tried
        notices.begin()
        try:
            drain(likelihoods.measure(model))
        finally:
            portions.begin()
        assert "rows at a time" in notices.taken()[0].message
    else:
        with pytest.raises(type(error)):
            drain(likelihoods.measure(model))
        assert len(calls) == 1
        assert likelihoods.shares is None
        drain(likelihoods.measure(model))
    assert likelihoods.shares


def test_a_real_allocation_failure_is_told_apart():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert "memory" in user_message(refused.value)


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_likelihoods_that_are_not_finite_are_refused(tokenizer, name):
    model, encoder = zoo.build(name), Encoder(tokenizer, 100)
    with torch.no_grad():
        next(iter(model.get_output_embeddings().parameters()))[5] = float("nan")
    with pytest.raises(UserError, match="finite"):
        drain(Likelihoods([encoder.requests(g) for g in pairs()]).measure(model))


def test_a_tree():
    tree = tree_of([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3], [9, 2]])
    assert tree.ids.tolist() == [1, 2, 3, 4, 5, 9, 2]
    assert tree.positions.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert [p.tolist() for p in tree.paths] == [[0, 1, 2, 3], [0, 1, 4], [0, 1, 2], [5, 6]]
    assert tree.branches
    assert not tree_of([[1, 2], [1, 2, 3]]).branches
    ids, positions, mask = rows_of_trees([tree, tree_of([[7, 8]])], torch.float32)
    assert ids.tolist() == [[1, 2, 3, 4, 5, 9, 2], [7, 8, 8, 8, 8, 8, 8]]
    assert positions[0].tolist() == tree.positions.tolist()
    sees = [[j for j in range(7) if mask[0, 0, i, j] == 0] for i in range(7)]
    assert sees == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [5], [5, 6]]
    assert mask[0, 0, 0, 1] == torch.finfo(torch.float32).min
    assert rows_of_trees([tree_of([[7, 8]])], torch.float32)[1:] == (None, None)
