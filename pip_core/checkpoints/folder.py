"""Checkpoint folders: reading and checking their config and licence, before any weight is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ..core.errors import UserError, shortened
from ..structure.families import check_config
from .bounds import check_bounds, check_sizes
from .checksum import weight_files
from .contents import follow_weights

# How a file begins that Git LFS left in the place of the real one, and how small it is.
POINTER, POINTER_BYTES = b"version https://git-lfs", 1024
# Files of which every tokenizer has at least one.
TOKENIZERS = (
    *(
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
    ),
    *("spm.model", "tekken.json"),
)
# Files of an adapter, by which it is known.
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

# Of a model card so much is read for its header, which states the licence: a name, or a list of one.
CARD_BYTES, LONGEST_LICENCE = 2**18, 100
_HEADER = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(
    r"^license[ \t]*:[ \t]*(?:\n[ \t]*-[ \t]*)?"
    r"(?:(?P<mark>['\"])(?P<quoted>[^'\"\r\n]*)(?P=mark)|(?P<plain>[^\r\n#]*))",
    re.MULTILINE,
)
# What begins a value that is no plain text.
YAML_MARKS = "&*!|>{[@%`-?:,'\""


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is on this machine, and where it came from.

    Attributes:
        folder: the checkpoint's folder.
        name: what people call the model.
        origin: where it came from, in words.
        licence: as its card states it, None where it does not.
        revision: commit of the Hub's repository; empty for other origins.
        weights_sha256: see `checksum.weights_sha256`; empty until the weights are loaded.
        reference: model reference that names exactly this origin, as far as one can.
    """

    folder: Path
    name: str
    origin: str
    licence: str | None
    revision: str = ""
    weights_sha256: str = ""
    reference: str = ""


def refuse_adapter(files: Iterable[str], name: str) -> None:
    """Refuse an adapter, alone or beside a model, which would be pruned without it.

    Args:
        files: names of the files in the checkpoint's folder or repository.
        name: what people call the model.

    Raises:
        UserError: there is an adapter among them.
    """
    found = set(files)
    adapter = next((f for f in ADAPTER if f in found), None)
    if adapter is None:
        return
    how = (
        "holds a LoRA adapter beside a model" if "config.json" in found else "is a LoRA adapter, not a model"
    )
    raise UserError(
        f"'{name}' {how} ({adapter}), and only a whole model can be pruned. Merge the adapter into its model "
        f"first, with the package peft: AutoPeftModelForCausalLM.from_pretrained('{name}')"
        ".merge_and_unload().save_pretrained('merged'); save the tokenizer there too, and choose that folder."
    )


def refuse_adapter_in(folder: Path, name: str) -> None:
    """`refuse_adapter` for the files in `folder`."""
    refuse_adapter((path.name for path in folder.iterdir()), name)


def refuse_without_tokenizer(files: Iterable[str], name: str) -> None:
    """Refuse a checkpoint without a tokenizer, for which transformers may make up an empty one.

    Args:
        files: names of the files in the checkpoint's folder or repository.
        name: what people call the model.

    Raises:
        UserError: there is no tokenizer among them.
    """
    if not any(f in TOKENIZERS for f in files):
        raise UserError(
            f"'{name}' holds no tokenizer ({', '.join(TOKENIZERS[:3])}, ...), and without one no text can be "
            "read. Copy the tokenizer's files from the model it was made from, or save it there with "
            "tokenizer.save_pretrained()."
        )


def refuse_unusable_files(folder: Path, name: str) -> None:
    """Refuse files that are not there or not whole, as an interrupted download or a clone without Git LFS
    leaves them. No weight is read.

    Raises:
        UserError: there is such a file.
    """
    weights = weight_files(folder)
    missing = [path.name for path in weights if not path.is_file()]
    if missing:
        raise UserError(
            f"'{name}' lacks {len(missing)} of its files of weights, such as {missing[0]}. Copy or download "
            "what is missing."
        )
    for path in (*weights, *(folder / file for file in TOKENIZERS)):
        if path.is_file() and path.stat().st_size < POINTER_BYTES and path.read_bytes().startswith(POINTER):
            raise UserError(
                f"In '{name}' {path.name} is only a pointer of Git LFS to the real file: the repository was "
                "cloned without it. Install git-lfs and run 'git lfs pull' there."
            )
    for path in weights:
        try:
            # As "pt" it would count as memory in use, all of it.
            with safe_open(path, "np"):
                pass
        except (SafetensorError, OSError) as error:
            raise _damaged(path, name, error) from error


def check_files(folder: Path, name: str) -> None:
    """`bounds.check_sizes` for the files in `folder`."""
    check_sizes(((path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file()), name)


def tokenizer_in(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    refuse_without_tokenizer((path.name for path in folder.iterdir()), name)
    check_files(folder, name)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises whatever its parsers raise
        reason = shortened(str(error)) or type(error).__name__
        raise _no_json(folder, name) or UserError(
            f"The tokenizer of '{name}' could not be loaded: {reason}."
        ) from error


def config_in(folder: Path, name: str) -> tuple[PreTrainedConfig, tuple[str, ...]]:
    """The config in `folder`, corrected where the weight files beside it say otherwise.

    Returns:
        The config, and a sentence for each correction (see `contents.follow_weights`).

    Raises:
        UserError: it cannot be read, or is of a model that cannot be pruned.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises whatever its parsers raise
        raise _miscounted(folder, name) or unloadable(name, folder, error) from error
    # Code of the machine that it was saved on, and perhaps not here. "eager" is a kernel of every model.
    if config._attn_implementation != "eager":
        config._attn_implementation = None
    check_config(config)
    return config, follow_weights(config, folder, name)


def _miscounted(folder: Path, name: str) -> UserError | None:
    """The error to raise where a config lists kinds of more or fewer blocks than it has; None otherwise."""
    config = raw_config(folder)
    kinds, blocks = config.get("layer_types"), config.get("num_hidden_layers")
    if not isinstance(kinds, list) or len(kinds) == blocks:
        return None
    return UserError(
        f"The config of '{name}' lists the kinds of {len(kinds)} blocks (layer_types), and says that there "
        f"are {blocks} (num_hidden_layers), as when blocks were taken out by hand. Correct its config.json."
    )


def unloadable(name: str, folder: Path, error: Exception) -> UserError:
    """The error to raise for what a library raised while it read the checkpoint `name` in `folder`."""
    reason = shortened(str(error)) or type(error).__name__
    return _no_json(folder, name) or UserError(f"'{name}' could not be loaded: {reason}.")


def _no_json(folder: Path, name: str) -> UserError | None:
    """The error to raise where a file in `folder` is not the JSON that it is named for; None otherwise. The
    libraries say what they stumbled over, and not in which file."""
    for path in sorted(folder.glob("*.json")):
        if not path.is_file():  # nobody may ever write to a pipe
            continue
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            return _damaged(path, name, error)
    return None


def _damaged(path: Path, name: str, error: Exception) -> UserError:
    """The error to raise for a file of the checkpoint `name` that is not what it is named for."""
    return UserError(
        f"In '{name}' {path.name} is damaged or not whole ({shortened(str(error))}). Download or copy it "
        "again."
    )


def raw_config(folder: Path) -> dict:
    """The contents of `folder`'s config.json.

    Raises:
        UserError: there is none, it cannot be read, or it holds no JSON object.
    """
    try:
        path = folder / "config.json"
        if path.exists() and not path.is_file():  # nobody may ever write to a pipe
            raise UserError(f"The config.json in '{folder}' is not a file.")
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise UserError(
                f"The config.json in '{folder}' begins with a byte order mark, which transformers does not "
                "read. Save it as UTF-8 without one."
            )
        config = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"The folder '{folder}' holds no model (no config.json).") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"The config.json in '{folder}' cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise UserError(f"The config.json in '{folder}' is not a model's config.")
    return config


def check_raw_config(folder: Path) -> None:
    """Refuse model types that only code of the repository could load, by `folder`'s config.json.

    Raises:
        UserError: as `raw_config`; transformers does not know the model type, or a number is one that no
            model has.
    """
    check_files(folder, folder.name)
    config = raw_config(folder)
    check_bounds(config)
    for field in ("dtype", "torch_dtype"):
        stated = config.get(field)
        if isinstance(stated, str) and not isinstance(getattr(torch, stated, None), torch.dtype):
            raise UserError(
                f"The config.json of '{folder.name}' names the number format '{stated[:40]}', which is none. "
                f"Take the line '{field}' out: the weights say themselves what they are."
            )
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
    """The licence that the model card in `folder` states, None where there is none.

    The header is not parsed as YAML, of which a few bytes can ask for any memory: it is a line of its own.
    """
    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        with card.open("rb") as file:
            text = file.read(CARD_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return None
    header = _HEADER.match(text.removeprefix("\ufeff"))
    found = _LICENCE.search(header[1]) if header else None
    if found is None:
        return None
    licence = (found["quoted"] or found["plain"] or "").strip()
    return licence if 0 < len(licence) <= LONGEST_LICENCE and licence[0] not in YAML_MARKS else None
