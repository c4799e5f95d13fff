"""A checkpoint as a model whose blocks are read when they are used, and such a model as a checkpoint.

Embeddings, head and final norm are in memory, and one block at a time (`structure.streamed`). Run as a
module, this file does what `reload_check.py` does, for a checkpoint that does not fit into memory.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ..core.accelerator import device
from ..core.errors import UserError
from ..core.finite import to_json
from ..structure.dispatched import align
from ..structure.families import blocks_of
from ..structure.streamed import Held, Stored, Stream, raw
from .checksum import INDEX, WEIGHTS
from .contents import FORMATS, Header, headers, same_name
from .folder import config_in
from .placing import DISK, MEMORY, Place
from .reload_check import main as check_reload

# As safetensors names number formats, and what torch calls them.
TYPES = {
    **FORMATS,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {found: name for name, found in TYPES.items()}
GENERATION = "generation_config.json"


def load_streamed(
    folder: Path,
    name: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    where: Mapping[int, Place] = MappingProxyType({}),
) -> tuple[PreTrainedModel, set[str], set[str]]:
    """The model in `folder`, its blocks on disk or where else they are to be, in evaluation mode.

    Args:
        name: what people call it.
        dtype: number format to compute in.
        where: by a block's number where it goes, see `placing`; on disk where that is not said.

    Returns:
        The model, the names of weights that the files lack, and those of tensors that it has no use for.

    Raises:
        UserError: the files hold its weights by other names, or in another arrangement, than they are
            computed with.
    """
    # The buffers are real, such as the frequencies of rotary positions, which no file holds.
    with no_init_weights(), init_empty_weights(include_buffers=False), _EmptyOnMeta():
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, trust_remote_code=False)
    if getattr(model, "_keep_in_fp32_modules_strict", None) and dtype != torch.float32:
        raise _not_streamed(name, "some of its weights are computed in float32 whatever the others are")
    found, used = headers(folder), set()
    place = device()
    stream = Stream(place, dtype)
    numbers = {id(module): n for n, block in enumerate(blocks_of(model)) for module in block.modules()}
    for path, module in list(model.named_modules()):
        for leaf, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            stored_as = _find(f"{path}.{leaf}", found)
            if stored_as is None:
                continue
            used.add(stored_as)
            stored = _stored(found[stored_as])
            if stored.shape != tuple(tensor.shape):
                continue  # which is told by whoever counts what is missing
            block = numbers.get(id(module))
            goes = place if block is None else where.get(block, DISK)
            if not isinstance(tensor, nn.Parameter):
                tensor.copy_(stored.read())
            elif isinstance(goes, torch.device):
                setattr(module, leaf, nn.Parameter(stored.read().to(goes, dtype)))
            else:
                assert block is not None
                kept = Held(stored.read().to(dtype)) if goes == MEMORY else stored
                setattr(module, leaf, stream.weight(kept, block))
    model.tie_weights()
    missing = {path for path, weight in model.named_parameters() if weight.is_meta}
    unused = found.keys() - used
    if missing and unused:
        raise _not_streamed(name, f"they hold {min(unused)} where it computes with {min(missing)}")
    if (folder / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    for module in model.modules():
        goes = where.get(numbers.get(id(module), -1), place)
        for buffer in module.buffers(recurse=False):
            buffer.data = buffer.data.to(goes if isinstance(goes, torch.device) else place)
    if any(isinstance(goes, torch.device) and goes != place for goes in where.values()):
        align(model)
    return model.eval(), missing, set(unused)


class _EmptyOnMeta(TorchFunctionMode):
    """No memory is asked for that would be filled later; so a model's constructor makes its large weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {**(kwargs or {})}
        if func is torch.empty:
            given["device"] = "meta"
        return func(*args, **given)


def _not_streamed(name: str, why: str) -> UserError:
    return UserError(
        f"The weights of '{name}' cannot be read block by block: {why}. Choose the placement "
        "'resident', which reads them all into memory."
    )


def _find(name: str, found: dict[str, Header]) -> str | None:
    """The name in the files of the weight `name`; files of a bare decoder leave its first part out."""
    if name in found:
        return name
    rest = name.partition(".")[2]
    return rest if rest in found and same_name(rest, name) else None


def _stored(header: Header) -> Stored:
    return Stored(header.file, header.offset, TYPES[header.format], header.shape)


def write_streamed(model: PreTrainedModel, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    """Write config and weights of `model` into `folder`, one weight in memory at a time.

    Args:
        dtype: number format to write the weights in.
        shard_bytes: size from which a further file is begun.
    """
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = model.dtype
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = total = 0
    for name, tensor in _saved(model):
        each = tensor.numel() * _format(tensor, dtype).itemsize
        if shards[-1] and size + each > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size, total = size + each, total + each
    if len(shards) == 1:
        _write(folder / WEIGHTS, shards[0], dtype)
        return
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        _write(folder / file, shard, dtype)
    where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    facts = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(to_json(facts, indent=2) + "\n", encoding="utf-8")


def _saved(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights, tied ones once, and the buffers that belong into a checkpoint."""
    yield from model.named_parameters()
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield (f"{path}.{name}" if path else name), buffer


def _format(tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if isinstance(tensor, nn.Parameter) else tensor.dtype


def _write(path: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """A safetensors file. The library's own writer takes all tensors at once, in memory."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * _format(tensor, dtype).itemsize
        header[name] = {
            "dtype": NAMES[_format(tensor, dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors.values():
            values = tensor.detach().to("cpu", _format(tensor, dtype)).contiguous()
            file.write(raw(values))


def _reloaded(folder: str, dtype: torch.dtype) -> PreTrainedModel:
    """The checkpoint that is checked.

    Raises:
        UserError: its files do not hold what its config describes.
    """
    config, _ = config_in(Path(folder), folder)
    model, missing, unused = load_streamed(Path(folder), folder, config, dtype)
    if missing or unused:
        raise UserError(f"weights are missing or unknown: {', '.join(sorted(missing | unused)[:3])}")
    return model


if __name__ == "__main__":
    check_reload(*sys.argv[1:6], load=_reloaded)
