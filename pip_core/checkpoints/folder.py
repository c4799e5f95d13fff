"""Checkpoint folders: their config and licence, read with care, before any weight is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ..core.errors import UserError
from ..structure.families import check_config


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies now (`folder`), what it is called, and where it came from."""

    folder: Path
    name: str
    origin: str
    licence: str | None


def config_in(folder: Path, name: str) -> PreTrainedConfig:
    """The config in `folder`, of a model that can be pruned."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as in load_folder
        raise unloadable(name, error) from error
    check_config(config)
    return config


def unloadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:240] or type(error).__name__
    return UserError(f"'{name}' could not be loaded: {reason}")


def raw_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"The folder '{folder}' holds no model (no config.json).") from None
    except (ValueError, OSError) as error:
        raise UserError(f"The config.json in '{folder}' cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise UserError(f"The config.json in '{folder}' is not a model's config.")
    return config


def check_raw_config(config: dict) -> None:
    """Refuse model types that only the repository's own code could load."""
    kind = config.get("model_type")
    if kind in CONFIG_MAPPING_NAMES:
        return
    if config.get("auto_map"):
        raise UserError(
            "This model needs code from its own repository to run, and no such code is ever "
            "executed here. Choose a model that transformers knows by itself."
        )
    raise UserError(
        f"This version of transformers does not know the model type '{kind}'. "
        "Upgrade transformers, or choose another model."
    )


def licence_of(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        return huggingface_hub.ModelCard.load(card).data.license
    except Exception:  # whatever its header's parser raises: such a card has no licence to tell
        return None
