"""Where a decoder keeps its blocks, read from what transformers itself declares.

Every decoder in transformers names the class of its blocks (`_no_split_modules`, and the classes
whose outputs it records as hidden states) and states their number in its config. The list of
modules that satisfies both is the stack of blocks. No model name is matched.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .errors import UserError


def check_config(config: PreTrainedConfig) -> None:
    """Refuse what is not a decoder, before any weight is read.

    Raises:
        UserError: an encoder, an encoder-decoder, a quantised or an unknown model type.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(
            "This checkpoint is quantised, and packed weights cannot be cut. "
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
            f"{', ' + architectures[0] if architectures else ''}). Choose a causal language model, "
            "such as a Llama, Qwen, Mistral or GPT-2 checkpoint."
        )
    if config.num_hidden_layers < 2:
        raise UserError("This model has a single block; there is nothing that could be removed.")


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of decoder blocks of `model`, in order.

    Raises:
        UserError: no list of modules, or more than one, looks like the stack.
    """
    _, stack = _find(model)
    return stack


def replace_blocks(model: PreTrainedModel, kept: list[nn.Module]) -> None:
    """Put `kept` in the place of the model's stack of blocks."""
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
            f"The model type '{model.config.model_type}' does not keep its blocks in one plain list; "
            "it is not supported yet."
        )
    return found[0]
