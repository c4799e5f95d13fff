"""Fetching a model from the Hub; what cannot be pruned is refused before its weights are downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from ..core.device import user_message
from ..core.disk_use import bytes_of
from ..core.errors import UserError
from ..core.events import Loading
from ..core.network import HUB_TIMEOUT, check_download, hub_token, is_unreachable, sign_in, visitor
from ..core.progress import in_background
from ..core.recipe import DEMO
from . import bundled
from .bounds import check_sizes
from .folder import (
    Source,
    check_raw_config,
    config_in,
    licence_of,
    refuse_adapter,
    refuse_adapter_in,
    refuse_without_tokenizer,
)
from .gguf_files import SUFFIX as GGUF

# What the Hub answers about the repository itself.
REFUSALS = (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError)
# From the top of a repository; its folders hold other formats.
NOT_WANTED = ["*/*"]
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]


def from_hub(repo: str, revision: str = "") -> Generator[Loading, None, Source]:
    """Bring a repository's checkpoint to this machine.

    Where the Hub cannot be reached, the copy in the local cache is used.

    Args:
        revision: branch, tag or commit; the main branch by default.

    Raises:
        UserError: no such repository or revision, not a model that can be pruned, no safetensors, not
            enough disk space.
        Exception: whatever the Hub's client raises; see `hub_failure`.
    """
    try:
        info = ask_hub(repo, revision)
    except Exception as error:
        if not is_unreachable(error):
            raise
        folder = Path(
            huggingface_hub.snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=WANTED,
                ignore_patterns=NOT_WANTED,
                local_files_only=True,
                **_access(repo),
            )
        )
        refuse_adapter_in(folder, repo)
        if not list(folder.glob("*.safetensors")):
            raise
        return _hub_source(repo, folder)
    files = [f for f in info.siblings or [] if "/" not in f.rfilename]
    refuse_adapter((f.rfilename for f in files), repo)
    check_sizes(((f.rfilename, f.size or 0) for f in files), repo)
    weights = [f for f in files if f.rfilename.endswith(".safetensors")]
    if not any(f.rfilename == "config.json" for f in files):
        if any(f.rfilename.lower().endswith(GGUF) for f in files):
            raise UserError(
                f"'{repo}' holds GGUF files alone. Download one of them and choose that file, or choose the "
                "repository with safetensors that they were made from."
            )
        raise UserError(f"'{repo}' holds no transformers model (no config.json).")
    config = config_file(repo, revision)
    check_raw_config(config.parent)
    config_in(config.parent, repo)
    if not weights:
        raise UserError(
            f"'{repo}' holds no safetensors file, and other formats can run code when they are "
            "opened. Choose a repository with safetensors."
        )
    refuse_without_tokenizer((f.rfilename for f in files), repo)
    wanted = list(filter_repo_objects(files, allow_patterns=WANTED, key=lambda f: f.rfilename))
    total = sum(f.size or 0 for f in wanted)
    free = shutil.disk_usage(config.parent).free
    if total > free:
        raise UserError(f"'{repo}' needs {total / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on this disk.")
    if any(not (config.parent / f.rfilename).is_file() for f in wanted):
        check_download(f"The model '{repo}'")
    folder = yield from _download(repo, revision, total)
    # Where the Hub says no in the middle, its client gives what there is.
    if missing := [f.rfilename for f in wanted if not (folder / f.rfilename).is_file()]:
        raise UserError(
            f"The Hub did not send all of '{repo}' ({missing[0]} is missing): it was deleted, closed or "
            "changed meanwhile. Try again, or choose another model."
        )
    return _hub_source(repo, folder)


def hub_failure(reference: str, error: Exception) -> UserError | None:
    """The error to raise for what the Hub's client raised; None where it is a fault of this program.

    A network that does not answer, a refusal by the Hub, a missing permission and a full disk each get
    a sentence of their own.
    """
    if is_unreachable(error):
        return UserError(
            f"The Hub does not answer, and '{reference}' is not in the local cache "
            f"({type(error).__name__}). Check the network, or choose a local folder, "
            f"'{DEMO}' or '{bundled.NAME}'."
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401 and visitor():
            return UserError(
                f"The Hub does not know your token any more, so '{reference}' cannot be read. Sign out, sign "
                "in again, then try again."
            )
        return UserError(f"The Hub refused the request for '{reference}' (HTTP status {status}).")
    message = user_message(error)
    return UserError(message) if message else None


def _hub_source(repo: str, folder: Path) -> Source:
    """`folder` is a snapshot in the Hub's cache, named after its commit."""
    commit = folder.name
    origin = f"Hugging Face Hub, {repo}@{commit[:12]}"
    return Source(folder, repo, origin, licence_of(folder), commit, reference=f"{repo}@{commit}")


def ask_hub(repo: str, revision: str = "") -> huggingface_hub.ModelInfo:
    """Metadata of a repository on the Hub, asked for with a short time-out.

    Asked before any file, since a download that does not reach the Hub tries again for half a minute.

    Raises:
        UserError: not a Hub id, no such repository or revision, or a gated one.
    """
    _valid_id(repo)
    who = visitor()
    try:
        info = _info(repo, revision, hub_token())
        if who and info.gated:
            who.own.add(repo)
        return info
    except RevisionNotFoundError as error:
        raise _refused(repo, revision, error) from None
    except REFUSALS as error:
        if who is None:
            raise _refused(repo, revision, error) from None
    who.own.add(repo)
    try:
        return _info(repo, revision, who.token)
    except REFUSALS as error:
        raise _refused(repo, revision, error) from None


def _info(repo: str, revision: str, token: str | bool | None) -> huggingface_hub.ModelInfo:
    return huggingface_hub.HfApi(token=token).model_info(
        repo, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT
    )


def _access(repo: str) -> dict[str, Any]:
    """With which token a repository's files are asked for, and where they are kept: those that only a visitor
    may read, apart from those that all share."""
    who = visitor()
    if who and repo in who.own:
        return {"token": who.token, "cache_dir": who.cache}
    return {"token": hub_token(), "cache_dir": None}


def config_file(repo: str, revision: str = "", local: bool = False) -> Path:
    """The repository's config.json in the local cache, fetched unless it is up to date there.

    Asked for by branch, as the weights are, so that the cache can find both when the Hub is away.

    Args:
        local: do not ask the Hub.

    Raises:
        UserError: no such repository or revision, a gated one, or no config.json in it.
    """
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repo,
                "config.json",
                revision=revision or None,
                etag_timeout=HUB_TIMEOUT,
                local_files_only=local,
                **_access(repo),
            )
        )
    except REFUSALS as error:
        raise _refused(repo, revision, error) from None
    except RemoteEntryNotFoundError:
        raise UserError(f"'{repo}' has no config.json on the Hub.") from None


def _download(repo: str, revision: str, total: int) -> Generator[Loading, None, Path]:
    """Fetch a snapshot in a thread and report how many of `total` bytes have arrived."""

    def fetch() -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=WANTED,
                ignore_patterns=NOT_WANTED,
                **access,
            )
        )

    access = _access(repo)
    cache = access["cache_dir"] or huggingface_hub.constants.HF_HUB_CACHE
    blobs = Path(cache, f"models--{repo.replace('/', '--')}", "blobs")

    def arrived() -> Loading:
        return Loading(f"downloading {repo}", min(bytes_of(blobs), total), total)

    return (yield from in_background(fetch, arrived))


def _valid_id(repo: str) -> str:
    try:
        huggingface_hub.utils.validate_repo_id(repo)
    except HFValidationError:
        raise UserError(
            f"'{repo}' is neither a folder nor a Hub id. A Hub id looks like "
            "'HuggingFaceTB/SmolLM2-135M-Instruct'."
        ) from None
    return repo


def _refused(repo: str, revision: str, error: HfHubHTTPError) -> UserError:
    if isinstance(error, GatedRepoError):
        if visitor():
            return UserError(
                f"'{repo}' is gated, and the Hub does not show it to you here: accept its licence there. If "
                "you have, this page may not read it for you: prune it on your own machine."
            )
        return UserError(f"'{repo}' is gated: accept its licence on the Hub, then {sign_in()}.")
    if isinstance(error, RevisionNotFoundError):
        return UserError(
            f"'{repo}' has no revision '{revision}' on the Hub. Give a branch, a tag or a commit, or "
            "leave it out for the main branch."
        )
    where = "it does not show it to you here" if visitor() else "it is private"
    advice = "" if visitor() else f"; for a private model {sign_in()}"
    return UserError(f"The Hub has no model '{repo}', or {where}. Check the spelling{advice}.")
