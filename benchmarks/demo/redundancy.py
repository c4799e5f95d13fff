"""How much the demo model depends on which blocks are removed: a method's choice against chance.

    python -m benchmarks.demo.redundancy --methods pip-gate,pip --draws 8 --each

Removes blocks for the target by each method, then as many at random several times over, and measures
all on the demo's tasks, whole. `--each` also removes every single block by itself.
"""

from __future__ import annotations

import argparse
import math

from pip_core.checkpoints.load import config_of
from pip_core.core import events as ev
from pip_core.core.recipe import END, Recipe
from pip_core.engine import run
from pip_core.evaluation.statistics import paired_comparison, retained

from .data import recipe

CHANCE = "random"
HEAD = (
    "| removed by | blocks, in order | parameters | perplexity | accuracy | kept above chance "
    "| guessing included | by task |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="pip-gate", help="names, comma-separated")
    parser.add_argument("--target", type=float, default=0.2)
    parser.add_argument("--draws", type=int, default=8, help="random removals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true", help="remove every single block by itself, too")
    args = parser.parse_args()

    base = recipe().replace(target=args.target, seed=args.seed, measure=END)
    print(f"{HEAD}\n|---|---|---|---|---|---|---|---|")
    named = {name: outcome(name, base.replace(method=name)) for name in args.methods.split(",")}
    draws = [outcome(f"chance, seed {s}", base.replace(method=CHANCE, seed=s)) for s in range(args.draws)]
    if args.each:
        blocks = config_of(base.model).num_hidden_layers
        for block in range(blocks):
            outcome("one alone", base.replace(target=1 / blocks, drop=(block,)))
    for name, result in named.items():
        pairs = [paired_comparison(draw, result).mean for draw in draws]
        mean = sum(p.difference for p in pairs) / len(pairs)
        spread = math.sqrt(sum((p.difference - mean) ** 2 for p in pairs) / (len(pairs) - 1) / len(pairs))
        better = sum(p.difference > 0 and not p.noise for p in pairs)
        print(
            f"\n{name} minus chance, on the same items: {mean * 100:+.1f} points ± {spread * 100:.1f} (one "
            f"standard error over {len(pairs)} draws); better than {better} of them beyond chance (p < 0.05)."
        )


def outcome(name: str, given: Recipe) -> ev.Evaluated:
    """What a run ends with; printed as a row.

    Raises:
        RuntimeError: the run failed.
    """
    found = list(run.run(given))
    for event in found:
        if isinstance(event, ev.Failed):
            raise RuntimeError(event.message)
    dense, *_, now = [e for e in found if isinstance(e, ev.Evaluated)]
    blocks = " ".join(str(b) for e in found if isinstance(e, ev.Removed) for b in e.blocks)
    each = " ".join(f"{t.accuracy * 100:.0f}" for t in now.tasks)
    kept = retained(dense, now)
    included = f"{kept.share:.0%} ± {kept.se:.0%}"
    above = "-"
    if kept.above_chance is not None:
        above = f"{kept.above_chance:.0%} ± {kept.above_chance_se or 0:.0%}"
    print(
        f"| {name} | {blocks} | -{1 - now.parameters / dense.parameters:.1%} | {now.perplexity:.2f} "
        f"| {now.accuracy:.1%} ± {now.accuracy_se:.1%} | {above} | {included} | {each} |",
        flush=True,
    )
    return now


if __name__ == "__main__":
    main()
