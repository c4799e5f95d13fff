"""What the weight files of a checkpoint hold, where its config may say something else.

The files decide: a config that was written by hand, or by a merge of an adapter, may name another number
format, or one table for embeddings and head where the files hold two.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..core.device import number_name
from ..structure.families import skeleton
from .checksum import weight_files

# As safetensors names the number formats of weights.
FORMATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
# Eight bits, which nothing is computed in: every such number is one of bfloat16 too.
EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
FORMATS |= dict.fromkeys(EIGHT_BITS, torch.bfloat16)
# Rows of two tables that are compared at a time.
ROWS = 4096


@dataclass(frozen=True)
class Header:
    """One tensor of a weight file: where it is, its number format as safetensors names it, its shape, and the
    file's byte that it begins with."""

    file: Path
    format: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(torch.Size(self.shape).numel())


def headers(folder: Path) -> dict[str, Header]:
    """The tensors of the safetensors files that a loader of `folder` reads, by name.

    No weight is read. Empty where there are no such files, or one cannot be read, which the loader says.
    """
    found: dict[str, Header] = {}
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                values = json.loads(file.read(size))
            values.pop("__metadata__", None)
            found |= {
                n: Header(path, v["dtype"], tuple(v["shape"]), 8 + size + v["data_offsets"][0])
                for n, v in values.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
            return {}
    return found


def follow_weights(config: PreTrainedConfig, folder: Path, name: str) -> tuple[str, ...]:
    """Make `config` say what the weight files in `folder` hold, in place: number format, and own head.

    Where there are no weight files yet, nothing is changed.

    Args:
        name: what people call the model.

    Returns:
        A sentence for each thing that the config says otherwise.
    """
    found, notes = headers(folder), []
    stored = _number_format(found)
    if stored is not None:
        if config.dtype not in (None, stored):
            ours, theirs = (number_name(d) for d in (stored, config.dtype))
            notes.append(
                f"The config of '{name}' says {theirs}, but its weights are stored as {ours}. They are taken "
                f"as {ours}, and an export keeps that."
            )
        config.dtype = stored
    if any(header.format in EIGHT_BITS for header in found.values()):
        notes.append(
            f"Weights of '{name}' are stored as 8-bit floating-point numbers, which are not computed in. "
            "They are taken as bfloat16, which holds each of them exactly, and an export keeps that."
        )
    if getattr(config, "tie_word_embeddings", False) and _has_own_head(config, found):
        notes.append(
            f"The config of '{name}' says that its head is the table of its embeddings, but its weights hold "
            "a head of its own. That head is used, and the exported config says that it is."
        )
        config.tie_word_embeddings = False
    return tuple(notes)


def shape_mismatch(
    config: PreTrainedConfig, folder: Path
) -> tuple[str, tuple[int, ...], tuple[int, ...]] | None:
    """The first weight whose shape in the files is not the one that `config` promises: its name, its shape in
    the files, and the promised one. None where there is none.

    Raises:
        UserError: the config describes no model that can be built.
    """
    found = headers(folder)
    promised = skeleton(config).state_dict()
    for name, weight in promised.items():
        header = found.get(name) or next((h for n, h in found.items() if same_name(n, name)), None)
        if header is not None and header.shape != tuple(weight.shape):
            return name, header.shape, tuple(weight.shape)
    return None


def _number_format(found: Mapping[str, Header]) -> torch.dtype | None:
    """The format that most weights are stored in; None where there are none of a known format."""
    counts: Counter[str] = Counter()
    for header in found.values():
        if header.format in FORMATS:
            counts[header.format] += header.size
    return FORMATS[counts.most_common(1)[0][0]] if counts else None


def _has_own_head(config: PreTrainedConfig, found: Mapping[str, Header]) -> bool:
    """Whether the files hold both tables that `config` says are one, with different values."""
    return any(
        _differ(_tensor(one, found[one]), _tensor(other, found[other]))
        for one, other in _declared_pairs(config, found)
    )


def _declared_pairs(config: PreTrainedConfig, found: Mapping[str, Header]) -> Iterator[tuple[str, str]]:
    """Names in the files of weights that the model's class declares to be the same."""
    model = AutoModelForCausalLM._model_mapping.get(type(config), None)
    declared = getattr(model, "_tied_weights_keys", None)
    for pair in declared.items() if isinstance(declared, Mapping) else ():
        one, other = (next((n for n in found if same_name(n, name)), None) for name in pair)
        if one is not None and other is not None:
            yield one, other


def same_name(stored: str, name: str) -> bool:
    """Whether a tensor is the weight `name`; files of a bare decoder leave the first part out."""
    return f".{stored}".endswith(f".{name}") or f".{name}".endswith(f".{stored}")


def _tensor(name: str, header: Header) -> tuple[str, Header, tuple[int, int]]:
    status = header.file.stat()
    return name, header, (status.st_size, status.st_mtime_ns)


@lru_cache(32)
def _differ(one: tuple[str, Header, tuple[int, int]], other: tuple[str, Header, tuple[int, int]]) -> bool:
    """Whether two stored tables differ, read some rows at a time; remembered until a file changes."""
    (name, header, _), (other_name, other_header, _) = one, other
    if header.shape != other_header.shape:
        return True
    try:
        with safe_open(header.file, "pt") as file, safe_open(other_header.file, "pt") as other_file:
            rows, other_rows = file.get_slice(name), other_file.get_slice(other_name)
            for at in range(0, header.shape[0], ROWS):
                part = rows[at : at + ROWS]
                if not torch.equal(part, other_rows[at : at + ROWS].to(part.dtype)):
                    return True
    except (OSError, SafetensorError):  # which the loader says
        pass
    return False
