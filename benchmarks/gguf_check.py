"""Does an export convert to GGUF with llama.cpp's own converter, and mean the same model there?

`python benchmarks/gguf_check.py RUN [RUN ...]` fetches the source package `llama-cpp-python`, which
carries llama.cpp's `convert_hf_to_gguf.py` (nothing of it is compiled), converts the exported model
of every run, loads the GGUF file back with transformers and compares tokens and logits with the
export's. Needs benchmarks/requirements.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

PACKAGE = "llama-cpp-python==0.3.36"
TEXT = "The capital of France is Paris, and the river that runs through it is the"


def fetch_converter(folder: Path) -> Path:
    """The folder of llama.cpp's sources, out of the source package."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", PACKAGE]
    subprocess.run([*command, "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/vendor/llama.cpp"))


def convert(sources: Path, model: Path, target: Path) -> None:
    """Run the converter, in bfloat16."""
    script = sources / "convert_hf_to_gguf.py"
    paths = os.pathsep.join([str(sources / "gguf-py"), str(sources), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), str(model), "--outfile", str(target), "--outtype", "bf16"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{model}: the converter failed: {done.stderr.strip().splitlines()[-1]}")


def compare(model: Path, converted: Path) -> tuple[bool, float]:
    """Whether both tokenise alike, and the largest difference of their logits, in float32."""
    where, file = str(converted.parent), converted.name
    plain = AutoTokenizer.from_pretrained(model)(TEXT, return_tensors="pt")["input_ids"]
    other = AutoTokenizer.from_pretrained(where, gguf_file=file)(TEXT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        one = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(plain).logits
        two = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)(plain).logits
    return torch.equal(plain, other), float((one - two).abs().max())


def main(runs: list[str]) -> None:
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = fetch_converter(folder)
        for run in runs:
            model = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
            target = folder / "converted.gguf"
            convert(sources, model, target)
            alike, difference = compare(model, target)
            print(
                f"{run}: converted to {target.stat().st_size / 1e6:.0f} MB of GGUF; tokens "
                f"{'alike' if alike else 'DIFFER'}, logits differ by {difference:.2e} at most"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
