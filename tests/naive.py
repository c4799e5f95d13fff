"""Both scoring formulas as written: plain loops, full copies, no tricks, every slice told by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pip_core.data.perturbation import Pair, View

from .bypass import group_features, places_of, stack_of

# Modules of each half, where they are not those that add to the residual stream.
HALVES = {
    "gemma2": {"attention": ["self_attn"], "mlp": ["mlp"]},
    "olmo2": {"attention": ["self_attn"], "mlp": ["mlp"]},
    "opt": {"attention": ["self_attn"], "mlp": ["fc1", "fc2"]},
}
# Weights of a channel: name, and the axis along which they are counted.
CHANNELS = {
    "falcon": [("mlp.dense_h_to_4h.weight", 0), ("mlp.dense_4h_to_h.weight", 1)],
    "gpt2": [("mlp.c_fc.weight", 1), ("mlp.c_fc.bias", 0), ("mlp.c_proj.weight", 0)],
    "opt": [("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)],
    "olmo2": [("mlp.gate_proj.weight", 0), ("mlp.up_proj.weight", 0), ("mlp.down_proj.weight", 1)],
}
LLAMA_CHANNELS = [
    ("mlp.gate_proj.weight", 0),
    ("mlp.gate_proj.bias", 0),
    ("mlp.up_proj.weight", 0),
    ("mlp.up_proj.bias", 0),
    ("mlp.down_proj.weight", 1),
]


def owned(
    model: PreTrainedModel, kind: str, block: int, unit: int
) -> list[tuple[str, tuple[slice | int, ...] | None]]:
    """Weights of a unit by name, within its block: all of it (None), or what to index it with."""
    family, stack = model.config.model_type, stack_of(model)
    names = dict(stack[block].named_parameters())
    if kind == "blocks":
        return [(name, None) for name in names]
    if kind in ("attention", "mlp"):
        halves = HALVES.get(family, {k: [getattr(places_of(model), k)] for k in ("attention", "mlp")})
        return [(n, None) for n in names if any(n.startswith(f"{m}.") for m in halves[kind])]
    if kind == "experts":
        weights = ("mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj")
        return [(name, (unit,)) for name in weights]
    if kind == "channels" and family == "phi3":
        size = names["mlp.down_proj.weight"].shape[1]
        found = [("mlp.gate_up_proj.weight", (unit,)), ("mlp.gate_up_proj.weight", (size + unit,))]
        return [*found, ("mlp.down_proj.weight", (slice(None), unit))]
    if kind == "channels":
        told = CHANNELS.get(family, LLAMA_CHANNELS)
        return [(n, (slice(None),) * axis + (unit,)) for n, axis in told if n in names]
    head = getattr(model.config, "head_dim", None) or model.config.hidden_size // 8
    queries = group_features(model) // head
    of_query = slice(unit * queries * head, (unit + 1) * queries * head)
    of_key = slice(unit * head, (unit + 1) * head)
    if family == "phi3":
        groups = names["self_attn.o_proj.weight"].shape[1] // (queries * head)
        fused, start = "self_attn.qkv_proj.weight", groups * queries * head
        key = slice(start + of_key.start, start + of_key.stop)
        value = slice(key.start + groups * head, key.stop + groups * head)
        return [
            *((fused, (rows,)) for rows in (of_query, key, value)),
            ("self_attn.o_proj.weight", (slice(None), of_query)),
        ]
    told = [
        ("self_attn.q_proj.weight", (of_query,)),
        ("self_attn.q_proj.bias", (of_query,)),
        ("self_attn.k_proj.weight", (of_key,)),
        ("self_attn.k_proj.bias", (of_key,)),
        ("self_attn.v_proj.weight", (of_key,)),
        ("self_attn.v_proj.bias", (of_key,)),
        ("self_attn.o_proj.weight", (slice(None), of_query)),
    ]
    if family == "cohere":
        told += [
            ("self_attn.q_norm.weight", (slice(unit * queries, (unit + 1) * queries),)),
            ("self_attn.k_norm.weight", (unit,)),
        ]
    return [(name, index) for name, index in told if name in names]


def weight_differences(
    model: PreTrainedModel, pairs: Sequence[Pair], sites: Sequence[tuple[str, int, int]]
) -> list[torch.Tensor]:
    """Section 1 of METHODS: two backward passes per pair, all gradients copied, then compared.

    Args:
        sites: kind, position and size of each.
    """
    stack = stack_of(model)

    def gradients(view: View) -> list[dict[str, torch.Tensor]]:
        model.zero_grad()
        model(input_ids=view.ids[None], labels=view.ids[None]).loss.backward()
        # An expert that no token was sent to has no gradient.
        return [
            {
                n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                for n, p in block.named_parameters()
            }
            for block in stack
        ]

    totals = [torch.zeros(size) for _, _, size in sites]
    for pair in pairs:
        clean, other = gradients(pair.clean), gradients(pair.perturbed)
        for total, (kind, block, size) in zip(totals, sites, strict=True):
            for unit in range(size):
                parts = []
                for name, index in owned(model, kind, block, unit):
                    difference = clean[block][name] - other[block][name]
                    parts.append((difference if index is None else difference[index]).flatten())
                total[unit] += torch.cat(parts).norm()
    model.zero_grad()
    return [total / len(pairs) for total in totals]


def gate_gradient(
    model: PreTrainedModel, view: View, sites: Sequence[tuple[str, int, int]]
) -> list[torch.Tensor]:
    """Section 2: gates of ones on what each unit adds, token by token; their gradient, `(T, size, n)`."""
    places, gates = places_of(model), {}

    def one(like: torch.Tensor, index: int) -> torch.Tensor:
        gates[index] = torch.ones(like.shape[1:] if like.dim() == 3 else like.shape, requires_grad=True)
        return gates[index].reshape(like.shape)

    def of_block(index: int) -> Callable:
        def gate(block: nn.Module, args: tuple, kwargs: dict, output):
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            gated = before + one(after, index) * (after - before)
            return (gated, *output[1:]) if isinstance(output, tuple) else gated

        return gate

    def of_half(index: int) -> Callable:
        def gate(module: nn.Module, args: tuple, kwargs: dict, output):
            added = output[0] if isinstance(output, tuple) else output
            stream = args[1] if places.adds_residual else torch.zeros_like(added)
            gated = stream + one(added, index) * (added - stream)
            return (gated, *output[1:]) if isinstance(output, tuple) else gated

        return gate

    def of_features(index: int) -> Callable:
        return lambda module, args: (one(args[0], index) * args[0], *args[1:])

    def of_experts(index: int, size: int) -> Callable:
        def gate(module: nn.Module, args: tuple):
            tokens, chosen, weights = args
            every = one(weights.new_ones(1, len(tokens), size), index)[0]
            return tokens, chosen, weights * every.gather(1, chosen)

        return gate

    handles = []
    for index, (kind, position, size) in enumerate(sites):
        block = stack_of(model)[position]
        if kind == "blocks":
            handles.append(block.register_forward_hook(of_block(index), with_kwargs=True))
        elif kind in ("attention", "mlp"):
            module = block.get_submodule(getattr(places, kind))
            handles.append(module.register_forward_hook(of_half(index), with_kwargs=True))
        elif kind == "experts":
            handles.append(block.mlp.experts.register_forward_pre_hook(of_experts(index, size)))
        else:
            module = block.get_submodule(getattr(places, kind))
            handles.append(module.register_forward_pre_hook(of_features(index)))
    logits = model(input_ids=view.ids[None], use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    loss = F.cross_entropy(logits[:-1], view.ids[1:])
    found = torch.autograd.grad(loss, [gates[i] for i in range(len(sites))])
    return [g.reshape(len(view.ids), size, -1) for g, (_, _, size) in zip(found, sites, strict=True)]


def gate_differences(
    model: PreTrainedModel, pairs: Sequence[Pair], sites: Sequence[tuple[str, int, int]]
) -> list[torch.Tensor]:
    totals = [torch.zeros(size) for _, _, size in sites]
    for pair in pairs:
        clean, other = (gate_gradient(model, v, sites) for v in (pair.clean, pair.perturbed))
        for total, ours, theirs in zip(totals, clean, other, strict=True):
            for word in range(len(pair.clean.text.split())):
                a = ours[pair.clean.words == word].sum(dim=0)
                b = theirs[pair.perturbed.words == word].sum(dim=0)
                total += (a - b).norm(dim=1)
    return [total / len(pairs) for total in totals]


NAIVE = {"pip": weight_differences, "pip-gate": gate_differences}
