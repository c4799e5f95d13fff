"""What dividing a target costs: `python -m benchmarks.dividing --model MODEL` measures divisions alone.

For each target and seed it prints the division that was found, and the processor seconds of the scoring
pass, whose scores the first removal takes over, and of the rest of the division, in one process and one
thread. Nothing is removed.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import torch

from pip_core.core.events import Failed, Progress, Warned
from pip_core.core.recipe import Recipe
from pip_core.engine.run import run
from pip_core.engine.stages.divide import Divided


def divided(recipe: Recipe) -> tuple[Divided, Counter[str]]:
    """What a recipe's division came to, and the processor seconds of "scoring" and of "dividing".

    Raises:
        SystemExit: it failed.
    """
    spent = Counter[str]()
    before = time.process_time()
    for event in run(recipe):
        now = time.process_time()
        if isinstance(event, Failed):
            raise SystemExit(event.message)
        if isinstance(event, Warned):
            print(event.message)
        if isinstance(event, Progress):
            spent[event.stage] += now - before
        if isinstance(event, Divided):
            return event, spent
        before = now
    raise SystemExit("This recipe states how its target is divided.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    # Little is measured of the dense model, which has nothing to do with the division.
    little = {"tasks": ("sense",), "items": 4, "perplexity_windows": 1, "show_division": True}
    for target in asked.targets:
        for seed in asked.seeds:
            found, spent = divided(Recipe(model=asked.model, target=target, seed=seed, **little))
            scoring, dividing = spent["scoring"], spent["dividing"]
            print(f"Target {target:g}, seed {seed}: {found.goal}. {found.words()}")
            print(
                f"  Processor seconds: the scoring pass {scoring:.1f}, the rest {dividing:.1f}, which is "
                f"{dividing / scoring:.2f} scoring passes; counted in tokens and blocks {found.passes:.2f}.",
                flush=True,
            )


if __name__ == "__main__":
    main()
