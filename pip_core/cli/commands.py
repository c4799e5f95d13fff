"""What the commands of the command line do; each returns its exit code (see `__main__`)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from ..core import events as ev
from ..core.errors import UserError


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def inspect(args: argparse.Namespace) -> int:
    from ..core.recipe import Recipe
    from ..planning.inspect_model import inspect_model, report

    found = inspect_model(Recipe(model=args.model, target=args.target))
    print(json.dumps(dataclasses.asdict(found), indent=1) if args.json else report(found))
    return 0


def prune(args: argparse.Namespace) -> int:
    from ..core.recipe import Recipe
    from ..engine.run import check
    from ..planning.estimate import resolve_auto_units
    from ..runs.run_directory import create, refuse_taken

    refuse_taken(args.out)
    base = Recipe()
    if args.recipe:
        try:
            text = args.recipe.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The recipe '{args.recipe}' cannot be read: {error}.") from None
        base = _recipe_from(text)
    given = _given(args)
    recipe = base.but(**given)
    if not args.recipe:
        recipe = resolve_auto_units(recipe, given)
    check(recipe)
    create(args.out, recipe)
    return work(args.out, prune_on=True)


def _given(args: argparse.Namespace) -> dict:
    """The settings of a recipe that were given."""
    from ..core.recipe import Recipe

    given = {name: getattr(args, name) for name in Recipe.describe()}
    return {name: value for name, value in given.items() if value is not None}


def _recipe_from(text: str):
    """A recipe, or the `pip_recipe.json` of an exported model, which holds one."""
    from ..core.recipe import Recipe

    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, dict) and isinstance(values.get("recipe"), dict):
        text = json.dumps(values["recipe"])
    return Recipe.from_json(text)


def _measured_before(model: str) -> dict:
    """What a run or an exported model of ours was measured on."""
    from ..checkpoints import export
    from ..runs import run_directory

    for name in (run_directory.RECIPE, export.RECIPE):
        if (path := Path(model) / name).is_file():
            recipe = _recipe_from(path.read_text(encoding="utf-8"))
            return {"tasks": recipe.tasks, "heldout": recipe.heldout}
    return {}


def undo(args: argparse.Namespace) -> int:
    from ..reporting.messages import sentence
    from ..runs.operations import undo
    from ..runs.run_directory import read_events, recipe_of, working

    recipe_of(args.run)
    undo(args.run)
    if working(args.run):
        print("The worker stops, and takes the last removal back.")
        return 0
    taken = [e for e in read_events(args.run) if isinstance(e, ev.RemovalUndone)]
    print(sentence(taken[-1]))
    return 0


def extend(args: argparse.Namespace) -> int:
    from ..runs.operations import extend

    extend(args.run, args.target)
    return work(args.run, prune_on=True)


def fork(args: argparse.Namespace) -> int:
    from ..runs.operations import fork

    fork(args.run, args.out, _given(args), args.upto, args.run.name)
    return work(args.out, prune_on=True)


def runs(args: argparse.Namespace) -> int:
    from ..runs.queue import RunQueue

    if not args.root.is_dir():
        raise UserError(f"There is no folder '{args.root}'.")
    found = RunQueue(args.root).listed(None)
    if args.json:
        print(
            json.dumps(
                [dataclasses.asdict(i) for i in found], indent=1, default=lambda recipe: recipe.to_dict()
            )
        )
        return 0
    for info in found:
        kept = "" if info.kept is None else f", {info.kept:.0%} of the accuracy kept"
        gone = 1 - info.parameters / info.dense_parameters if info.dense_parameters else 0.0
        print(f"{info.id}  {info.state:<11}  {info.name}: {gone:.1%} removed{kept}")
    return 0


def work(folder: Path, prune_on: bool, launched: bool = False, export: bool = True) -> int:
    from ..runs.run_directory import request_stop, work

    # Ctrl-C and a polite kill stop the run as the Stop button does: what was decided is kept.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: request_stop(folder))
    *_, last = _shown(work(folder, prune_on, launched, export))
    if isinstance(last, ev.Failed):
        return 2
    return 0 if isinstance(last, ev.Finished) else 1


def _shown(stream: Iterator[ev.Event]) -> Iterator[ev.Event]:
    for event in stream:
        _show(event)
        yield event


def _show(event: ev.Event) -> None:
    """Print an event: one line, or progress in place on a terminal."""
    from ..reporting.messages import sentence

    passing = isinstance(event, ev.Progress | ev.Loading)
    if sys.stdout.isatty():
        width = os.get_terminal_size().columns - 1
        text = sentence(event)
        print("\r\033[K" + (text[:width] if passing else text), end="" if passing else "\n", flush=True)
    elif isinstance(event, ev.Failed):
        print(f"error: {event.message}", file=sys.stderr, flush=True)
    else:
        print(sentence(event), flush=True)


def compare(args: argparse.Namespace) -> int:
    from ..comparing.results import collect, markdown, write
    from ..comparing.sweep import aligned, entries_from, read_plan, run_sweep
    from ..core.recipe import Recipe
    from ..runs.run_directory import request_stop

    if bool(args.methods) == bool(args.plan):
        raise UserError("Say what to compare: either --methods a,b,c or --plan plan.json.")
    given = _given(args)
    try:
        targets = [float(t) for t in args.targets or (given.pop("target", Recipe().target),)]
    except ValueError:
        raise UserError(f"Targets are shares between 0 and 1, not '{','.join(args.targets)}'.") from None
    plan = read_plan(args.plan) if args.plan else [{"label": m, "method": m} for m in args.methods]
    entries, label, last = aligned(entries_from(Recipe(), given, plan, targets)), "", None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: request_stop(args.out / label) if label else None)
    for name, last in run_sweep(args.out, entries, not args.no_export):
        if name != label:
            print(f"== {name}", flush=True)
            label = name
        _show(last)
    found = collect(args.out, entries)
    write(args.out, found)
    print("\n" + markdown(found), end="")
    return 1 if isinstance(last, ev.Stopped | ev.Paused) else 2 if found.missing else 0


def evaluate(args: argparse.Namespace) -> int:
    from ..core.recipe import Recipe
    from ..engine.evaluate import evaluate
    from ..reporting.messages import sentence, task_words

    if args.limit < 0:
        raise UserError("The limit of items cannot be negative; leave it out to measure all.")
    changes = {"model": args.model, "dtype": args.dtype, "items": args.limit, "perplexity_windows": 0}
    changes |= _measured_before(args.model)
    if args.tasks:
        changes["tasks"] = names(args.tasks)
    if args.heldout:
        changes["heldout"] = args.heldout
    for result in evaluate(Recipe(**changes)):
        if isinstance(result, ev.Skipped):
            print(sentence(result), file=sys.stderr, flush=True)
        if isinstance(result, ev.Loading | ev.Progress) and sys.stderr.isatty():
            print(f"\r\033[K{sentence(result)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(dataclasses.asdict(result), indent=1))
        return 0
    print(f"{args.model}: {result.parameters / 1e6:.1f}M parameters, {result.blocks} blocks")
    print(
        f"perplexity {result.perplexity:.2f} ± {result.perplexity_se:.2f} "
        f"({result.windows} windows of {result.window_tokens} tokens, stride {result.window_tokens})"
    )
    for text in result.texts:
        print(
            f"{text.name}: word perplexity {text.word_perplexity:.2f}, byte perplexity "
            f"{text.byte_perplexity:.4f} ({text.documents} documents, windows of {text.window} tokens, "
            f"stride {text.window})"
        )
    for task in result.tasks:
        print(f"{task.name:<14} {task.accuracy:6.1%} ± {task.se:.1%}  ({task_words(task)})")
    print(f"{'mean':<14} {result.accuracy:6.1%} ± {result.accuracy_se:.1%}")
    return 0


def latency(args: argparse.Namespace) -> int:
    from ..checkpoints.load import load
    from ..core.progress import drain
    from ..inspection.latency import compare_latency, table

    dense, pruned = (drain(load(name, args.dtype)) for name in (args.against, args.model))
    found = drain(compare_latency(dense, pruned, args.prompt_tokens, args.new_tokens, args.rounds))
    print(json.dumps(dataclasses.asdict(found), indent=1) if args.json else table(found))
    return 0


def bench(args: argparse.Namespace) -> int:
    from ..inspection.scoring_benchmark import report

    print(report(args.model, args.windows))
    return 0
