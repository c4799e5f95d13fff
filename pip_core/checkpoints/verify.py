"""Proof that a written checkpoint loads in a fresh process and answers as the model in memory does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.accelerator import free_bytes
from ..core.device import number_name
from ..core.errors import UserError
from ..core.finite import check_finite
from ..core.fork_server import Process
from ..core.limits import limits, on_space
from ..core.paths import ROOT
from ..structure.streamed import is_streamed
from .load import Loaded
from .nonuniform import is_nonuniform

RELOAD_CHECK = Path(__file__).with_name("reload_check.py")
# A device has room for another model where it has so many times its weights, for what it computes.
ROOM = 1.5
# What another device rounds otherwise, as a multiple of what is allowed on the same one. Measured on a pruned
# SmolLM2-135M in bfloat16, on an H100 and on a processor: 1.8 times that.
ELSEWHERE = 4
# Middle of the name of the folder that a check works in, beside the checkpoint.
CHECK = ".check-"
PROBE_TOKENS = 48
GENERATED_TOKENS = 20
# Of a model that is read anew for every token.
STREAMED_TOKENS = 4
# Environment variable: seconds after which a check is killed. The default leaves a model of several
# billion parameters time on a slow processor.
LIMIT = "PIP_STUDIO_VERIFY_SECONDS"
# Seconds between two looks at the fresh process.
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Verdict:
    """What the fresh process found: the largest difference of logits, and how many tokens it generated."""

    largest_difference: float
    tokens: int
    seconds: float


def verify(loaded: Loaded, folder: Path, probe: str) -> Generator[float, None, Verdict]:
    """Load the checkpoint in `folder` in a fresh process that knows only transformers, and compare.

    The fresh process computes in the number format of the model in memory, on its device where that has room.
    Logits on the probe text must equal those in memory within the rounding of that format, and greedy
    generation must write the same tokens with and without the key-value cache (where two tokens are equally
    likely within that rounding, either will do). Whoever stops iterating (`close`) kills the process, so
    `core.progress.stoppable` makes this stoppable.

    Args:
        folder: as `export.write_checkpoint` wrote it.
        probe: text; its first 48 tokens are read.

    Yields:
        Seconds since the start, several times a second.

    Raises:
        UserError: the checkpoint does not load, answers differently, or takes longer than the time limit
            (`PIP_STUDIO_VERIFY_SECONDS`, by default 1800); or the model's logits are not finite.
    """
    started, limit = time.monotonic(), time_limit()
    ids = _probe_ids(loaded.tokenizer, probe)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids.to(loaded.model.device)).logits.float().cpu()
    check_finite(logits, "the pruned model's logits")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}{CHECK}") as place:
        probe_file = Path(place, "probe.safetensors")
        save_file({"ids": ids, "logits": logits}, probe_file)
        streamed = is_streamed(loaded.model)
        device = "" if streamed else _device_for(loaded.model)
        command = [
            *_check_of(folder, streamed),
            str(folder.resolve()),
            str(probe_file.resolve()),
            str(STREAMED_TOKENS if streamed else GENERATED_TOKENS),
            number_name(loaded.model.dtype),
            device,
        ]
        answer = yield from _run(command, Path(place), started, limit)
    scale = float(logits.abs().max())
    allowed = scale * (2**-6 if loaded.model.dtype.itemsize == 2 else 2**-14)
    if device and torch.device(device) != loaded.model.device:
        allowed *= ELSEWHERE
    if not answer["largest_difference"] <= allowed:
        raise UserError(
            f"The exported model answers differently: logits differ by {answer['largest_difference']:.2e} "
            f"(allowed {allowed:.2e}). It was not kept."
        )
    if not answer["cache_gap"] <= allowed:
        raise UserError(
            "The exported model generates other tokens with its key-value cache than without it. "
            "It was not kept."
        )
    return Verdict(answer["largest_difference"], int(answer["tokens"]), time.monotonic() - started)


def _device_for(model: PreTrainedModel) -> str:
    """Where the fresh process computes: where the model does, or on the processor where there is no room for
    another one beside it."""
    needed = ROOM * sum(weight.numel() * weight.element_size() for weight in model.parameters())
    places = {weight.device for weight in model.parameters()}
    if len(places) > 1 or model.device.type == "cpu" or free_bytes(model.device) < needed:
        return "cpu"
    return str(model.device)


def _check_of(folder: Path, streamed: bool) -> tuple[str, ...]:
    """What the fresh process runs. A model that is streamed has no room there either: it is read block by
    block again, with this project's loader."""
    if is_nonuniform(folder):
        return ("-m", "pip_core.checkpoints.nonuniform")
    return ("-m", "pip_core.checkpoints.streaming") if streamed else (str(RELOAD_CHECK),)


def time_limit() -> float:
    """Seconds that a verification may take.

    Raises:
        UserError: the environment variable holds no positive number.
    """
    return limits().verify_seconds


def start_check(command: Sequence[str], stdout: IO, stderr: IO) -> Process:
    """Python with the arguments `command`, in a fresh process."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,  # Ctrl-C is meant for the run, which then stops at its next step
    )


def _run(
    command: Sequence[str], place: Path, started: float, limit: float
) -> Generator[float, None, dict[str, float]]:
    """Run the check and return what it printed last, read as JSON."""
    # Files, not pipes: a full pipe would make the process wait for a reader.
    out, err = place / "out", place / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = start_check(command, stdout, stderr)
        try:
            while process.poll() is None:
                elapsed = time.monotonic() - started
                if elapsed > limit:
                    more = "Ask whoever runs this Space to" if on_space() else f"Set {LIMIT} to"
                    raise UserError(
                        f"The verification of the exported model took longer than {limit:.0f} s and was "
                        f"ended. {more} allow more, then resume the run."
                    )
                yield elapsed
                try:
                    process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    code = process.returncode or 0
    if code < 0:
        name = signal.Signals(-code).name
        raise UserError(
            f"The process that verifies the exported model was ended from outside ({name}), most likely "
            "because memory ran out, so the model was neither verified nor kept. Stop other programs, then "
            "resume the run."
        )
    if process.returncode:
        lines = err.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {process.returncode}"
        raise UserError(f"The exported model did not load in a fresh process: {reason}")
    return json.loads(out.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1])


def _probe_ids(tokenizer: PreTrainedTokenizerBase, probe: str) -> torch.Tensor:
    """Token ids of the probe text, int64, `(1, T)`."""
    ids: Sequence[int] = tokenizer(probe)["input_ids"][:PROBE_TOKENS]
    return torch.tensor([ids], dtype=torch.long)
