"""How much faster our evaluation is than lm-evaluation-harness's Hugging Face backend.

    python -m benchmarks.evaluation_speed --data FOLDER --limit 40

The same items, model in memory, number format, process and threads; both tokenise, pack and score.
The two take turns, in changing order; printed is the median of the paired ratios. The harness runs with
each batch size asked for, and the ratio that counts is the one to its fastest. Seconds are those of the
process's own processor time (--clock wall takes wall-clock time, for a machine without other work).
Also printed: how often the two predict the same, and how often bfloat16 predicts what float32 does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pip_core.checkpoints.load import load
from pip_core.core.device import fast_bfloat16
from pip_core.core.progress import drain
from pip_core.evaluation.evaluator import TaskBatches
from pip_core.evaluation.requests import Encoder, context_length
from pip_core.evaluation.tasks import Task, load_task

from .harness import backend, harness_tasks, instances, real_rows

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, required=True, help="folder with real rows")
    parser.add_argument("--limit", type=int, default=40, help="rows per task; 0 takes all (default: 40)")
    parser.add_argument("--repeats", type=int, default=3, help="paired repetitions (default: 3)")
    parser.add_argument("--batches", default="1,8", help="the harness's batch sizes (default: 1,8)")
    parser.add_argument("--dtypes", default="float32,bfloat16" if fast_bfloat16() else "float32")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = real_rows(args.data, args.limit)
    ours = {name: _task(name, own) for name, (own, _) in rows.items()}
    made = {n: instances(t) for n, t in harness_tasks({n: hub for n, (_, hub) in rows.items()}).items()}
    sizes = [int(size) for size in args.batches.split(",")]
    print(
        f"{args.model}, {args.threads} threads, {args.clock} time, {args.limit or 'all'} items a task, "
        f"{args.repeats} repetitions\n"
    )
    answers = {}
    for dtype in args.dtypes.split(","):
        answers[dtype] = _report(args.model, dtype, ours, made, sizes, args.repeats, CLOCKS[args.clock])
    if len(answers) == 2:
        first, second = answers.values()
        for name in ours:
            same = sum(a == b for a, b in zip(first[name], second[name], strict=True))
            print(f"{name}: {' and '.join(answers)} predict the same on {same} of {len(first[name])} items")
    return 0


def _task(name: str, rows: list[dict]) -> Task:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        return load_task(f"{name}={path}")


def _report(
    model: str,
    dtype: str,
    ours: dict,
    made: dict,
    sizes: list[int],
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, list]:
    """Print a table for one number format; per task our predictions (main metric)."""
    loaded = drain(load(model, dtype))
    encoder = Encoder(loaded.tokenizer, context_length(loaded.model.config, loaded.tokenizer))
    backends = {size: backend(loaded.model, loaded.tokenizer, encoder.context, size) for size in sizes}
    seconds: dict = {name: {who: [] for who in ("ours", *sizes)} for name in ours}
    predicted, same = {}, {}
    drain(TaskBatches(next(iter(ours.values())), encoder).choices(loaded.model))  # warm
    for turn in range(repeats):
        for name in ours:

            def measure(name: str = name) -> list:
                return drain(TaskBatches(ours[name], encoder).choices(loaded.model))

            def harness(size: int, name: str = name) -> list:
                flat = iter(
                    backends[size].loglikelihood([i for g in made[name] for i in g], disable_tqdm=True)
                )
                return [[next(flat) for _ in group] for group in made[name]]

            doers = [("ours", measure), *((size, lambda size=size: harness(size)) for size in sizes)]
            for who, do in doers if turn % 2 else doers[::-1]:
                took, found = _timed(do, clock)
                seconds[name][who].append(took)
                if who == "ours":
                    predicted[name] = _predictions(ours[name], found)
                else:
                    theirs = _predictions(ours[name], found)
            same[name] = sum(a == b for a, b in zip(predicted[name], theirs, strict=True))
    heads = " | ".join(f"harness, batch {s}" for s in sizes)
    print(
        f"| {dtype} | ours, s | {heads} | times faster | same predictions |\n"
        f"|---|---|{'---|' * (len(sizes) + 2)}"
    )
    whole = {who: [sum(seconds[n][who][t] for n in ours) for t in range(repeats)] for who in ("ours", *sizes)}
    for name, found in (*seconds.items(), ("all", whole)):
        fastest = min(sizes, key=lambda s: statistics.median(found[s]))
        ratios = [theirs / mine for theirs, mine in zip(found[fastest], found["ours"], strict=True)]
        times = " | ".join(f"{statistics.median(found[s]):.2f}" for s in sizes)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        agree = f"{same[name]} of {len(predicted[name])}" if name in same else ""
        print(
            f"| {name} | {statistics.median(found['ours']):.2f} | {times} | {spread} | {agree} |", flush=True
        )
    print()
    return predicted


def _timed(do: Callable[[], list], clock: Callable[[], float]) -> tuple[float, list]:
    began = clock()
    found = do()
    return clock() - began, found


def _predictions(task: Task, found: list) -> list:
    """Per item the choice (of the task's main metric), or whether the last word was written."""
    if task.greedy:
        return [answers[0][1] for answers in found]
    norm = task.metric == "acc_norm"
    chosen = []
    for item, answers in zip(task.items, found, strict=True):
        values = [v / (len(c) if norm else 1) for (v, _), c in zip(answers, item.choices, strict=True)]
        chosen.append(values.index(max(values)))
    return chosen


if __name__ == "__main__":
    sys.exit(main())
