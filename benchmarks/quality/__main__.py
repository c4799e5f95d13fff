"""The bench: every method on SmolLM2-135M-Instruct, or another model, on real questions.

`python -m benchmarks.quality --data FOLDER --out DIR [--plan PLAN] [--model MODEL]` runs a plan of this
folder through `python -m pip_core compare`, and prints its table. A bench that was stopped goes
on where it was.

Recipes were chosen on questions 1 to 300 and 801 to 1,100 of ARC-Easy, PIQA and LAMBADA; the bench asks
the others, 2,000 at most, and COPA, which nothing was chosen on. Calibration is the shipped domains, or
("WikiText too") as much again of WikiText-2's validation text; perplexity is that of WikiText-2's test text.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from pip_core.data.corpora import DOMAINS

HERE = Path(__file__).parent
DEVELOPED_ON = (range(300), range(800, 1100))
SPLIT = ("arc_easy", "piqa", "lambada_openai")
SETTINGS = {
    "model": "smollm2-135m",
    "target": "0.2",
    "windows": "16",
    "window-tokens": "128",
    "dtype": "bfloat16",
    "measure": "end",
    "items": "2000",
    "perplexity-windows": "12",
    "perplexity-tokens": "512",
}


def split(data: Path, out: Path) -> dict[str, Path]:
    """Task -> a file of its questions that nothing was chosen on."""
    out.mkdir(parents=True, exist_ok=True)
    files = {"copa": data / "copa.jsonl"}
    for task in SPLIT:
        rows = (data / f"{task}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        files[task] = out / f"{task}.jsonl"
        others = (row for i, row in enumerate(rows) if not any(i in seen for seen in DEVELOPED_ON))
        files[task].write_text("".join(others), encoding="utf-8")
    return files


def command(data: Path, out: Path, plan: Path, model: str) -> list[str]:
    """The comparison as a command."""
    files = split(data, out / "data")
    calibration = "mix:" + ",".join(f"{name}=1" for name in DOMAINS)
    given = {
        **SETTINGS,
        "model": model,
        "calibration": f"{calibration},{data / 'wikitext2_valid.txt'}={len(DOMAINS)}",
        "heldout": str(data / "wikitext2_test.txt"),
        "tasks": ",".join(f"{task}={files[task]}" for task in sorted(files)),
        "plan": str(plan),
        "out": str(out / plan.stem),
    }
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "pip_core", "compare", *words, "--no-export"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="arc_easy.jsonl, piqa.jsonl, ...")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", type=Path, default=HERE / "plan.json")
    parser.add_argument(
        "--model", default=SETTINGS["model"], help="for Gemma 3 270M: what benchmarks.gemma prints"
    )
    args = parser.parse_args()
    data, out = args.data.resolve(), args.out.resolve()
    return subprocess.run(command(data, out, args.plan, args.model), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
