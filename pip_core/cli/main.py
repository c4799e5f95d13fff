"""The command line: `python -m pip_core prune`, `resume`, `undo`, `evaluate`, ... (see `--help`).

Exit codes: 0 the work is done (and the export verified), 1 a fault of this program or a stopped
run, 2 something the user can put right.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..cli import commands
from ..core.errors import UserError
from ..core.settings import AUTO


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
        from ..core.device import user_message

        if (message := user_message(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pip_core", description=__doc__.splitlines()[0])
    known = parser.add_subparsers(required=True, metavar="COMMAND")

    inspect = known.add_parser("inspect", help="what can be pruned from a model, from its config alone")
    inspect.add_argument("--model", required=True, help="model reference")
    inspect.add_argument("--target", type=float, default=0.2, help="share of all parameters (default: 0.2)")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(do=commands.inspect)

    prune = known.add_parser("prune", help="prune a model and export it")
    prune.add_argument("--out", type=Path, required=True, help="folder of the run, new or empty")
    prune.add_argument("--recipe", type=Path, help="recipe.json to start from")
    _recipe_options(prune)
    prune.set_defaults(do=commands.prune)

    resume = known.add_parser("resume", help="go on with a run that was stopped or killed")
    resume.add_argument("run", type=Path)
    resume.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    resume.add_argument("--no-export", action="store_true", help="prune and measure only")
    resume.set_defaults(do=lambda a: commands.work(a.run, True, a.launched, not a.no_export))

    export = known.add_parser("export", help="export a stopped run as pruned so far")
    export.add_argument("run", type=Path)
    export.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    export.set_defaults(do=lambda a: commands.work(a.run, False, a.launched))

    undo = known.add_parser("undo", help="take the last removal back; what went then stays from there on")
    undo.add_argument("run", type=Path)
    undo.set_defaults(do=commands.undo)

    extend = known.add_parser("extend", help="go on with a run to a deeper target")
    extend.add_argument("run", type=Path)
    extend.add_argument("--target", type=float, required=True, help="share of all parameters to remove")
    extend.set_defaults(do=commands.extend)

    fork = known.add_parser("fork", help="a new run from a run's iteration on, with other settings")
    fork.add_argument("run", type=Path)
    fork.add_argument("--out", type=Path, required=True, help="folder of the new run, new or empty")
    fork.add_argument("--upto", type=int, help="iterations to take over (default: all)")
    _recipe_options(fork)
    fork.set_defaults(do=commands.fork)

    listed = known.add_parser("runs", help="list the runs below a folder")
    listed.add_argument("root", type=Path, nargs="?", default=Path(os.environ.get("PIP_STUDIO_RUNS", "runs")))
    listed.add_argument("--json", action="store_true", help="print one JSON array")
    listed.set_defaults(do=commands.runs)

    compare = known.add_parser("compare", help="several methods under one recipe, side by side")
    compare.add_argument("--out", type=Path, required=True, help="folder of the comparison; goes on if begun")
    compare.add_argument(
        "--methods", type=commands.names, help="methods, comma-separated, each as it was published"
    )
    compare.add_argument("--plan", type=Path, help='JSON list of {"label": ..., any recipe setting: ...}')
    compare.add_argument(
        "--targets", type=commands.names, help="several targets, comma-separated: draws curves"
    )
    compare.add_argument("--no-export", action="store_true", help="prune and measure only")
    _recipe_options(compare)
    compare.set_defaults(do=commands.compare)

    evaluate = known.add_parser("evaluate", help="measure a model")
    evaluate.add_argument("--model", required=True, help="model reference, or the folder of a run")
    evaluate.add_argument("--tasks", help="names, NAME=PATH or paths of files, comma-separated")
    evaluate.add_argument("--limit", type=int, default=0, help="items per task (default: all)")
    evaluate.add_argument("--heldout", help="text file for perplexity")
    evaluate.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(do=commands.evaluate)

    latency = known.add_parser("latency", help="speed and memory of two models, measured in turn")
    latency.add_argument("--model", required=True, help="the pruned model: a reference, or a run's folder")
    latency.add_argument("--against", default="smollm2-135m", help="the dense model (default: %(default)s)")
    latency.add_argument("--prompt-tokens", type=int, default=256, help="default: %(default)s")
    latency.add_argument("--new-tokens", type=int, default=64, help="default: %(default)s")
    latency.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    latency.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    latency.add_argument("--json", action="store_true", help="print one JSON object")
    latency.set_defaults(do=commands.latency)

    bench = known.add_parser("bench", help="time and memory of scoring, against the naive way")
    bench.add_argument("--model", default="smollm2-135m")
    bench.add_argument("--windows", type=int, default=16)
    bench.set_defaults(do=commands.bench)
    return parser


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    """One option per recipe field, named and documented as the field is."""
    from ..core.recipe import Recipe
    from ..engine import stages  # noqa: F401  (they own the settings)

    kinds = {"switch": _yes, "number": _share, "whole": int, "text": str, "names": commands.names}
    for field in Recipe.settings():
        option, default = field.option, field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        kind = kinds.get(field.kind, _numbers)
        if kind is _yes:
            parser.add_argument(
                f"--no-{option.removeprefix('--')}", dest=field.name, action="store_false", default=None
            )
        parser.add_argument(
            option,
            type=kind,
            default=None,
            help=f"{field.doc} (default: {shown})".replace("%", "%%"),
        )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in commands.names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of block numbers, as in 3,17") from None


def _share(text: str) -> float | str:
    try:
        return AUTO if text == AUTO else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def _yes(text: str) -> bool | str:
    if text == AUTO:
        return text
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def _quiet_libraries() -> None:
    """Their progress bars and advice would tear our one line per event."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
