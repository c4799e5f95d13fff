"""Every rival's score as a plain loop straight from its formula: no hooks shared, no tricks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pip_core.core.units import ATTENTION, BLOCKS, CHANNELS, HEADS, MLP
from pip_core.data.perturbation import Pair
from pip_core.structure.families import blocks_of

from .bypass import bypassed

# Per family: attention, the norm its MLP reads through, output projections, the MLP's modules, and
# the modules whose outputs are added to the stream.
PLACES = {
    "llama": ("self_attn", "post_attention_layernorm", "self_attn.o_proj", "mlp.down_proj", ("mlp",)),
    "gemma2": ("self_attn", "pre_feedforward_layernorm", "self_attn.o_proj", "mlp.down_proj", ("mlp",)),
    "granite": ("self_attn", "post_attention_layernorm", "self_attn.o_proj", "mlp.down_proj", ("mlp",)),
    "gpt2": ("attn", "ln_2", "attn.c_proj", "mlp.c_proj", ("mlp",)),
    "opt": ("self_attn", "final_layer_norm", "self_attn.out_proj", "fc2", ("fc1", "fc2")),
    "bloom": (
        "self_attention",
        "post_attention_layernorm",
        "self_attention.dense",
        "mlp.dense_4h_to_h",
        ("mlp",),
    ),
}
PLACES["llama-biases"] = PLACES["llama"]
# Per family: groups of heads, query heads in each, features of a head, channels. The configs of GPT-2 and
# OPT cannot state fewer heads.
SIZES = {
    "llama": (4, 2, 4, 64),
    "llama-biases": (4, 2, 4, 64),
    "gemma2": (4, 2, 8, 64),
    "gpt2": (0, 0, 0, 128),
    "opt": (0, 0, 0, 64),
}


def owned(family: str, block: nn.Module, kind: str, unit: int, of: Callable) -> list[torch.Tensor]:
    """`of(weight)` of everything a unit owns, cut to what it owns."""
    attention, _, _, _, mlp = PLACES[family]
    if kind == BLOCKS:
        return [of(p) for p in block.parameters()]
    if kind in (ATTENTION, MLP):
        modules = (attention,) if kind == ATTENTION else mlp
        return [of(p) for m in modules for p in block.get_submodule(m).parameters()]
    _, queries, size, _ = SIZES[family]
    group, head = (
        slice(unit * queries * size, (unit + 1) * queries * size),
        slice(unit * size, (unit + 1) * size),
    )
    found = []
    if family == "gpt2":
        mlp = block.mlp
        return [of(mlp.c_fc.weight)[:, unit], of(mlp.c_fc.bias)[unit], of(mlp.c_proj.weight)[unit]]
    if kind == HEADS:
        attn = block.self_attn
        for name, cut in (("q_proj", group), ("k_proj", head), ("v_proj", head)):
            found += [of(p)[cut] for p in getattr(attn, name).parameters()]
        out = attn.out_proj if family == "opt" else attn.o_proj
        return [*found, of(out.weight)[:, group]]
    if family == "opt":
        return [of(block.fc1.weight)[unit], of(block.fc1.bias)[unit], of(block.fc2.weight)[:, unit]]
    mlp = block.mlp
    rows = [of(p)[unit] for m in (mlp.gate_proj, mlp.up_proj) for p in m.parameters()]
    return [*rows, of(mlp.down_proj.weight)[:, unit]]


def count(family: str, kind: str) -> int:
    """Units of a kind in a block."""
    return {HEADS: SIZES[family][0], CHANNELS: SIZES[family][3]}.get(kind, 1)


def square(weight: torch.Tensor) -> float:
    return float(weight.double().square().sum())


def magnitude(family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    return [
        torch.tensor(
            [
                sum(map(square, owned(family, block, kind, u, lambda p: p.data)))
                for u in range(count(family, kind))
            ]
        )
        for block in blocks_of(model)
    ]


def taylor(family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    totals = [torch.zeros(count(family, kind)) for _ in blocks_of(model)]
    for pair in pairs:
        model.zero_grad()
        model(input_ids=pair.clean.ids[None], labels=pair.clean.ids[None]).loss.backward()
        for block, total in zip(blocks_of(model), totals, strict=True):
            for unit in range(count(family, kind)):
                products = owned(family, block, kind, unit, lambda p: p.data * p.grad)
                total[unit] += sum(float(product.abs().sum()) for product in products)
    model.zero_grad()
    return [t / len(pairs) for t in totals]


def streams(
    family: str, model: PreTrainedModel, kind: str, pair: Pair
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per block the residual stream before and after it or its half, read where the model's own next
    norm reads it."""
    before, middle, after = [], [], []
    # Some blocks lay all tokens in one row before their MLP.

    def on_block(block: nn.Module, args: tuple, kwargs: dict, output) -> None:
        before.append((args[0] if args else kwargs["hidden_states"])[0])
        after.append((output[0] if isinstance(output, tuple) else output)[0])

    handles = []
    for block in blocks_of(model):
        handles.append(block.register_forward_hook(on_block, with_kwargs=True))
        norm = block.get_submodule(PLACES[family][1])
        handles.append(
            norm.register_forward_pre_hook(
                lambda _, args: middle.append(args[0].reshape(len(pair.clean.ids), -1))
            )
        )
    with torch.no_grad():
        model(input_ids=pair.clean.ids[None])
    for handle in handles:
        handle.remove()
    one, other = {BLOCKS: (before, after), ATTENTION: (before, middle), MLP: (middle, after)}[kind]
    return list(zip(one, other, strict=True))


def block_influence(
    family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]
) -> list[torch.Tensor]:
    angles: list[list[float]] = [[] for _ in blocks_of(model)]
    for pair in pairs:
        for index, (one, other) in enumerate(streams(family, model, kind, pair)):
            angles[index] += [
                float(F.cosine_similarity(a, b, dim=0)) for a, b in zip(one, other, strict=True)
            ]
    return [torch.tensor([1 - sum(a) / len(a)]) for a in angles]


def entropy(states: torch.Tensor, k: int = 25) -> float:
    """Kozachenko and Leonenko's estimate, a distance at a time."""
    logs = []
    for state in states.double():
        distances = sorted(float((state - other).norm()) for other in states.double())
        logs.append(math.log(distances[min(k, len(states) - 1)]))
    count, d = states.shape
    ball = math.log(math.pi ** (d / 2) / math.gamma(d / 2 + 1))
    return d * sum(logs) / count + ball + math.log(count) - math.log(min(k, count - 1))


def entropies(
    family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]
) -> list[tuple[float, float]]:
    """Mean over texts of the entropy before and after every block or half."""
    found = [[(entropy(a), entropy(b)) for a, b in streams(family, model, kind, p)] for p in pairs]
    return [
        (sum(t[i][0] for t in found) / len(pairs), sum(t[i][1] for t in found) / len(pairs))
        for i in range(len(blocks_of(model)))
    ]


def entrodrop(family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    found = entropies(family, model, kind, pairs)
    profile = [a for a, _ in found] + [found[-1][1]]
    stage = profile.index(min(profile))
    never = {0, 1, len(found) - 1}
    return [torch.tensor([math.inf if i < stage or i in never else b - a]) for i, (a, b) in enumerate(found)]


def sleb(family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    found = []
    for index in range(len(blocks_of(model))):
        with torch.no_grad(), bypassed(model, [(BLOCKS, index, (0,))]):
            losses = [float(model(input_ids=p.clean.ids[None], labels=p.clean.ids[None]).loss) for p in pairs]
        found.append(torch.tensor([sum(losses) / len(losses)]))
    return found


def features(family: str, model: PreTrainedModel, kind: str, pair: Pair) -> list[torch.Tensor]:
    """Per block what enters the output projection, `(T, features)`, float64."""
    found: list[torch.Tensor] = []
    path = PLACES[family][2 if kind == HEADS else 3]
    handles = [
        block.get_submodule(path).register_forward_hook(
            lambda _, args, output: found.append(args[0].reshape(-1, args[0].shape[-1]).double())
        )
        for block in blocks_of(model)
    ]
    with torch.no_grad():
        model(input_ids=pair.clean.ids[None])
    for handle in handles:
        handle.remove()
    return found


def columns(family: str, model: PreTrainedModel, kind: str) -> list[torch.Tensor]:
    """Per block `sum_i W_ij^2` of every input feature j of the output projection."""
    path = PLACES[family][2 if kind == HEADS else 3]
    weights = [block.get_submodule(path).weight.data for block in blocks_of(model)]
    # GPT-2 keeps its matrices the other way round.
    return [w.double().square().sum(1 if family == "gpt2" else 0) for w in weights]


def flap(family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    texts = [features(family, model, kind, pair) for pair in pairs]
    found = []
    for index, column in enumerate(columns(family, model, kind)):
        x = torch.cat([text[index] for text in texts])
        mean = sum(x) / len(x)
        variance = sum((row - mean) ** 2 for row in x) / (len(x) - 1)
        score = variance * column
        score = (score - score.mean()) / score.std()
        found.append(torch.stack([part.mean() for part in score.chunk(count(family, kind))]).float())
    return found


def multi_domain(family: str, model: PreTrainedModel, kind: str, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    weights = columns(family, model, kind)
    each = []
    for domain in sorted({p.domain for p in pairs}):
        texts = [features(family, model, kind, p) for p in pairs if p.domain == domain]
        importance = []
        for index, column in enumerate(weights):
            x = torch.cat([text[index] for text in texts])
            power = (x**2).mean(0) * column
            importance.append(torch.stack([p.sum() for p in power.chunk(count(family, kind))]).sqrt())
        mean = torch.cat(importance).mean()
        each.append([i / mean for i in importance])
    return [(sum(parts) / len(each)).float() for parts in zip(*each, strict=True)]


NAIVE: dict[str, Callable[..., list[torch.Tensor]]] = {
    "magnitude": magnitude,
    "taylor": taylor,
    "block-influence": block_influence,
    "sleb": sleb,
    "entrodrop": entrodrop,
    "flap": flap,
    "multi-domain": multi_domain,
}
