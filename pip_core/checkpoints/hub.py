"""From a Hub id to a folder on this machine: asked before fetched, refused before downloaded."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Generator
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from ..core.errors import UserError
from ..core.events import Loading
from ..core.network import HUB_TIMEOUT, UNREACHABLE
from .folder import Source, check_raw_config, config_in, licence_of, raw_config

# A safetensors file that a bot converts on the fly is not the publisher's checkpoint.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

# From the top of a repository; its folders hold other formats.
NOT_WANTED = ["*/*"]
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]


def from_hub(repo: str) -> Generator[Loading, None, Source]:
    try:
        info = ask_hub(repo)
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
    config = config_file(repo)
    check_raw_config(raw_config(config.parent))
    config_in(config.parent, repo)
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
    return Source(folder, repo, f"Hugging Face Hub, {repo}@{folder.name[:12]}", licence_of(folder))


def ask_hub(repo: str) -> huggingface_hub.ModelInfo:
    """What the Hub says of a repository. Asked before any file, since a download that finds no Hub
    tries again for half a minute, and this does not."""
    try:
        return huggingface_hub.HfApi().model_info(_valid_id(repo), files_metadata=True, timeout=HUB_TIMEOUT)
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise _refused(repo, error) from None


def config_file(repo: str, local: bool = False) -> Path:
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


def _valid_id(repo: str) -> str:
    try:
        huggingface_hub.utils.validate_repo_id(repo)
    except HFValidationError:
        raise UserError(
            f"'{repo}' is neither a folder nor a Hub id. A Hub id looks like "
            "'HuggingFaceTB/SmolLM2-135M-Instruct'."
        ) from None
    return repo


def _refused(repo: str, error: HfHubHTTPError) -> UserError:
    if isinstance(error, GatedRepoError):
        return UserError(
            f"'{repo}' is gated: accept its licence on the Hub, then log in with 'hf auth login'."
        )
    return UserError(
        f"The Hub has no model '{repo}', or it is private. Check the spelling; for a private model "
        "log in with 'hf auth login'."
    )
