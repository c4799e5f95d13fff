"""Writing the pruned model as an ordinary checkpoint, and proving that it loads.

The folder is made under another name and moved into place only after a fresh process, with nothing
but transformers, has loaded it and agreed with the model in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from ..core.errors import UserError
from ..core.paths import ROOT
from ..structure.shape import Shape
from ..structure.surgery import verify_config_matches
from .load import Loaded
from .nonuniform import is_nonuniform, save_nonuniform

# The recipe beside an exported model.
RECIPE = "pip_recipe.json"
RELOAD_CHECK = Path(__file__).with_name("reload_check.py")
PROBE_TOKENS = 48
GENERATED_TOKENS = 20
# Room left on the disk beyond the checkpoint's own size.
MARGIN_BYTES = 64 * 2**20
# Everybody who looks at a run asks for its zip at once, and one copy of it is enough to write.
_PACKING = threading.Lock()


@dataclass(frozen=True)
class Verdict:
    """What the fresh process found: the largest difference of logits, the tokens generated."""

    largest_difference: float
    tokens: int
    seconds: float


def write_checkpoint(
    loaded: Loaded, shape: Shape, folder: Path, card: str, recipe: dict, probe: str
) -> Verdict:
    """Write `loaded.model`, which has `shape`, to `folder` and verify it.

    A shape that a plain config can describe becomes an ordinary checkpoint; any other a folder that
    `pip_core.checkpoints.nonuniform` alone can load.

    Args:
        folder: must not exist, or hold an earlier export of the same run, which is replaced.
        card: the model card, markdown.
        recipe: written as `RECIPE`.
        probe: text whose logits are compared.

    Raises:
        UserError: no space, a config that cannot say what is left, or the written checkpoint does
            not load or answers differently.
    """
    model, uneven = loaded.model, shape.uneven() is not None
    if not uneven:
        verify_config_matches(model)
    needed = sum(p.numel() for p in model.parameters()) * loaded.stored.itemsize + MARGIN_BYTES
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f"The export needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free on the disk of "
            f"'{folder.parent}'. Make room, then resume the run; nothing decided is lost."
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # Weights alone: model.to() would also round the float32 buffers of rotary embeddings.
        for weight in model.parameters():
            weight.data = weight.data.to(loaded.stored)
        if uneven:
            save_nonuniform(model, loaded.config, shape, partial)
        else:
            model.save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
        if not uneven:
            _read_by_older_versions(partial, loaded.tokenizer)
        (partial / "README.md").write_text(card, encoding="utf-8")
        (partial / RECIPE).write_text(json.dumps(recipe, indent=1), encoding="utf-8")
        verdict = verify(loaded, partial, probe)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return verdict


def verify(loaded: Loaded, folder: Path, probe: str) -> Verdict:
    """Load `folder` in a fresh process that knows only transformers, and compare.

    Logits on the probe text must equal those of the model in memory within the rounding of the
    stored format, and greedy generation must write the same tokens with and without the key-value
    cache (where two tokens are equally likely within that rounding, either will do).

    Raises:
        UserError: it does not load, or answers differently.
    """
    started = time.monotonic()
    ids = _probe_ids(loaded.tokenizer, probe).to(loaded.model.device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids).logits.float().cpu()
    with_probe = folder.with_name(folder.name + ".probe.safetensors")
    try:
        save_file({"ids": ids.cpu(), "logits": logits}, with_probe)
        done = subprocess.run(
            [
                sys.executable,
                *(
                    ("-m", "pip_core.checkpoints.nonuniform")
                    if is_nonuniform(folder)
                    else (str(RELOAD_CHECK),)
                ),
                *(str(folder.resolve()), str(with_probe.resolve()), str(GENERATED_TOKENS)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            start_new_session=True,  # Ctrl-C is meant for the run, which stops at its next batch
        )
    finally:
        with_probe.unlink(missing_ok=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"The exported model did not load in a fresh process: {reason}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    scale = float(logits.abs().max())
    allowed = scale * (2**-6 if loaded.stored.itemsize == 2 else 2**-14)
    if not found["largest_difference"] <= allowed:
        raise UserError(
            f"The exported model answers differently: logits differ by {found['largest_difference']:.2e} "
            f"(allowed {allowed:.2e}). It was not kept."
        )
    if not found["cache_gap"] <= allowed:
        raise UserError(
            "The exported model generates other tokens with its key-value cache than without it. "
            "It was not kept."
        )
    return Verdict(found["largest_difference"], found["tokens"], time.monotonic() - started)


def zip_folder(folder: Path, target: Path) -> Path:
    """Pack `folder` into `target`, uncompressed (weights do not compress), streamed to disk.

    A `target` that is there already is taken as it is, unless the folder was written since. Of several
    threads that ask, one packs and the others wait for it.

    Raises:
        UserError: no space for it.
    """
    with _PACKING:
        if not _packed(folder, target):
            _pack(folder, target)
    return target


def _packed(folder: Path, target: Path) -> bool:
    return target.exists() and target.stat().st_mtime >= max(f.stat().st_mtime for f in folder.rglob("*"))


def _pack(folder: Path, target: Path) -> None:
    needed, free = folder_bytes(folder), shutil.disk_usage(target.parent).free
    if free < needed + MARGIN_BYTES:
        raise UserError(
            f"Packing the model needs {needed / 1e6:.0f} MB more and {free / 1e6:.0f} MB are free. Make "
            f"room, or take it unpacked from '{folder}'."
        )
    # Another process may be packing the same run, so the name is this one's own.
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, Path(folder.name) / path.relative_to(folder))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def folder_bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _probe_ids(tokenizer: PreTrainedTokenizerBase, probe: str) -> torch.Tensor:
    ids: Sequence[int] = tokenizer(probe)["input_ids"][:PROBE_TOKENS]
    return torch.tensor([ids], dtype=torch.long)


def _read_by_older_versions(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Also say a few settings the way transformers 4 and llama.cpp's converter read them.

    Without them an older reader would assume a rotary base of 10,000 and be wrong in silence, and its
    tokenizer would name inputs that `generate` refuses.
    """
    path = folder / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    rope = written.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        written.setdefault("rope_theta", rope["rope_theta"])
        if rope.get("rope_type", "default") != "default":
            written.setdefault("rope_scaling", {k: v for k, v in rope.items() if k != "rope_theta"})
    if "dtype" in written:
        written.setdefault("torch_dtype", written["dtype"])
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.exists():
        written = json.loads(path.read_text(encoding="utf-8"))
        if written.get("tokenizer_class") == "TokenizersBackend":
            written["tokenizer_class"] = "PreTrainedTokenizerFast"
        written.setdefault("model_input_names", tokenizer.model_input_names)
        path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
