"""How large a model's tokenizer is, before anything of it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError

from ..core.errors import UserError
from ..core.network import is_unreachable
from . import bundled
from .folder import TOKENIZERS
from .gguf_files import folder_of, gguf_file
from .hub import ask_hub
from .reference import bundled_config_folder, local_folder, split_reference


def tokenizer_bytes(reference: str) -> int:
    """Bytes of the largest file that a model's tokenizer is read from; 0 where that is not known.

    Raises:
        UserError: as `reference.local_folder` and `reference.split_reference`.
    """
    if file := gguf_file(reference):
        return _largest(folder_of(file))
    folder = local_folder(reference)
    if folder is not None:
        return _largest(folder)
    name, revision = split_reference(reference)
    if name == bundled.NAME:
        return _largest(bundled_config_folder())
    try:
        cached = (
            huggingface_hub.try_to_load_from_cache(name, f, revision=revision or None) for f in TOKENIZERS
        )
        if found := [Path(path).stat().st_size for path in cached if isinstance(path, str)]:
            return max(found)
        files = ask_hub(name, revision).siblings or ()
    except (HFValidationError, UserError):  # said where the config is read
        return 0
    except Exception as error:
        if not is_unreachable(error):
            raise
        return 0
    return max((f.size or 0 for f in files if f.rfilename in TOKENIZERS), default=0)


def _largest(folder: Path) -> int:
    return max(_sizes(folder / name for name in TOKENIZERS), default=0)


def _sizes(paths: Iterable[Path]) -> list[int]:
    return [path.stat().st_size for path in paths if path.is_file()]
