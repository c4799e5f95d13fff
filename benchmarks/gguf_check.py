"""Check that an export converts to GGUF with llama.cpp's own converter, and is the same model there.

`python -m benchmarks.gguf_check RUN [RUN ...]` fetches the source package `llama-cpp-python`, which
carries llama.cpp's `convert_hf_to_gguf.py` (nothing of it is compiled), and lets `pip_core` convert the
exported model of every run with it, load the GGUF file back and compare it with the export. Needs
benchmarks/requirements.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from transformers.utils import logging

from pip_core.checkpoints.gguf_export import VARIABLE, write_gguf
from pip_core.core.progress import drain
from pip_core.runs.files import MODEL
from pip_core.runs.run_directory import recipe_of

PACKAGE = "llama-cpp-python==0.3.36"


def fetch_converter(folder: Path) -> Path:
    """The folder of llama.cpp's sources, out of the source package."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", PACKAGE]
    subprocess.run([*command, "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/vendor/llama.cpp"))


def main(runs: list[str]) -> None:
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        os.environ[VARIABLE] = str(fetch_converter(Path(name)))
        for run in runs:
            target, dense = Path(name, "converted.gguf"), recipe_of(Path(run)).model
            made = drain(write_gguf(Path(run) / MODEL, target, dense))
            print(
                f"{run}: converted to {made.bytes / 1e6:.0f} MB of GGUF; tokens alike, logits differ from "
                f"those of the weights in float16 by {made.largest_difference:.2e} at most"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
