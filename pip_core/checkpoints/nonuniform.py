"""Checkpoints whose shape no plain config can describe: missing halves, blocks of unequal width.

Such a folder holds no `config.json`, so that `from_pretrained` refuses it instead of loading it wrongly.
It is loaded with `pip_core.checkpoints.nonuniform.load_nonuniform(folder)`. Run as a module, this file does
what `reload_check.py` does, with that loader.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..core.device import is_out_of_memory, number_name
from ..core.errors import UserError, shortened
from ..core.finite import to_json
from ..structure.anatomy import anatomy_of
from ..structure.shape import Shape
from ..structure.surgery import reshape, select_layers
from .reload_check import main as check_reload

SHAPE, WEIGHTS = "pip_shape.json", "pip_model.safetensors"
LOADER = "pip_core.checkpoints.nonuniform.load_nonuniform"


def is_nonuniform(folder: Path) -> bool:
    """Whether `folder` holds such a checkpoint."""
    return (folder / SHAPE).is_file()


def save_nonuniform(
    model: PreTrainedModel,
    dense: PreTrainedConfig,
    shape: Shape,
    folder: Path,
    stored: torch.dtype | None = None,
) -> None:
    """Write `model`, which has `shape`, to `folder`, its weights in the format that they have in memory.

    Args:
        dense: config of the dense model.
        stored: number format that a loader reads the weights into; by default that of the model.
    """
    folder.mkdir(parents=True)
    facts = {
        "loader": LOADER,
        "model_type": dense.model_type,
        "dtype": number_name(stored or model.dtype),
        "config": dense.to_dict(),
        **shape.to_dict(),
    }
    (folder / SHAPE).write_text(to_json(facts, indent=1), encoding="utf-8")
    save_model(model, str(folder / WEIGHTS))
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def load_nonuniform(folder: Path | str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model in `folder`, in evaluation mode.

    Args:
        dtype: number format to load into; by default the one that the folder states.

    Raises:
        UserError: no such checkpoint, or a damaged one.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
        dense = CONFIG_MAPPING[facts["model_type"]].from_dict(facts["config"])
        dtype = dtype or getattr(torch, facts["dtype"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"The folder '{folder}' holds no readable {SHAPE}.") from None
    anatomy = anatomy_of(dense)
    shape = Shape.from_dict(facts, anatomy)
    whole = Shape(tuple(layer for layer in Shape.dense(anatomy).layers if layer.block in shape.blocks))
    select_layers(dense, list(shape.blocks), anatomy.family)
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(dense, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    reshape(model, anatomy, whole, shape)
    try:
        load_model(model, str(folder / WEIGHTS), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        reason = shortened(str(error), 200)
        raise UserError(f"The weights in '{folder}' cannot be read: {reason}") from None
    return model.eval()


if __name__ == "__main__":
    check_reload(*sys.argv[1:6], load=load_nonuniform)
