"""Model families as data, and the stack of decoder blocks of a model.

The stack is found by what transformers declares: the class of the blocks and their number. The parts of a
block are found by `pip_core.structure.anatomy`; the table here holds only what cannot be derived: the order
inside fused weights, halves that are not one module, and config fields that describe layers by number or
by rule. A family that is not in the table is recognised by its structure.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..core.errors import UserError, shortened

# Orders inside a weight that holds several projections in one.
QUERY_KEY_VALUE = "query, key, value"
GATE_UP = "gate, up"


@dataclass(frozen=True)
class Family:
    """Facts about a model type that transformers does not declare.

    Attributes:
        mlp: modules of a block that form its MLP, in order; the output of the last one is the MLP's.
        added: the two modules of a block whose outputs are added to the residual stream, for attention
            and MLP, where these are norms behind the halves; empty where they are the halves themselves.
        fused: weight -> the order of the projections in it.
        adds_residual: the halves take the residual stream as second input and add it themselves.
        layer_numbers: config fields that list layers by number.
        sparse_step: config field that makes every n-th layer a mixture of experts; all others, and
            those in `layer_numbers[0]`, are dense.
        repeats: config field that states the kinds of layers as `[[kinds, times], ...]`, and the field
            that lists them layer by layer.
    """

    mlp: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    fused: Mapping[str, str] = field(default_factory=dict)
    adds_residual: bool = False
    layer_numbers: tuple[str, ...] = ()
    sparse_step: str = ""
    repeats: tuple[str, ...] = ()


PLAIN = Family()
NORM_AFTER = Family(added=("post_attention_layernorm", "post_feedforward_layernorm"))
FAMILIES: dict[str, Family] = {
    "bloom": Family(adds_residual=True),
    "cohere": PLAIN,
    "falcon": PLAIN,
    "gemma": PLAIN,
    "gemma2": NORM_AFTER,
    "gemma3_text": NORM_AFTER,
    "gpt2": PLAIN,
    "gpt_neo": Family(repeats=("attention_types", "attention_layers")),
    "gpt_neox": PLAIN,
    "granite": PLAIN,
    "llama": PLAIN,
    "mistral": PLAIN,
    "mixtral": PLAIN,
    "olmo2": NORM_AFTER,
    "opt": Family(mlp=("fc1", "fc2")),
    "phi": PLAIN,
    "phi3": Family(fused={"self_attn.qkv_proj.weight": QUERY_KEY_VALUE, "mlp.gate_up_proj.weight": GATE_UP}),
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "qwen3_moe": Family(layer_numbers=("mlp_only_layers",), sparse_step="decoder_sparse_step"),
    "smollm3": PLAIN,
    "stablelm": PLAIN,
    "starcoder2": PLAIN,
}


def check_config(config: PreTrainedConfig) -> None:
    """Refuse a model that cannot be pruned, before any weight is read.

    Raises:
        UserError: an encoder, an encoder-decoder, a quantised or an unknown model type, a single
            block, or head counts that contradict one another.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        how = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise UserError(
            f"This checkpoint is quantised{f' ({how})' if how else ''}, and packed weights cannot be cut. "
            "Choose the unquantised checkpoint of the same model."
        )
    architectures = getattr(config, "architectures", None) or []
    named_otherwise = bool(architectures) and not any("CausalLM" in a or "LMHead" in a for a in architectures)
    if (
        config.is_encoder_decoder
        or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        or named_otherwise
    ):
        raise UserError(
            f"This is not a text-generating decoder (model type '{config.model_type}'"
            f"{', ' + architectures[0] if architectures else ''}). Choose a causal language model: "
            f"{', '.join(FAMILIES)}, or one built like these."
        )
    if not isinstance(getattr(config, "num_hidden_layers", None), int):
        raise UserError(
            f"The model type '{config.model_type}' does not state how many blocks it has. Supported are "
            f"{', '.join(FAMILIES)}, and models built like these."
        )
    if config.num_hidden_layers < 2:
        raise UserError("This model has a single block; there is nothing that could be removed.")
    heads, groups = head_counts(config)
    if heads < 1 or groups < 1 or heads % groups:
        raise UserError(
            f"The config contradicts itself: {heads} query heads cannot be shared among {groups} key-value "
            "heads. Correct num_attention_heads or num_key_value_heads."
        )


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """A model without weights (on torch's meta device), built from its config.

    Raises:
        UserError: the config describes no model that can be built.
    """
    try:
        with torch.device("meta"):
            # A copy, because building a model changes its config.
            return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception as error:  # whatever the model's own constructor raises
        reason = shortened(str(error), 200) or type(error).__name__
        padding, rows = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
        if isinstance(padding, int) and isinstance(rows, int) and padding >= rows:
            reason = (
                f"it pads with token {padding:,} (pad_token_id), and there are {rows:,} from 0 on. Write "
                "the number of another into its config.json, such as that of the end of a text."
            )
        raise UserError(f"This config describes no model that can be built: {reason}") from None


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of decoder blocks of `model`, in order.

    Raises:
        UserError: no list of modules, or more than one, looks like the stack.
    """
    _, stack = _find(model)
    return stack


def replace_blocks(model: PreTrainedModel, kept: list[nn.Module]) -> None:
    """Replace the model's stack of blocks by the blocks `kept`."""
    path, _ = _find(model)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList(kept))


def _find(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    declared = set(model._no_split_modules or ())
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == model.config.num_hidden_layers
        and all(type(m).__name__ in declared for m in module)
    ]
    if len(found) != 1:
        raise UserError(
            f"The model type '{model.config.model_type}' does not keep its blocks in one plain list. "
            f"Supported are {', '.join(FAMILIES)}, and models built like these."
        )
    return found[0]


def head_counts(config: PreTrainedConfig) -> tuple[int, int]:
    """Number of query heads and of key-value heads."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None)
    return heads, heads if groups is None else groups


def residual_scale(config: PreTrainedConfig) -> float:
    """Factor of the outputs of a block's halves when they are added to the residual stream."""
    return getattr(config, "residual_multiplier", 1.0)


def tables_of(model: PreTrainedModel) -> list[nn.Module]:
    """The modules with a row for every token: the embeddings, and the head if there is one."""
    return [t for t in (model.get_input_embeddings(), model.get_output_embeddings()) if t is not None]


def embedding_weight(model: PreTrainedModel) -> torch.Tensor:
    """The embeddings, `(V, d)`."""
    return model.get_input_embeddings().get_parameter("weight")


def token_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights with a row for every token: the embeddings, and the head where that is another matrix."""
    weights = [table.get_parameter("weight") for table in tables_of(model)]
    return list({id(weight): weight for weight in weights}.values())


def row_parameters(model: PreTrainedModel) -> int:
    """Parameters of one token: its row of the embeddings, and of the head where that is another matrix."""
    weights = {id(p): p for table in tables_of(model) for p in table.parameters()}
    return sum(p.numel() // p.shape[0] for p in weights.values())
