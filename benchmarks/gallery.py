"""Make the gallery: finished runs that the page shows before anybody has made one.

`python -m benchmarks.gallery FOLDER` makes each run in FOLDER, unless it is there, and ships it without its
weights in `assets/gallery`. A run of SmolLM2-135M takes some minutes on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pip_core.core.paths import ASSETS, EVENTS, MODEL, RECIPE

# Folder -> name, and options of `prune`.
RUNS = {
    "blocks": (
        "Whole blocks by PIP-Gate",
        "--method pip-gate --units blocks --target 0.15 --windows 12 --no-refit --vocabulary 0",
    ),
    "channels": (
        "Channels and rare tokens by PIP-Gate",
        "--method pip-gate --units channels --target 0.15 --vocabulary 0.25 --step 0.04 --windows 12 "
        "--refit-tokens 6144",
    ),
    "influence": (
        "Whole blocks by Block Influence",
        "--method block-influence --units blocks --target 0.2 --windows 64 --no-refit --vocabulary 0",
    ),
}
# One prompt for all, so that their answers can be compared.
PROMPT = "Why is the sky blue? Answer in one sentence."
ALL = ["--model", "smollm2-135m", "--items", "40", "--speed", "on", "--sample", PROMPT]
# Of no interest once a run has ended.
UNSHIPPED = ("Progress", "Loading")
LARGEST = 500_000


def main(folder: Path) -> None:
    """Make and ship every run."""
    for name, (title, options) in RUNS.items():
        made = folder / name
        if not (made / MODEL).is_dir():
            command = [sys.executable, "-m", "pip_core", "prune", *ALL, *options.split(), "--out", str(made)]
            subprocess.run(command, check=True)
        ship(made, ASSETS / "gallery" / name, title)


def ship(made: Path, shipped: Path, title: str) -> None:
    """Copy a run without its weights and without what is only true of the machine that made it."""
    events = [json.loads(line) for line in (made / EVENTS).read_text(encoding="utf-8").splitlines()]
    events = [event for event in events if event["event"] not in UNSHIPPED]
    for event in events:
        if event["event"] == "Exported":
            event["path"] = MODEL
    text = "".join(json.dumps(event) + "\n" for event in events)
    if len(text) > LARGEST:
        raise SystemExit(f"{shipped.name} has {len(text):,} bytes, and may have {LARGEST:,}.")
    shipped.mkdir(parents=True, exist_ok=True)
    (shipped / EVENTS).write_text(text, encoding="utf-8")
    (shipped / RECIPE).write_text((made / RECIPE).read_text(encoding="utf-8"), encoding="utf-8")
    about = {"name": title, "created": events[0]["at"]}
    (shipped / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
