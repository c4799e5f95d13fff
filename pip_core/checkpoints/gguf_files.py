"""GGUF files, as llama.cpp reads them: converted once to an ordinary checkpoint, kept in the user's cache.

transformers unpacks the weights. How a tokenizer splits text is only named in the file; where transformers
does not know the name, it would split as GPT-2 does and not say so, so names are checked here.
"""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..core.device import user_message
from ..core.environment import child_environment
from ..core.errors import UserError, shortened
from ..core.events import Loading
from ..core.limits import local_files
from ..core.paths import cache_folder, named_path

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SUFFIX = ".gguf"
# Kinds of tokenizers that need no splitting, ways to split as GPT-2 does, and so with every digit alone.
UNSPLIT = ("llama", "t5", "gemma4")
AS_GPT2 = ("", "gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jais", "trillion", "mellum", "gigachat")
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")

# Text that tokenizers split in different ways.
SAMPLE = "It's 2 o'clock: 12345 naïve TESTS don't;\n\n\t x_y=1   Привет, 世界 нет १२३ 😀"


def gguf_file(reference: str) -> Path | None:
    """The file that a model reference names, or None where it names no GGUF file.

    Raises:
        UserError: there is no such file, it is a part of one, or on a public Space.
    """
    path = named_path(reference)
    if path is None or path.suffix.lower() != SUFFIX:
        return None
    if not local_files():
        raise UserError("Local files cannot be read on a page that is open to others; give a Hub id.")
    if not path.is_file():
        raise UserError(f"The file '{reference}' does not exist.")
    if "-of-" in path.stem:
        raise UserError(
            f"'{path.name}' is one of several parts of a model. Join them first, by llama-gguf-split --merge."
        )
    return path


def folder_of(path: Path) -> Path:
    """The folder of the converted checkpoint, which may not exist yet; another one when the file changes."""
    status = path.stat()
    known = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return cache_folder() / "gguf" / f"{path.stem}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"


def config_in_file(path: Path) -> PreTrainedConfig:
    """The config of the model in a file.

    Raises:
        UserError: no model that transformers can read from GGUF.
    """
    status = path.stat()
    return copy.deepcopy(_config_in_file(path.resolve(), status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=8)
def _config_in_file(path: Path, size: int, changed: int) -> PreTrainedConfig:
    # Kept, since the library reads the whole tokenizer for it: half a minute where it has 262,144 tokens.
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # the library raises whatever its parsers raise
        raise _unreadable(path, str(error) or type(error).__name__) from error


def unpack(path: Path) -> Iterator[Loading]:
    """Convert a file, unless that was done before. A failure leaves nothing half-written.

    Raises:
        UserError: no model that transformers can read from GGUF, or the disk is full.
    """
    final = folder_of(path)
    if final.is_dir():
        return
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_suffix(".lock")):
            if final.is_dir():  # another process was faster
                return
            yield Loading(f"unpacking {path.name}")
            with tempfile.TemporaryDirectory(dir=final.parent, prefix="unpacking-") as temporary:
                made = Path(temporary, "model")
                # In a process of its own, because unpacking takes several times the model's memory.
                done = subprocess.run(
                    [sys.executable, "-m", __name__, str(path.resolve()), str(made), path.stem],
                    capture_output=True,
                    text=True,
                    env=child_environment(),
                )
                if done.returncode:
                    raise _unreadable(path, last_line(done.stderr))
                made.replace(final)
    except OSError as error:
        if message := user_message(error):
            raise UserError(message) from None
        raise


def convert(path: Path, folder: Path, name: str) -> None:
    """Convert a file to an ordinary checkpoint in `folder`: quantised weights become bfloat16.

    Args:
        name: what people call the model.

    Raises:
        UserError: its tokenizer splits texts in a way that is not known here.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    reader = GGUFReader(path)
    kind, splitting = (_field(reader, f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    where, file = str(path.parent), path.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    _check_splitting(tokenizer, kind, splitting)
    counts: Counter[str] = Counter()
    for tensor in reader.tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    most = counts.most_common(1)[0][0] if counts else ""
    stored = {"F32": torch.float32, "F16": torch.float16}.get(most, torch.bfloat16)
    model: Any = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=file, dtype=stored, quantization_config=GgufConfig(dequantize=True)
    )
    if splitting in SINGLE_DIGITS:
        from tokenizers import pre_tokenizers

        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.name_or_path = name
    model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder)
    if licence := _field(reader, "general.license"):
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n", encoding="utf-8")


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer, and see that it is read as it is: for some families transformers splits texts as the
    family usually does, whatever tokenizer.json says.

    Raises:
        UserError: it is read as another tokenizer.
    """
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    read = AutoTokenizer.from_pretrained(folder)
    splits = [str(each.backend_tokenizer.pre_tokenizer) for each in (read, tokenizer)]
    if splits[0] != splits[1] or read(SAMPLE)["input_ids"] != tokenizer(SAMPLE)["input_ids"]:
        raise UserError(
            "its tokenizer is not the usual one of its family, and transformers would read it as that one. "
            "Choose the model's checkpoint in safetensors."
        )


def last_line(text: str) -> str:
    """The last line of what a process wrote before it failed."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1].rpartition("UserError: ")[2] if lines else "no reason given"


def _check_splitting(tokenizer: Any, kind: str, name: str) -> None:
    """Refuse a tokenizer that transformers only seems to have read.

    Args:
        kind, name: of the tokenizer, and of how it splits texts before it looks for tokens.

    Raises:
        UserError: how it splits texts is not known.
    """
    if kind in UNSPLIT or name in (*AS_GPT2, *SINGLE_DIGITS):
        return
    if "Split" not in json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]):
        raise UserError(
            f"how its tokenizer splits texts ('{name}') is not known here, and guessing would give other "
            "tokens without a word. Choose the model's checkpoint in safetensors."
        )


def _field(reader: Any, key: str) -> str:
    found = reader.get_field(key)
    value = found.contents() if found is not None else ""
    return value if isinstance(value, str) else ""


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"The GGUF file '{path.name}' could not be read: {shortened(reason)}.")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
