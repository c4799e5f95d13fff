"""What is taken out of a model, put out of action instead: hooks on the dense model, told by hand.

Nothing here asks the anatomy or the surgery where anything is, so that comparing a cut model with a
bypassed one means something.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Places:
    """Where a family keeps its parts.

    Attributes:
        stack: the list of blocks.
        attention, mlp: modules whose outputs the halves add to the residual stream.
        heads, channels: projections that heads and channels end in.
        adds_residual: the halves' outputs contain the residual stream, their second argument.
    """

    stack: str
    attention: str
    mlp: str
    heads: str
    channels: str
    adds_residual: bool = False


LLAMA = Places("model.layers", "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj")
NORM_AFTER = Places(
    "model.layers",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    "self_attn.o_proj",
    "mlp.down_proj",
)
PLACES = {
    "bloom": Places(
        "transformer.h", "self_attention", "mlp", "self_attention.dense", "mlp.dense_4h_to_h", True
    ),
    "falcon": Places("transformer.h", "self_attention", "mlp", "self_attention.dense", "mlp.dense_4h_to_h"),
    "gemma2": NORM_AFTER,
    "gemma3_text": NORM_AFTER,
    "glm4": Places(
        "model.layers", "post_self_attn_layernorm", "post_mlp_layernorm", "self_attn.o_proj", "mlp.down_proj"
    ),
    "gpt2": Places("transformer.h", "attn", "mlp", "attn.c_proj", "mlp.c_proj"),
    "gpt_neo": Places("transformer.h", "attn", "mlp", "attn.attention.out_proj", "mlp.c_proj"),
    "gpt_neox": Places("gpt_neox.layers", "attention", "mlp", "attention.dense", "mlp.dense_4h_to_h"),
    "olmo2": NORM_AFTER,
    "opt": Places("model.decoder.layers", "self_attn", "fc2", "self_attn.out_proj", "fc2"),
    "phi": Places("model.layers", "self_attn", "mlp", "self_attn.dense", "mlp.fc2"),
    "starcoder2": Places("model.layers", "self_attn", "mlp", "self_attn.o_proj", "mlp.c_proj"),
}


def places_of(model: PreTrainedModel) -> Places:
    return PLACES.get(model.config.model_type, LLAMA)


def stack_of(model: PreTrainedModel) -> nn.ModuleList:
    return model.get_submodule(places_of(model).stack)


def group_features(model: PreTrainedModel) -> int:
    """Features of a group of heads: as many as its query heads have together."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return head * config.num_attention_heads // config.num_key_value_heads


@contextlib.contextmanager
def bypassed(model: PreTrainedModel, gone: Sequence[tuple[str, int, Sequence[int]]]) -> Iterator[None]:
    """`model`, which is dense, as if the units in `gone` (kind, block, numbers) were not there."""
    places, blocks = places_of(model), stack_of(model)

    def hand_on(block: nn.Module, args: tuple, kwargs: dict, output):
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    def add_nothing(module: nn.Module, args: tuple, kwargs: dict, output):
        added = output[0] if isinstance(output, tuple) else output
        nothing = args[1] if places.adds_residual else torch.zeros_like(added)
        return (nothing, *output[1:]) if isinstance(output, tuple) else nothing

    def blank(features: torch.Tensor):
        def hook(module: nn.Module, args: tuple):
            masked = args[0].clone()
            masked[..., features] = 0.0
            return (masked, *args[1:])

        return hook

    def choose_others(taken: torch.Tensor):
        """The router's own rule with the experts that were taken at minus infinity."""

        def hook(router: nn.Module, args: tuple, output: tuple):
            logits = output[0].float().clone()
            logits[:, taken] = -torch.inf
            weights, places = logits.softmax(dim=-1).topk(router.top_k, dim=-1)
            if getattr(router, "norm_topk_prob", True):
                weights = weights / weights.sum(dim=-1, keepdim=True)
            return logits, weights.to(output[1].dtype), places

        return hook

    @contextlib.contextmanager
    def out_of_bias(bias: torch.Tensor, taken: torch.Tensor) -> Iterator[None]:
        before = bias.clone()
        bias[taken] = -torch.inf
        yield
        bias.copy_(before)

    with contextlib.ExitStack() as stack:
        for kind, number, units in gone:
            block, taken = blocks[number], torch.tensor(units)
            if kind == "experts":
                router = block.mlp.gate
                if model.config.model_type == "deepseek_v3":
                    stack.enter_context(out_of_bias(router.e_score_correction_bias, taken))
                else:
                    stack.callback(router.register_forward_hook(choose_others(taken)).remove)
                continue
            if kind == "blocks":
                handle = block.register_forward_hook(hand_on, with_kwargs=True)
            elif kind in ("attention", "mlp"):
                module = block.get_submodule(getattr(places, kind))
                handle = module.register_forward_hook(add_nothing, with_kwargs=True)
            else:
                each = group_features(model) if kind == "heads" else 1
                features = (taken[:, None] * each + torch.arange(each)).flatten()
                module = block.get_submodule(getattr(places, kind))
                handle = module.register_forward_pre_hook(blank(features))
            stack.callback(handle.remove)
        yield


def logits_without(model: PreTrainedModel, rows: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
    """What the dense `model` says of `rows` with whole `blocks` bypassed."""
    with bypassed(model, [("blocks", block, (0,)) for block in blocks]):
        return model(rows).logits
