"""How much the demo model depends on which blocks go: PIP's choice against random ones.

`python -m benchmarks.demo.redundancy` removes blocks for a target of 20 % by a method, then as
many at random several times over, and measures all on the demo's tasks, whole. `--each` also
removes every single block by itself.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from transformers import AutoModelForCausalLM, AutoTokenizer

from pip_core import engine
from pip_core import events as ev
from pip_core.recipe import Recipe
from pip_core.stats import paired_difference, retained
from pip_core.surgery import remove_blocks
from pip_core.texts import ASSETS

from .grammar import KINDS


def recipe(method: str, target: float, seed: int, items: int = 0) -> Recipe:
    """A default run on the demo model, its tasks and its texts."""
    return Recipe(
        model=str(ASSETS / "models" / "demo"),
        method=method,
        target=target,
        seed=seed,
        calibration=str(ASSETS / "text" / "stories.txt"),
        heldout=str(ASSETS / "text" / "stories-heldout.txt"),
        tasks=tuple(str(ASSETS / "tasks" / f"stories-{kind}.jsonl") for kind in KINDS),
        items=items,
    )


def without(base: Recipe, blocks: Sequence[int]) -> ev.Evaluated:
    """The demo model measured without `blocks`."""
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForCausalLM.from_pretrained(base.model)
        remove_blocks(model, blocks)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base.model).save_pretrained(folder)
        return last(engine.evaluate(replace(base, model=folder)), ev.Evaluated)


def last(events, kind: type):
    """The last event of a kind.

    Raises:
        RuntimeError: the run failed, or held no such event.
    """
    found = None
    for event in events:
        if isinstance(event, ev.Failed):
            raise RuntimeError(str(event))
        found = event if isinstance(event, kind) else found
    if found is None:
        raise RuntimeError(f"no {kind.__name__} event")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo.redundancy", description=__doc__)
    parser.add_argument("--methods", default="pip-gate", help="names, comma-separated")
    parser.add_argument("--target", type=float, default=0.2)
    parser.add_argument("--draws", type=int, default=8, help="random removals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true", help="remove every single block by itself, too")
    given = parser.parse_args()

    base = recipe(given.methods.split(",")[0], given.target, given.seed)
    dense = last(engine.evaluate(base), ev.Evaluated)
    row("dense", (), dense, dense)
    methods = {}
    for method in given.methods.split(","):
        events = list(engine.run(replace(base, method=method)))
        methods[method] = last(events, ev.Evaluated)
        removed = last(events, ev.Finished).removed
        row(method, removed, dense, methods[method])
    rng = random.Random(given.seed)
    draws = []
    for draw in range(given.draws):
        blocks = tuple(sorted(rng.sample(range(dense.blocks), len(removed))))
        draws.append(without(base, blocks))
        row(f"random {draw + 1}", blocks, dense, draws[-1])
    if given.each:
        for block in range(dense.blocks):
            row("one alone", (block,), dense, without(base, (block,)))
    for method, result in methods.items():
        pairs = [paired_difference(draw, result) for draw in draws]
        gains = [gain for gain, _ in pairs]
        mean = sum(gains) / len(gains)
        spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / max(len(gains) - 1, 1) / len(gains))
        better = sum(gain > 2 * se for gain, se in pairs)
        print(
            f"\n{method} minus random, item by item: {mean * 100:+.1f} points ± {spread * 100:.1f} (one "
            f"standard error over {len(draws)} draws); beyond two paired standard errors in {better} of them."
        )


def row(name: str, blocks: Sequence[int], dense: ev.Evaluated, now: ev.Evaluated) -> None:
    each = " ".join(f"{t.accuracy * 100:.0f}" for t in now.tasks)
    print(
        f"| {name} | {' '.join(map(str, blocks)) or '-'} | {1 - now.parameters / dense.parameters:.1%} "
        f"| {now.perplexity:.2f} | {now.accuracy:.1%} ± {now.accuracy_se:.1%} "
        f"| {retained(dense, now):.0%} | {each} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
