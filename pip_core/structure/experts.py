"""The experts of a mixture: whether a config can state fewer of them, and which of them a token is sent to.

transformers keeps the experts of a block in one module, in weights whose first axis are the experts. It is
called with the tokens `(T, d)`, with the numbers of the experts that each is sent to `(T, k)`, and with what
the output of each of these is multiplied by. Who decides that, and by what rule, differs between families and
is left to the model's own code: it is run up to that call.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from .hooks import Args, ForwardStopped, Hooks, Kwargs
from .streamed import narrowed_weight
from .width import Cut, Width, meta_block, shrunk_weights

# Config fields that may state how many experts a block has.
EXPERT_FIELDS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
NO_MIXTURE = "it is no mixture of experts"
STORED_OTHERWISE = "they are not stored as one weight each with a row for every expert that its config states"
SENT_OTHERWISE = "how a token is sent to them is not decided as in the mixtures that are known"


@dataclass(frozen=True)
class Experts(Width):
    """The experts of a block; `output` is the module that they are in.

    Attributes:
        field: config field that states their number.
        half: the block's MLP.
    """

    field: str = ""
    half: str = ""


def field_of(config: PreTrainedConfig, blocks: Sequence[nn.Module]) -> str:
    """The config field that states the number of experts, found by trying each candidate; empty for none."""
    shapes = {tuple((n, tuple(p.shape)) for n, p in b.named_parameters()): n for n, b in enumerate(blocks)}
    for name in EXPERT_FIELDS:
        size = getattr(config, name, None)
        if not isinstance(size, int) or isinstance(size, bool) or size < 2:
            continue
        fewer = stating(config, name, size - 1)
        for index in shapes.values():
            if shrunk_weights(blocks[index], meta_block(type(blocks[index]), fewer, index)):
                return name
    return ""


def why_none(config: PreTrainedConfig) -> str:
    """Why a model without such a field loses no experts."""
    stated = [getattr(config, name, None) for name in EXPERT_FIELDS]
    return STORED_OTHERWISE if any(isinstance(n, int) and n > 1 for n in stated) else NO_MIXTURE


def stating(config: PreTrainedConfig, field: str, count: int) -> PreTrainedConfig:
    """A copy of a config that states another number of experts."""
    found = copy.deepcopy(config)
    setattr(found, field, count)
    return found


def experts_of(
    config: PreTrainedConfig, field: str, block: nn.Module, index: int, mlp: Sequence[str]
) -> Experts | str | None:
    """The experts of a block without weights; why they cannot be removed; or None where it has none.

    Args:
        field: see `field_of`.
        mlp: modules of its MLP half.
    """
    size = getattr(config, field)
    fewer = meta_block(type(block), stating(config, field, size - 1), index)
    shrunk = shrunk_weights(block, fewer)
    if not shrunk or fewer is None:
        return STORED_OTHERWISE if any(p.dim() == 3 for p in block.parameters()) else None
    weights = dict(block.named_parameters())
    owners = {name.rpartition(".")[0] for name in shrunk if weights[name].dim() == 3}
    if any(found != (0, size, size - 1) for found in shrunk.values()) or len(owners) != 1 or len(mlp) != 1:
        return STORED_OTHERWISE
    after = dict(fewer.named_buffers())
    buffers = [n for n, b in block.named_buffers() if n in after and b.shape != after[n].shape]
    if any(after[n].shape[0] != size - 1 for n in buffers):
        return STORED_OTHERWISE
    path = owners.pop()
    used = _used(meta_block(type(block), config, index), mlp[0], path, config.hidden_size)
    if not used:
        return SENT_OTHERWISE
    portions, least = _portions(config, used)
    last = meta_block(type(block), stating(config, field, least), index)
    if size <= least or size % portions:
        return f"of {size} experts in a block a token needs {least}"
    if not _used(last, mlp[0], path, config.hidden_size):
        return SENT_OTHERWISE
    cuts = tuple(Cut(name, 0, (1,)) for name in shrunk)
    cost = sum(weights[name].numel() // size for name in shrunk)
    return Experts(size, cuts, path, 1, cost, least, portions, tuple(buffers), field, mlp[0])


def _portions(config: PreTrainedConfig, used: int) -> tuple[int, int]:
    """The groups that the experts are chosen by (DeepSeek-V2 and its successors), and how many experts must
    stay: as many as a token uses, and of each group the two that it is judged by."""
    groups, chosen = getattr(config, "n_group", None), getattr(config, "topk_group", None)
    if not groups:
        return 1, used
    return groups, groups * max(2, math.ceil(used / (chosen or groups)))


def _used(block: nn.Module | None, half: str, path: str, width: int) -> int:
    """How many experts a token is sent to, of a block without weights; 0 where that is not to be told."""
    if block is None:
        return 0
    try:
        tokens = torch.zeros(1, 4, width, device="meta")
        _, places, weights = routed(block.eval(), half, path, (tokens,), {})
    except Exception:  # a family's own code, on tensors without values
        return 0
    usual = places.dim() == 2 and places.shape == weights.shape and len(places) == 4
    return places.shape[1] if usual and not places.is_floating_point() else 0


def routed(
    block: nn.Module, half: str, path: str, args: Args, kwargs: Kwargs
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the experts of a block are called with, see the module; they are not computed.

    Args:
        half: its MLP, which is called with `args` and `kwargs`.
        path: the module of its experts.
    """
    found: list[tuple[torch.Tensor, ...]] = []

    def stop(args: Args, kwargs: Kwargs) -> None:
        found.append(given(args, kwargs))
        raise ForwardStopped

    with Hooks() as hooks, contextlib.suppress(ForwardStopped):
        hooks.before(block.get_submodule(path), stop)
        block.get_submodule(half)(*args, **kwargs)
    tokens, places, weights = found[0]
    return tokens, places, weights


def given(args: Args, kwargs: Kwargs) -> tuple[torch.Tensor, ...]:
    """Tokens, numbers of experts and factors that a module of experts is called with."""
    return (*args, *kwargs.values())[:3]


def sent(args: Args, kwargs: Kwargs, places: torch.Tensor, weights: torch.Tensor) -> tuple[Args, Kwargs]:
    """The same call with tokens sent elsewhere."""
    values: list[Any] = [*args, *kwargs.values()]
    values[1:3] = places, weights
    return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))


@dataclass(frozen=True)
class Rerouted:
    """A block that sends its tokens to some of its experts alone, as it would without the others.

    Args:
        block: with all of them.
        config, index: what it was built by.
        kept: positions of the experts that remain.
    """

    block: nn.Module
    config: PreTrainedConfig
    index: int
    width: Experts
    kept: Sequence[int]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Send the tokens so inside a `with` block."""
        smaller = self._smaller()
        calls: list[tuple[Args, Kwargs]] = []
        places = torch.tensor(self.kept)

        def remember(args: Args, kwargs: Kwargs) -> None:
            calls.append((args, kwargs))

        def reroute(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
            _, chosen, weights = routed(smaller, self.width.half, self.width.output, *calls.pop())
            return sent(args, kwargs, places.to(chosen.device)[chosen], weights)

        with Hooks() as hooks:
            hooks.before(self.block.get_submodule(self.width.half), remember)
            hooks.before(self.block.get_submodule(self.width.output), reroute)
            yield

    def _smaller(self) -> nn.Module:
        """The block without the others, its experts without weights: they are not computed with."""
        made = meta_block(
            type(self.block), stating(self.config, self.width.field, len(self.kept)), self.index
        )
        assert made is not None  # the anatomy has built one with fewer
        kept, cut = torch.tensor(self.kept), {cut.weight for cut in self.width.cuts}
        for name, weight in self.block.named_parameters():
            owner, _, leaf = name.rpartition(".")
            if owner != self.width.output:
                left = narrowed_weight(weight, 0, kept) if name in cut else weight
                setattr(made.get_submodule(owner), leaf, left)
        for name, buffer in self.block.named_buffers():
            owner, _, leaf = name.rpartition(".")
            rows = buffer[kept.to(buffer.device)] if name in self.width.buffers else buffer
            setattr(made.get_submodule(owner), leaf, rows)
        return made.eval()
