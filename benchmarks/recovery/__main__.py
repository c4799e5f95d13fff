"""Published recipes beside ours: `python -m benchmarks.recovery --data FOLDER --out DIR`.

Every recipe removes 20 % of SmolLM2-135M's parameters, learns from the same tokens, which the dense model
wrote once, and is asked the same questions; README.md says what of each paper is reproduced. A bench that was
stopped goes on where it was when the same command is given again. `--only A,B` names recipes; one that ends
in `+tokens` removes the tokens that ours removes, and what is left to remove by its own method.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.recovery.learning import ATTENTION, MLP, Learning, Logits, Lora, Ours, Rows
from benchmarks.recovery.rivals import RIVALS, Bench
from pip_core.checkpoints.load import Loaded, load
from pip_core.core.accelerator import device
from pip_core.core.events import Evaluated, from_line, to_line
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.data.calibration import ROW_TOKENS, Calibration, CalibrationText
from pip_core.data.corpora import documents
from pip_core.engine import stages  # noqa: F401 (they own the settings of a recipe)
from pip_core.evaluation.evaluator import Evaluator, text_windows
from pip_core.evaluation.statistics import Change, changes, retained
from pip_core.evaluation.tasks import load_tasks
from pip_core.recovery.kept import Kept
from pip_core.recovery.material import Material
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset

MODEL, DTYPE, TARGET = "smollm2-135m", "bfloat16", 0.2
TASKS, WINDOWS, WINDOW_TOKENS = ("arc_easy", "lambada_openai", "piqa"), 12, 512
# Tokens that rivals solve by least squares on: as many as our refit reads.
SOLVED_ON = 49_152
OURS, DENSE, TOKENS = "ours", "dense", "+tokens"
# How each learns. Published rates are for a thousand steps and more; LoRA's is ten times that here, since in
# the thirty steps of the usual budget its updates, which begin at zero, would otherwise come to nothing.
LEARNING: dict[str, Learning | None] = {
    OURS: Ours(rate=1e-4),
    "llm-pruner": Lora(rank=8, alpha=16, modules=(*ATTENTION, *MLP), rate=1e-3),
    "deeper-layers": Lora(rank=8, alpha=8, modules=MLP, rate=3e-3),
    "minitron": Logits(rate=1e-4),
    "replace-me": None,
    "flap": None,
}
LABELS = tuple(f"{name}{tokens}" for tokens in (TOKENS, "") for name in LEARNING)


@dataclass(frozen=True)
class Place:
    """Where the bench reads and writes.

    Attributes:
        tokens: that are learnt from; `items` of each task are asked.
    """

    data: Path
    out: Path
    tokens: int
    items: int
    seed: int

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            model=MODEL, calibration="mixed", windows=16, window_tokens=128, dtype=DTYPE, seed=self.seed
        )

    def dense(self) -> Loaded:
        return drain(load(MODEL, DTYPE))

    def calibration(self, loaded: Loaded) -> Calibration:
        text = CalibrationText.read(self.recipe)
        return Calibration(text, self.recipe, loaded.tokenizer, loaded.context, device())

    def ours(self, tokens: bool) -> Loaded:
        """What our recipe has left, before it learns; it is made where it is not there."""
        folder = self.out / f"{OURS}{TOKENS if tokens else ''}-pruned"
        if not (folder / "model" / "config.json").exists():
            settings = {
                "model": MODEL,
                "dtype": DTYPE,
                "calibration": "mixed",
                "windows": "16",
                "window-tokens": "128",
                "target": str(TARGET),
                "seed": str(self.seed),
                "measure": "end",
                "items": "4",
                "perplexity-windows": "2",
                "out": str(folder),
            }
            settings |= {} if tokens else {"units": "channels", "vocabulary": "0"}
            words = [word for name, value in settings.items() for word in (f"--{name}", value)]
            subprocess.run([sys.executable, "-m", "pip_core", "prune", *words], check=True)
        return drain(load(str(folder / "model"), DTYPE))

    def subset(self, dense: Loaded) -> VocabularySubset:
        """The tokens that our recipe leaves."""
        left = self.ours(tokens=True).tokenizer
        names = left.convert_ids_to_tokens(list(range(len(left))))
        kept = torch.tensor(dense.tokenizer.convert_tokens_to_ids(names))
        return VocabularySubset(Vocabulary.of(dense.tokenizer, dense.config), kept)

    def text(self) -> dict[str, torch.Tensor]:
        """What the dense model wrote, and what is held out: `rows` and `watched`, int64 `(N, T)`."""
        path = self.out / f"text-{self.tokens}-seed{self.seed}.pt"
        if not path.exists():
            dense, material = self.dense(), Material(Material.USUAL, self.recipe)
            material.read(self.calibration(dense), self.tokens)
            kept = Kept(self.out, f"{self.tokens} {self.seed}")
            known = min(len(dense.tokenizer), dense.config.vocab_size)
            drain(material.write(dense.model, known, self.tokens, self.seed, kept))
            torch.save({"rows": material.rows, "watched": material.watched}, path)
        return torch.load(path)

    def ask(self, loaded: Loaded, subset: VocabularySubset | None, dense: Loaded) -> Evaluated:
        tasks = load_tasks([f"{name}={self.data / name}.jsonl" for name in TASKS], self.items)
        held = documents(str(self.data / "wikitext2_test.txt"), "held-out text")
        windows = text_windows(held, dense.tokenizer, WINDOW_TOKENS, WINDOWS)
        retokenize = None if subset is None else subset.retokenize
        evaluator = Evaluator(tasks, windows, loaded.tokenizer, loaded.model.config, retokenize)
        return drain(evaluator.measure(loaded.model, 0))


def rows_for(text: dict[str, torch.Tensor], subset: VocabularySubset | None, tokens: int) -> Rows:
    """The text as a model with these tokens reads it, `tokens` of it at most."""
    rows, watched = text["rows"][: tokens // ROW_TOKENS], text["watched"]
    if subset is None:
        return Rows(rows, rows, watched, watched, None)

    def read(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.cat([subset.retokenize(row) for row in part])
        new = ids[: len(part) * part.shape[1]].view(part.shape)
        return new, subset.kept[new]

    return Rows(*read(rows), *read(watched), subset.kept)


def _one(place: Place, label: str) -> tuple[Evaluated, str]:
    """Prune, let learn, ask; and what it took, in words."""
    name, tokens = label.removesuffix(TOKENS), label.endswith(TOKENS)
    dense = place.dense()
    if label == DENSE:
        return place.ask(dense, None, dense), ""
    subset = place.subset(dense) if tokens else None
    began = time.process_time()
    if name == OURS:
        loaded = place.ours(tokens)
    else:
        loaded = place.dense()
        calibration = place.calibration(loaded)
        total = sum(p.numel() for p in loaded.model.parameters())
        gone = (
            0 if subset is None else (loaded.config.vocab_size - len(subset.kept)) * loaded.config.hidden_size
        )
        rows = [part.to(device()) for part in calibration.rows(SOLVED_ON, ROW_TOKENS, "The bench needs text")]
        bench = Bench(loaded, calibration, rows, subset)
        RIVALS[name](bench, round(total * TARGET) - gone)
        if subset is not None:
            subset.apply(loaded.model)
            loaded = Loaded(
                loaded.model, subset.tokenizer(dense.tokenizer), loaded.source, loaded.stored, loaded.config
            )
    pruned = time.process_time() - began
    learning, words = LEARNING[name], f"{pruned:.0f} s of a processor to prune"
    if learning is not None:
        rows = rows_for(place.text(), subset, place.tokens)
        began = time.process_time()
        outcome = learning.learn(loaded.model, dense.model, rows, place.seed)
        words += f", {time.process_time() - began:.0f} s to learn"
        if outcome is not None:
            words += (
                f" (divergence on held-out text {outcome.start.heldout:.3f} to {outcome.best.heldout:.3f})"
            )
    return place.ask(loaded, subset, dense), words


def _told(change: Change) -> str:
    return f"{100 * change.difference:+.1f} ± {100 * change.se:.1f}"


def table(found: dict[str, tuple[Evaluated, str]]) -> Iterator[str]:
    """Rows of the table: what each keeps, and how far ours is from it, paired by question."""
    yield (
        "| recipe | parameters | perplexity | "
        + " | ".join(TASKS)
        + " | above chance | ours, points | takes |"
    )
    yield "|---" * (len(TASKS) + 6) + "|"
    dense = found[DENSE][0]
    for label, (one, words) in found.items():
        cells = [label, f"{1 - one.parameters / dense.parameters:.1%} fewer", f"{one.perplexity:.1f}"]
        cells += [f"{task.accuracy:.1%}" for task in one.tasks]
        kept = retained(dense, one)
        cells.append(f"{kept.above_chance or 0:.1%} ± {kept.above_chance_se or 0:.1%}")
        ours = OURS + (TOKENS if label.endswith(TOKENS) else "")
        paired = [
            f"{other}: {_told(changes(one, found[other][0])[0])}"
            for other in dict.fromkeys((OURS + TOKENS, ours))
            if other in found and other != label
        ]
        cells += ["; ".join(paired), words]
        yield "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="arc_easy.jsonl, piqa.jsonl, ...")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=30_720, help="tokens that are learnt from")
    parser.add_argument("--items", type=int, default=400, help="questions of each task, from the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(LABELS))
    args = parser.parse_args()
    if unknown := sorted(set(args.only) - set(LABELS)):
        parser.error(f"there is no recipe {', '.join(unknown)}: choose {', '.join(LABELS)}")
    place = Place(args.data.resolve(), args.out.resolve(), args.tokens, args.items, args.seed)
    place.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for label in (DENSE, *args.only):
        path = place.out / f"{label}-{args.tokens}-{args.items}-seed{args.seed}.jsonl"
        if not path.exists():
            one, words = _one(place, label)
            partial = path.with_suffix(".partial")
            partial.write_text(to_line(one, time.time()).rstrip("\n") + "\n" + words + "\n", encoding="utf-8")
            partial.replace(path)
        line, words = path.read_text(encoding="utf-8").splitlines()[:2] if path.exists() else ("", "")
        event, _ = from_line(line)
        assert isinstance(event, Evaluated)
        found[label] = event, words
        print("\n".join(table(found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
