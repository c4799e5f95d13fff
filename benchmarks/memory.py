"""Memory of a run whose model is in memory, and of one that reads it from disk block by block.

A random llama-like model of 1.1 billion parameters (bfloat16, 2.2 GB) loses one block: `pip-gate` over four
windows of 128 tokens, export and verification. The streamed run is held by a limit of the system: whatever
would take it beyond 1.2 GB of anonymous memory fails. Anonymous memory is what cannot be read from disk again
(`RssAnon` of /proc); weights in memory are mapped from their file where they are computed in its format, and
so stand in a column of their own. The fresh process that verifies the export is counted apart.

    python -m benchmarks.memory [--out FILE.json] [--layers 22] [--only streamed]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pip_core.checkpoints.reference import local_folder
from pip_core.core.device import peak_memory
from pip_core.core.events import Exported, Failed, Removed
from pip_core.core.recipe import DEMO, RESIDENT, STREAMED, Recipe
from pip_core.engine.run import run

LIMIT = 1.2e9
SAMPLE_SECONDS = 0.01
LAYERS = 22


def make(folder: Path, layers: int) -> None:
    """A random checkpoint, with the demo model's tokenizer."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f}B parameters", flush=True)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(local_folder(DEMO)).save_pretrained(folder)


def recipe_for(folder: Path, placement: str) -> Recipe:
    """One block, and as little measuring as a run can do."""
    return Recipe(
        model=str(folder),
        placement=placement,
        dtype="bfloat16",
        units=("blocks",),
        target=0.6 / AutoConfig.from_pretrained(folder).num_hidden_layers,
        windows=4,
        window_tokens=128,
        calibration="stories",
        heldout="stories-heldout",
        measure="end",
        tasks=("stories-who",),
        items=2,
        perplexity_windows=2,
        perplexity_tokens=64,
        refit=False,
        vocabulary=0.0,
    )


class Watch:
    """Largest anonymous memory of this process and of the ones it starts, in bytes."""

    def __init__(self) -> None:
        self.own = self.started = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(SAMPLE_SECONDS):
            self.own = max(self.own, anonymous(me.pid))
            for child in me.children(recursive=True):
                self.started = max(self.started, anonymous(child.pid))


def anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has ended
        return 0
    return 1024 * int(status.split("RssAnon:")[1].split()[0]) if "RssAnon:" in status else 0


def limit(most: float) -> None:
    """Let this process, and those it starts, take at most `most` bytes of anonymous memory (on Linux)."""
    # The system counts what is set aside and never used as well, such as the stacks of threads.
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    aside = 1024 * int(status.split("VmData:")[1].split()[0]) - anonymous(psutil.Process().pid)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (int(most + max(0, aside)), hard))


def measure(folder: Path, placement: str, out: Path) -> dict:
    """One run in this process."""
    before = anonymous(psutil.Process().pid)
    if placement == STREAMED:
        limit(LIMIT)
    watch, began, cpu, removed = Watch(), time.monotonic(), time.process_time(), ()
    for event in run(recipe_for(folder, placement), out):
        if isinstance(event, Failed):
            raise SystemExit(f"{event.stage}: {event.message}")
        if isinstance(event, Removed):
            removed = tuple(u.block for u in event.units)
        if isinstance(event, Exported):
            exported = event
    watch.end()
    return {
        "placement": placement,
        "libraries": before,
        "peak": watch.own,
        "with_files": peak_memory(),
        "verifying": watch.started,
        "seconds": time.monotonic() - began,
        "processor_seconds": time.process_time() - cpu,
        "removed": removed,
        "verified_to": exported.largest_difference,
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| placement | anonymous memory at its peak | of it libraries | with what is mapped from files "
        "| of the process that verifies | processor seconds | block removed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['placement']} | {row['peak'] / 1e6:,.0f} MB | {row['libraries'] / 1e6:,.0f} MB "
            f"| {row['with_files'] / 1e6:,.0f} MB | {row['verifying'] / 1e6:,.0f} MB "
            f"| {row['processor_seconds']:.0f} "
            f"| {', '.join(map(str, row['removed']))} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--out", type=Path, help="file for the figures as JSON")
    options.add_argument("--layers", type=int, default=LAYERS)
    options.add_argument("--only", choices=(RESIDENT, STREAMED))
    options.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.part:
        what, folder, out = given.part
        if what == "make":
            make(Path(folder), given.layers)
        else:
            print(json.dumps(measure(Path(folder), what, Path(out))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as place:
        own = [sys.executable, "-m", "benchmarks.memory", "--layers", str(given.layers), "--part"]
        subprocess.run([*own, "make", f"{place}/model", ""], check=True)
        for placement in [given.only] if given.only else [STREAMED, RESIDENT]:
            done = subprocess.run(
                [*own, placement, f"{place}/model", f"{place}/{placement}"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
