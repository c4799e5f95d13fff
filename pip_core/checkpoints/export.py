"""Writing the pruned model as an ordinary checkpoint, and putting it in the place of an earlier one.

The steps of an export, in order: `prepare_folder`, `round_to_stored`, `write_checkpoint` (into a folder
beside the final one), `verify.verify`, `write_card`, `put_in_place`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from glob import escape
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..core.errors import UserError
from ..core.finite import nonfinite_weight, to_json
from ..structure.shape import Shape
from ..structure.streamed import StreamedWeight, is_streamed, overwrite
from ..structure.surgery import verify_config_matches
from .compatibility import write_older_names
from .load import Loaded
from .nonuniform import save_nonuniform
from .streaming import write_streamed
from .verify import CHECK, Verdict, verify

# The recipe beside an exported model.
RECIPE = "pip_recipe.json"
CARD = "README.md"
INDEX = "model.safetensors.index.json"
# Fields of configs that name classes, pipelines or functions in files of a repository.
CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
# Room left on the disk beyond the checkpoint's own size.
MARGIN_BYTES = 64 * 2**20
# Largest weights file before it is cast to the stored format, which bounds the memory of the cast.
SHARD_GB = 5
# Folders beside the final one: being written; complete and about to replace it; replaced.
PARTIAL, NEW, OLD = ".partial", ".new", ".old"


def export_checkpoint(
    loaded: Loaded, shape: Shape, folder: Path, card: str, facts: dict, probe: str
) -> Generator[float, None, Verdict]:
    """All steps of an export, one after another; see `write_checkpoint` and `verify`.

    Args:
        folder: must not exist, or hold an earlier export of the same run, which is replaced.
        card: the model card, Markdown.
        probe: text whose logits are compared.

    Yields:
        Seconds that the verification has taken.

    Raises:
        UserError: as `write_checkpoint` and `verify`; an earlier export then stays.
    """
    partial = prepare_folder(folder)
    try:
        round_to_stored(loaded.model, loaded.stored)
        write_checkpoint(loaded, shape, partial, facts)
        write_card(partial, card)
        verdict = yield from verify(loaded, partial, probe)
        put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return verdict


@torch.no_grad()
def round_to_stored(model: torch.nn.Module, stored: torch.dtype) -> bool:
    """Round a model's weights to the number format `stored`, in place; each keeps its own format.

    Weights alone: buffers, such as the float32 frequencies of rotary embeddings, stay. A weight that is
    stored in this format already is not touched, so a second call changes nothing.

    Returns:
        Whether any weight changed.
    """
    changed = False
    for weight in model.parameters():
        as_stored = isinstance(weight, StreamedWeight) and weight.stored.dtype == stored
        if weight.dtype == stored or weight.is_meta or as_stored:
            continue
        rounded = weight.to(stored).to(weight.dtype)
        if not torch.equal(rounded, weight):
            overwrite(weight, rounded)
            changed = True
    return changed


def write_checkpoint(loaded: Loaded, shape: Shape, partial: Path, facts: dict) -> None:
    """Write weights, config, tokenizer and recipe of `loaded`, which has `shape`, to the folder `partial`.

    A shape that a plain config can describe becomes an ordinary checkpoint; any other a folder that
    `pip_core.checkpoints.nonuniform` alone can load. Weights are written in the format `loaded.stored`;
    the model in memory keeps its own. What was in `partial` is deleted first.

    Args:
        partial: see `prepare_folder`.
        facts: the recipe and what was removed, written as `RECIPE`.

    Raises:
        UserError: not enough disk space, a config that cannot state what is left, or weights that are
            not finite. `partial` is deleted then.
    """
    model, uneven = loaded.model, shape.uneven() is not None
    if not uneven:
        verify_config_matches(model)
    if name := nonfinite_weight(model):
        raise UserError(
            f"The pruned model holds values that are not finite numbers (in {name}), and was not exported. "
            "Choose the number format float32, or remove less."
        )
    text = to_json(facts, indent=1)
    partial.parent.mkdir(parents=True, exist_ok=True)
    check_space(loaded, partial.parent)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if is_streamed(model):
            write_streamed(model, partial, loaded.stored, int(SHARD_GB * 1e9))
        else:
            _write_whole(loaded, shape, partial)
        loaded.tokenizer.save_pretrained(partial)
        if not uneven:
            write_older_names(partial, loaded.tokenizer, loaded.stored)
        _drop_code(partial)
        (partial / RECIPE).write_text(text, encoding="utf-8")
        for path in partial.glob("*.safetensors"):
            # safetensors makes files that only their owner can read; whoever reads the rest reads these too.
            shutil.copymode(partial / RECIPE, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_whole(loaded: Loaded, shape: Shape, partial: Path) -> None:
    """Write config and weights of a model that is in memory."""
    model = loaded.model
    if shape.uneven() is not None:
        save_nonuniform(model, loaded.config, shape, partial, loaded.stored)
    else:
        model.save_pretrained(partial, max_shard_size=f"{SHARD_GB}GB")
    buffers = model.state_dict().keys() - dict(model.named_parameters(remove_duplicate=False)).keys()
    for path in sorted(partial.glob("*.safetensors")):
        _cast_file(path, loaded.stored, buffers)
    _correct_index(partial)


def write_card(folder: Path, text: str) -> None:
    """Write the model card `text` (Markdown) into a checkpoint's folder."""
    (folder / CARD).write_text(text, encoding="utf-8")


def prepare_folder(folder: Path) -> Path:
    """Clean up what a crash left beside `folder`, and return the folder to write a new export to.

    Where the crash came while the export was replaced, the complete one is put in place.
    """
    new, old = _beside(folder, NEW), _beside(folder, OLD)
    if not folder.exists():
        # Both are complete; the newer one was about to be put in place.
        for complete in (new, old):
            if complete.exists():
                complete.rename(folder)
                break
    for leftover in (
        new,
        old,
        _beside(folder, PARTIAL),
        *folder.parent.glob(f"{escape(folder.name)}*{CHECK}*"),
    ):
        shutil.rmtree(leftover, ignore_errors=True)
    return _beside(folder, PARTIAL)


def put_in_place(partial: Path, folder: Path) -> None:
    """Make the complete export in `partial` the one in `folder`; an earlier one is deleted.

    By renaming alone, so that a crash at any instant leaves a complete export: in `folder`, or beside
    it, where `prepare_folder` finds it.
    """
    new, old = _beside(folder, NEW), _beside(folder, OLD)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.rename(new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


def check_space(loaded: Loaded, where: Path, left: float = 1.0) -> None:
    """Refuse to write where there is no room.

    Args:
        where: a folder on the disk, which need not exist yet.
        left: the share of the model's weights that will be written.

    Raises:
        UserError: not enough disk space.
    """
    where = next(place for place in (where.absolute(), *where.absolute().parents) if place.exists())
    weights = list(loaded.model.parameters())
    needed = left * sum(p.numel() * p.element_size() for p in weights) + MARGIN_BYTES
    if any(p.dtype != loaded.stored for p in weights):
        # A weights file and its copy in the stored format exist side by side for a while.
        stored = left * sum(p.numel() for p in weights) * loaded.stored.itemsize
        needed += min(stored, int(SHARD_GB * 1e9))
    free = shutil.disk_usage(where).free
    if free < needed:
        raise UserError(
            f"The export needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free on the disk of "
            f"'{where}'. Make room, then resume the run; nothing decided is lost."
        )


def _cast_file(path: Path, dtype: torch.dtype, buffers: set[str]) -> None:
    """Rewrite a safetensors file with its floating-point weights in the format `dtype`.

    Args:
        buffers: names of tensors that keep their format.
    """
    beside = path.with_name(path.name + PARTIAL)
    with safe_open(path, "pt") as file:
        names, metadata = list(file.keys()), file.metadata()
        tensors = {name: file.get_tensor(name) for name in names}
        cast = {
            name: tensor.to(dtype) if tensor.is_floating_point() and name not in buffers else tensor
            for name, tensor in tensors.items()
        }
        if all(cast[name] is tensors[name] for name in names):
            return
        save_file(cast, beside, metadata=metadata)
        del tensors, cast
    os.replace(beside, path)


def _correct_index(folder: Path) -> None:
    """State the size of the weights as they are now in the index of a sharded checkpoint."""
    path = folder / INDEX
    if not path.exists():
        return
    index, total = json.loads(path.read_text(encoding="utf-8")), 0
    for shard in set(index["weight_map"].values()):
        with safe_open(folder / shard, "pt") as file:
            tensors = (file.get_tensor(name) for name in list(file.keys()))
            total += sum(t.numel() * t.element_size() for t in tensors)
    index["metadata"]["total_size"] = total
    path.write_text(to_json(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _drop_code(folder: Path) -> None:
    """Remove what points to code of the dense model's repository, which is neither used nor exported.

    Whoever loads the export with `trust_remote_code=True` would otherwise be told that a file is missing.
    """
    for path in folder.glob("*.json"):
        written = json.loads(path.read_text(encoding="utf-8"))
        # The config of a shape of our own is inside another object.
        inside = [written, written.get("config")] if isinstance(written, dict) else []
        found = [(part, name) for part in inside if isinstance(part, dict) for name in CODE if name in part]
        for part, name in found:
            del part[name]
        if found:
            path.write_text(to_json(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
