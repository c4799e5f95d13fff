"""Our answers against lm-evaluation-harness's, item by item, on the same rows and the same model.

    python -m benchmarks.parity --data FOLDER --limit 40

Two sets of rows: those of tests/fixtures/hub_rows (the Hub's schema, every standard task), and the real
ones in FOLDER (the project's own format). Float32. The exit code is 0 only when all predictions are
the same and no log-likelihood differs by more than 1e-3 nats.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pip_core.checkpoints.load import load
from pip_core.core.progress import drain
from pip_core.evaluation.evaluator import PageBatches, TaskBatches
from pip_core.evaluation.requests import Encoder, context_length
from pip_core.evaluation.standard_tasks import WIKITEXT
from pip_core.evaluation.tasks import load_task

from .harness import HUB_ROWS, NAMES, backend, harness_tasks, instances, read_lines, real_pages, real_rows

ALLOWED = 1e-3
HEAD = "| rows | task | items | same acc | same acc_norm | largest difference, nats |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, help="folder with real rows; without it only the written ones")
    parser.add_argument("--limit", type=int, default=40, help="real rows per task; 0 takes all (default: 40)")
    parser.add_argument("--pages", type=int, default=2, help="real WikiText pages (default: 2)")
    parser.add_argument("--context", type=int, help="the model's longest input (default: the model's own)")
    args = parser.parse_args()
    loaded = drain(load(args.model, "float32"))
    context = args.context or context_length(loaded.model.config, loaded.tokenizer)
    lm = backend(loaded.model, loaded.tokenizer, context, batch=8)
    encoder = Encoder(loaded.tokenizer, context)
    print(f"{args.model}, float32, context {context}\n\n{HEAD}\n|---|---|---|---|---|---|")
    sets = {name: (rows, rows) for name in NAMES for rows in [read_lines(HUB_ROWS / f"{name}.jsonl")]}
    good = _compare("written", sets, loaded.model, lm, encoder)
    if args.data:
        real = real_rows(args.data, args.limit)
        if pages := real_pages(args.data, args.pages):
            real[WIKITEXT] = pages, pages
        good &= _compare("real", real, loaded.model, lm, encoder)
    print("\nOf wikitext's documents the difference is per token.")
    print("All the same." if good else "\nThey differ.")
    return 0 if good else 1


def _compare(kind: str, sets: dict, model, lm, encoder: Encoder) -> bool:
    good = True
    theirs = harness_tasks({name: rows for name, (_, rows) in sets.items()})
    for name, (rows, _) in sets.items():
        task = theirs[name]
        made = instances(task)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
            ours = load_task(f"{name}={path}")
        if name == WIKITEXT:
            same, norm, most = _pages(ours, task, made, model, lm, encoder)
        else:
            same, norm, most = _items(ours, task, made, model, lm, encoder)
        norm_said = "-" if norm is None else f"{norm} of {len(made)}"
        print(
            f"| {kind} | {name} | {len(made)} | {same} of {len(made)} | {norm_said} | {most:.1e} |",
            flush=True,
        )
        good &= same == len(made) and norm in (None, len(made)) and most <= ALLOWED
    return good


def _items(ours, task, made, model, lm, encoder: Encoder) -> tuple[int, int | None, float]:
    """How many items have the same acc, the same acc_norm (None where the harness reports none), and the
    largest difference of a log-likelihood in nats."""
    batches = TaskBatches(ours, encoder)
    found = drain(batches.choices(model))
    result = batches.result(found)
    flat = iter(lm.loglikelihood([i for group in made for i in group], disable_tqdm=True))
    same, norm, most = 0, 0, 0.0
    has_norm = "acc_norm" in task._metric_fn_list
    hits = {result.metric: result.hits}
    for number, group in enumerate(made):
        answers = [next(flat) for _ in group]
        most = max(most, *(abs(a[0] - b[0]) for a, b in zip(answers, found[number], strict=True)))
        said = task.process_results(group[0].doc, answers)
        own = _own_answers(ours, number, found[number])
        same += own["acc"] == said["acc"]
        norm += has_norm and own["acc_norm"] == said["acc_norm"]
        # What is reported is what was just compared.
        assert hits[result.metric][number] == "01"[int(own[result.metric])]
    return same, norm if has_norm else None, most


def _own_answers(ours, number: int, found) -> dict[str, float]:
    item = ours.items[number]
    if ours.greedy:
        return {"acc": float(found[0][1])}
    values = [value for value, _ in found]
    weighed = [value / len(c) for value, c in zip(values, item.choices, strict=True)]
    return {
        "acc": float(values.index(max(values)) == item.gold),
        "acc_norm": float(weighed.index(max(weighed)) == item.gold),
    }


def _pages(ours, task, made, model, lm, encoder: Encoder) -> tuple[int, None, float]:
    """How many documents have the same likelihood; also the largest difference per token in nats."""
    batches = PageBatches(ours, encoder)
    found = drain(batches.documents(model))
    theirs = lm.loglikelihood_rolling([group[0] for group in made], disable_tqdm=True)
    tokens = [sum(len(r.targets) for r in encoder.windows(group[0].args[0])) for group in made]
    each = [abs(a - b) / n for a, b, n in zip(found, theirs, tokens, strict=True)]
    result = drain(batches.measure(model))
    said = [task.process_results(g[0].doc, (t,)) for g, t in zip(made, theirs, strict=True)]
    for metric, value in (
        ("word_perplexity", result.word_perplexity),
        ("byte_perplexity", result.byte_perplexity),
        ("bits_per_byte", result.bits_per_byte),
    ):
        whole = task.aggregation()[metric]([s[metric] for s in said])
        if abs(whole / value - 1) > ALLOWED:
            return 0, None, max(each)
    return sum(e <= ALLOWED for e in each), None, max(each)


if __name__ == "__main__":
    sys.exit(main())
