"""Make the gallery: finished runs that the page shows before anybody has made one.

`python -m benchmarks.gallery FOLDER` makes each run in FOLDER, where it can be resumed, and ships it without
its weights in `assets/gallery`. A run of SmolLM2-135M takes some minutes on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pip_core.core.paths import ASSETS

# Folder -> name, and options of `prune`.
RUNS = {
    "blocks": ("Whole blocks, PIP-Gate", ["--method", "pip-gate", "--units", "blocks"]),
    "channels": (
        "Channels and rare tokens, PIP-Gate",
        ["--method", "pip-gate", "--units", "channels", "--step", "0.03"],
    ),
    "influence": (
        "Whole blocks, Block Influence",
        ["--method", "block-influence", "--units", "blocks", "--no-refit", "--vocabulary", "0"],
    ),
}
ALL = ["--model", "smollm2-135m", "--target", "0.2", "--refit-tokens", "16384", "--speed", "on"]
# Of no interest once a run has ended.
UNSHIPPED = ("Progress", "Loading")
LARGEST = 500_000


def main(folder: Path) -> None:
    """Make and ship every run."""
    for name, (title, options) in RUNS.items():
        made = folder / name
        if not (made / "model").is_dir():
            command = [sys.executable, "-m", "pip_core", "prune", *ALL, *options, "--out", str(made)]
            subprocess.run(command, check=True)
        ship(made, ASSETS / "gallery" / name, title)


def ship(made: Path, shipped: Path, title: str) -> None:
    """Copy a run without its weights and without what is only true of the machine that made it."""
    shipped.mkdir(parents=True, exist_ok=True)
    lines, created = [], 0.0
    for line in (made / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        created = created or event["at"]
        if event["event"] in UNSHIPPED:
            continue
        if event["event"] == "Exported":
            event["path"] = "model"
        lines.append(json.dumps(event))
    text = "\n".join(lines) + "\n"
    assert len(text) < LARGEST, f"{shipped.name} has {len(text):,} bytes"
    assert str(Path.home()) not in text.replace("/root", "") or str(Path.home()) == "/root"
    (shipped / "events.jsonl").write_text(text, encoding="utf-8")
    recipe = (made / "recipe.json").read_text(encoding="utf-8")
    (shipped / "recipe.json").write_text(recipe, encoding="utf-8")
    about = {"name": title, "created": created}
    (shipped / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
