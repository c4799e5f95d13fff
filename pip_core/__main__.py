"""The command line: `python -m pip_core prune`, `resume`, `undo`, `evaluate`, ... (see `--help`).

Exit codes: 0 the work is done (and the export verified), 1 a fault of this program or a stopped
run, 2 something the user can put right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from . import events as ev
from .errors import UserError


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    _quiet_libraries()
    try:
        return args.do(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except Exception as error:
        from .engine import user_message

        if (message := user_message(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pip_core", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="what can be pruned from a model, from its config alone")
    inspect.add_argument("--model", required=True, help="model reference")
    inspect.add_argument("--target", type=float, default=0.2, help="share of all parameters (default: 0.2)")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(do=_inspect)

    prune = commands.add_parser("prune", help="prune a model and export it")
    prune.add_argument("--out", type=Path, required=True, help="folder of the run, new or empty")
    prune.add_argument("--recipe", type=Path, help="recipe.json to start from")
    _recipe_options(prune)
    prune.set_defaults(do=_prune)

    resume = commands.add_parser("resume", help="go on with a run that was stopped or killed")
    resume.add_argument("run", type=Path)
    resume.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    resume.set_defaults(do=lambda a: _work(a.run, True, a.launched))

    export = commands.add_parser("export", help="export a stopped run as pruned so far")
    export.add_argument("run", type=Path)
    export.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    export.set_defaults(do=lambda a: _work(a.run, False, a.launched))

    undo = commands.add_parser("undo", help="take the last removal back; what went then stays from there on")
    undo.add_argument("run", type=Path)
    undo.set_defaults(do=_undo)

    extend = commands.add_parser("extend", help="go on with a run to a deeper target")
    extend.add_argument("run", type=Path)
    extend.add_argument("--target", type=float, required=True, help="share of all parameters to remove")
    extend.set_defaults(do=_extend)

    fork = commands.add_parser("fork", help="a new run from a run's iteration on, with other settings")
    fork.add_argument("run", type=Path)
    fork.add_argument("--out", type=Path, required=True, help="folder of the new run, new or empty")
    fork.add_argument("--upto", type=int, help="iterations to take over (default: all)")
    _recipe_options(fork)
    fork.set_defaults(do=_fork)

    listed = commands.add_parser("runs", help="list the runs below a folder")
    listed.add_argument("root", type=Path, nargs="?", default=Path(os.environ.get("PIP_STUDIO_RUNS", "runs")))
    listed.add_argument("--json", action="store_true", help="print one JSON array")
    listed.set_defaults(do=_runs)

    evaluate = commands.add_parser("evaluate", help="measure a model")
    evaluate.add_argument("--model", required=True, help="model reference, or the folder of a run")
    evaluate.add_argument("--tasks", help="names, NAME=PATH or paths of files, comma-separated")
    evaluate.add_argument("--limit", type=int, default=0, help="items per task (default: all)")
    evaluate.add_argument("--heldout", help="text file for perplexity")
    evaluate.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(do=_evaluate)

    latency = commands.add_parser("latency", help="speed and memory of two models, measured in turn")
    latency.add_argument("--model", required=True, help="the pruned model: a reference, or a run's folder")
    latency.add_argument("--against", default="smollm2-135m", help="the dense model (default: %(default)s)")
    latency.add_argument("--prompt-tokens", type=int, default=256, help="default: %(default)s")
    latency.add_argument("--new-tokens", type=int, default=64, help="default: %(default)s")
    latency.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    latency.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    latency.add_argument("--json", action="store_true", help="print one JSON object")
    latency.set_defaults(do=_latency)

    bench = commands.add_parser("bench", help="time and memory of scoring, against the naive way")
    bench.add_argument("--model", default="smollm2-135m")
    bench.add_argument("--windows", type=int, default=16)
    bench.set_defaults(do=_bench)
    return parser


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    """One option per recipe field, named and documented as the field is."""
    from .recipe import Recipe

    for field in dataclasses.fields(Recipe):
        option = "--" + field.name.replace("_", "-")
        default = field.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        kind = _names if isinstance(default, tuple) else _yes if isinstance(default, bool) else type(default)
        kind = _numbers if field.name in ("keep", "drop") else kind
        parser.add_argument(
            option,
            type=kind,
            default=None,
            help=f"{field.metadata['doc']} (default: {shown})".replace("%", "%%"),
        )


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of block numbers, as in 3,17") from None


def _yes(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def _inspect(args: argparse.Namespace) -> int:
    from .preflight import inspect, report
    from .recipe import Recipe

    found = inspect(Recipe(model=args.model, target=args.target))
    print(json.dumps(dataclasses.asdict(found), indent=1) if args.json else report(found))
    return 0


def _prune(args: argparse.Namespace) -> int:
    from .engine import check
    from .recipe import Recipe
    from .runs import create, refuse_taken

    refuse_taken(args.out)
    base = Recipe()
    if args.recipe:
        try:
            text = args.recipe.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The recipe '{args.recipe}' cannot be read: {error}.") from None
        base = _recipe_from(text)
    recipe = dataclasses.replace(base, **_given(args))
    check(recipe)
    create(args.out, recipe)
    return _work(args.out, prune_on=True)


def _given(args: argparse.Namespace) -> dict:
    """The settings of a recipe that were given."""
    from .recipe import Recipe

    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe)}
    return {name: value for name, value in given.items() if value is not None}


def _recipe_from(text: str):
    """A recipe, or the `pip_recipe.json` of an exported model, which holds one."""
    from .recipe import Recipe

    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, dict) and isinstance(values.get("recipe"), dict):
        text = json.dumps(values["recipe"])
    return Recipe.from_json(text)


def _undo(args: argparse.Namespace) -> int:
    from .narrate import sentence
    from .runs import read_events, recipe_of, working
    from .steering import undo

    recipe_of(args.run)
    undo(args.run)
    if working(args.run):
        print("The worker stops, and takes the last removal back.")
        return 0
    taken = [e for e in read_events(args.run) if isinstance(e, ev.Undone)]
    print(sentence(taken[-1]))
    return 0


def _extend(args: argparse.Namespace) -> int:
    from .steering import extend

    extend(args.run, args.target)
    return _work(args.run, prune_on=True)


def _fork(args: argparse.Namespace) -> int:
    from .steering import fork

    fork(args.run, args.out, _given(args), args.upto, args.run.name)
    return _work(args.out, prune_on=True)


def _runs(args: argparse.Namespace) -> int:
    from .studio import Studio

    if not args.root.is_dir():
        raise UserError(f"There is no folder '{args.root}'.")
    found = Studio(args.root).listed(None)
    if args.json:
        print(json.dumps([dataclasses.asdict(i) for i in found], indent=1))
        return 0
    for info in found:
        kept = "" if info.kept is None else f", {info.kept:.0%} of the accuracy kept"
        gone = 1 - info.parameters / info.dense_parameters if info.dense_parameters else 0.0
        print(f"{info.id}  {info.state:<11}  {info.name}: {gone:.1%} removed{kept}")
    return 0


def _work(folder: Path, prune_on: bool, launched: bool = False) -> int:
    from .runs import request_stop, work

    # Ctrl-C and a polite kill stop the run as the Stop button does: what was decided is kept.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: request_stop(folder))
    *_, last = _shown(work(folder, prune_on, launched))
    if isinstance(last, ev.Failed):
        return 2
    return 0 if isinstance(last, ev.Finished) else 1


def _shown(stream: Iterator[ev.Event]) -> Iterator[ev.Event]:
    """Print events: one line each, or progress in place on a terminal."""
    from .narrate import sentence

    terminal = sys.stdout.isatty()
    for event in stream:
        passing = isinstance(event, ev.Progress | ev.Loading)
        if terminal:
            width = os.get_terminal_size().columns - 1
            text = sentence(event)
            print("\r\033[K" + (text[:width] if passing else text), end="" if passing else "\n", flush=True)
        elif isinstance(event, ev.Failed):
            print(f"error: {event.message}", file=sys.stderr, flush=True)
        else:
            print(sentence(event), flush=True)
        yield event


def _evaluate(args: argparse.Namespace) -> int:
    from .engine import evaluate
    from .narrate import sentence, task_words
    from .recipe import Recipe

    if args.limit < 0:
        raise UserError("The limit of items cannot be negative; leave it out to measure all.")
    changes = {"model": args.model, "dtype": args.dtype, "items": args.limit, "perplexity_windows": 0}
    if args.tasks:
        changes["tasks"] = _names(args.tasks)
    if args.heldout:
        changes["heldout"] = args.heldout
    for result in evaluate(dataclasses.replace(Recipe(), **changes)):
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


def _latency(args: argparse.Namespace) -> int:
    from .checkpoint import load
    from .latency import compare, table
    from .streams import drain

    dense, pruned = (drain(load(name, args.dtype)) for name in (args.against, args.model))
    found = drain(compare(dense, pruned, args.prompt_tokens, args.new_tokens, args.rounds))
    print(json.dumps(dataclasses.asdict(found), indent=1) if args.json else table(found))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from .bench import report

    print(report(args.model, args.windows))
    return 0


def _quiet_libraries() -> None:
    """Their progress bars and advice would tear our one line per event."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
