"""The benches of docs/results.md: `python -m benchmarks.quality --data FOLDER --out DIR` runs all of them.

Each bench is a plan of this folder, compared on one model, below DIR/NAME: every method at the same share of
parameters, its refit and its questions the same. `smollm2` and `gemma` ask questions with right and wrong
answers; `smollm2-writing` and `gemma-writing` look at what the models write, and at bits per byte. A bench
that was stopped goes on where it was when the same command is given again, and one that is finished prints
its table, and the differences between its first recipe and each other, paired by question and over all seeds
that are there. `--only A,B` names benches; what stands behind `--` (`-- --items 400`) holds for all their
runs.

Recipes were chosen on questions 1 to 300 and 801 to 1,100 of ARC-Easy, PIQA and LAMBADA; the bench asks
the others, 2,000 at most, and COPA, which nothing was chosen on. Calibration is the shipped domains, or
("WikiText too") as much again of WikiText-2's validation text; perplexity is that of WikiText-2's test text.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import gemma
from benchmarks.quality.seeds import measured
from pip_core.data.corpora import DOMAINS

HERE = Path(__file__).parent
DEVELOPED_ON = (range(300), range(800, 1100))
SPLIT = ("arc_easy", "piqa", "lambada_openai")
SETTINGS = {
    "target": "0.2",
    "windows": "16",
    "window-tokens": "128",
    "dtype": "bfloat16",
    "measure": "end",
    "items": "2000",
    "perplexity-windows": "12",
    "perplexity-tokens": "512",
}
# Documents of a text whose bits per byte are measured and that is continued, and the longest part of each.
DOCUMENTS, CHARACTERS = 24, 2000


def questions(data: Path, out: Path) -> list[str]:
    """Tasks of questions that nothing was chosen on; their files are written into `out`."""
    files = {"copa": data / "copa.jsonl"}
    for task in SPLIT:
        rows = (data / f"{task}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        files[task] = out / f"{task}.jsonl"
        others = (row for i, row in enumerate(rows) if not any(i in seen for seen in DEVELOPED_ON))
        files[task].write_text("".join(others), encoding="utf-8")
    return [f"{task}={files[task]}" for task in sorted(files)]


def writing(data: Path, out: Path) -> list[str]:
    """The tasks that are answered in writing, and held-back texts of several domains.

    The texts are articles of WikiText-2's test text, passages of novels (LAMBADA, those that nothing was
    chosen on), and the shipped held-out texts.
    """
    wiki = (data / "wikitext2_test.txt").read_text(encoding="utf-8")
    articles = re.split(r"^ = [^=].* = $", wiki, flags=re.MULTILINE)[1:]
    rows = [
        json.loads(row) for row in (data / "lambada_openai.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    novels = [row["context"] + row["continuation"] for row in rows[DEVELOPED_ON[-1].stop :]]
    texts = ["heldout", "stories-heldout"]
    for name, documents in (("wikitext", articles), ("novels", novels)):
        path = out / f"{name}.txt"
        parts = [document.strip()[:CHARACTERS] for document in documents[:DOCUMENTS]]
        path.write_text("\n\n\n".join(parts) + "\n", encoding="utf-8")
        texts.append(str(path))
    tasks = ["copying", "arithmetic", "following", *(f"bits={text}" for text in texts)]
    return [*tasks, "continue=heldout", f"continue={out / 'wikitext.txt'}"]


@dataclass(frozen=True)
class Bench:
    """One comparison.

    Attributes:
        model: makes the reference of the model, given a folder to fetch it into.
        tasks: makes the tasks, given the folder of the data and one for files.
        usual: whether it is run where none is named.
    """

    model: Callable[[Path], str]
    tasks: Callable[[Path, Path], list[str]]
    usual: bool = True


def _smollm2(place: Path) -> str:
    return "smollm2-135m"


def _gemma(place: Path) -> str:
    return str(gemma.fetch(place))


BENCHES = {
    "smollm2": Bench(_smollm2, questions),
    "gemma": Bench(_gemma, questions),
    "smollm2-writing": Bench(_smollm2, writing),
    "gemma-writing": Bench(_gemma, writing),
    # The plan of the first table of docs/results.md, whose split was made by hand.
    "smollm2-quarter": Bench(_smollm2, questions, usual=False),
}


def command(name: str, data: Path, out: Path, given: Sequence[str] = ()) -> list[str]:
    """A bench as a command.

    Args:
        given: options that hold for all its runs, in the place of the usual ones.
    """
    files = out / "data"
    files.mkdir(parents=True, exist_ok=True)
    calibration = "mix:" + ",".join(f"{domain}=1" for domain in DOMAINS)
    settings = {
        **SETTINGS,
        "model": BENCHES[name].model(files),
        "calibration": f"{calibration},{data / 'wikitext2_valid.txt'}={len(DOMAINS)}",
        "heldout": str(data / "wikitext2_test.txt"),
        "tasks": ",".join(BENCHES[name].tasks(data, files)),
        "plan": str(HERE / f"{name}.json"),
        "out": str(out / name),
    }
    words = [word for option, value in settings.items() for word in (f"--{option}", value)]
    return [sys.executable, "-m", "pip_core", "compare", *words, "--no-export", *given]


def measured_in(runs: Path, name: str) -> list[str]:
    """Labels of a plan whose first seed is measured to its end and to the same target as the first line; none
    where that line is not, to which the others are compared."""
    plan = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    same = [line for line in plan if line.get("target") == plan[0].get("target") and "seed" not in line]
    done = [line["label"] for line in same if measured(runs / line["label"])]
    return done if plan[0]["label"] in done else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="arc_easy.jsonl, piqa.jsonl, ...")
    parser.add_argument("--out", type=Path, required=True)
    usual = [name for name, bench in BENCHES.items() if bench.usual]
    parser.add_argument("--only", type=lambda names: names.split(","), default=usual)
    parser.add_argument("settings", nargs="*", help="behind --: options that hold for all runs")
    args = parser.parse_args()
    if unknown := sorted(set(args.only) - set(BENCHES)):
        parser.error(f"there is no bench {', '.join(unknown)}: choose {', '.join(BENCHES)}")
    worst = 0
    for name in args.only:
        asked = command(name, args.data.resolve(), args.out.resolve(), args.settings)
        code = subprocess.run(asked, check=False).returncode
        if code == 1:  # it was stopped
            return code
        if runs := measured_in(args.out / name, name):
            print(f"\n{name}: differences, paired by question", flush=True)
            compared = [
                sys.executable,
                "-m",
                "benchmarks.quality.seeds",
                "--runs",
                str(args.out / name),
                *runs,
            ]
            subprocess.run(compared, check=True)
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
