"""The commands: their own options, and what each does. Each returns its exit code, see `cli.main`.

The parameter `given` of some stands for an option per setting of a recipe, see `cli.options`. The engine is
imported when a command runs, so that `--help` need not wait for it.
"""

from __future__ import annotations

import dataclasses
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..core import events as ev
from ..core.errors import UserError
from ..core.figures import percent
from ..core.paths import PAGE
from ..engine.repeatable import COMMAND_OF_STAGE
from .gguf import gguf
from .options import Command, names
from .push import push
from .recipe_files import read_recipe
from .tokens import tokens

Settings = Mapping[str, object]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="folder of the run", show_default=False)]
NewFolder = Annotated[Path, typer.Option("--out", help="folder of the run, new or empty")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value, for programs", show_default=False)]
Export = Annotated[bool, typer.Option("--export/--no-export", help="export at the end, or only measure")]
On = Annotated[
    str,
    typer.Option(metavar="hf-job:HARDWARE", help="let a paid job on the Hub do the work", show_default=False),
]
# Set by the process that starts a worker, which has seen to earlier requests to stop.
Launched = Annotated[bool, typer.Option("--launched", hidden=True)]
# Besides, whether that process gives a visitor's token.
Lent = Annotated[bool, typer.Option("--lent", hidden=True)]
Dtype = Annotated[str, typer.Option(metavar="auto|float32|bfloat16", help="number format to compute in")]


def prune(
    out: NewFolder,
    given: Settings,
    recipe: Annotated[
        Path | None,
        typer.Option(help="recipe.json to start from, or the pip_recipe.json of an exported model"),
    ] = None,
    on: On = "",
) -> int:
    """Prune a model, measure it and export it."""
    from ..core.recipe import Recipe
    from ..data.preview import beginnings
    from ..engine.run import check
    from ..planning.estimate import resolve_auto_units
    from ..runs.run_directory import create, refuse_taken

    refuse_taken(out)
    made = read_recipe(recipe).but(**given) if recipe else resolve_auto_units(Recipe().but(**given), given)
    context = check(made)
    create(out, context.recipe)
    for line in beginnings(context.calibration_text):
        print(line, flush=True)
    return work(out, prune_on=True, on=on)


def resume(
    run: RunFolder, export: Export = True, on: On = "", launched: Launched = False, lent: Lent = False
) -> int:
    """Continue a run that was stopped or killed."""
    return work(run, True, launched, export, lent, on)


def export(run: RunFolder, on: On = "", launched: Launched = False, lent: Lent = False) -> int:
    """Export a stopped run with the units that it has removed so far."""
    return work(run, False, launched, lent=lent, on=on)


def undo(run: RunFolder) -> int:
    """Undo the last removal; its units are kept from then on."""
    from ..reporting.messages import sentence
    from ..runs.operations import undo
    from ..runs.recorded import read_events
    from ..runs.run_directory import recipe_of
    from ..runs.worker import working

    recipe_of(run)
    undo(run)
    if working(run):
        print("The worker stops and undoes the last removal.")
        return 0
    undone = [e for e in read_events(run) if isinstance(e, ev.RemovalUndone)]
    print(sentence(undone[-1]))
    print(f"Go on with `pip-studio resume {run}`, or export it as it is now with `pip-studio export {run}`.")
    return 0


def extend(
    run: RunFolder, target: Annotated[float, typer.Option(help="share of all parameters to remove")]
) -> int:
    """Continue a run to a larger target."""
    from ..runs.operations import extend

    extend(run, target)
    return work(run, prune_on=True)


def command_of_stage(name: str, words: str) -> Command:
    """The command that does a stage, or does it anew, in a run whose removals are made."""

    def command(run: RunFolder, given: Settings) -> int:
        from ..runs.operations import repeat

        repeat(run, name, given)
        return work(run, prune_on=False)

    command.__name__, command.__doc__ = name, words
    return command


def fork(
    run: RunFolder,
    out: NewFolder,
    given: Settings,
    upto: Annotated[
        int | None,
        typer.Option(help="iterations of the old run to begin with (default: all)"),
    ] = None,
) -> int:
    """Start a new run from an iteration of another, with other settings."""
    from ..runs.operations import fork

    fork(run, out, dict(given), upto, run.name)
    return work(out, prune_on=True)


def runs(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", envvar="PIP_STUDIO_RUNS", help="folder of the runs")
    ] = Path("runs"),
    as_json: Json = False,
) -> int:
    """List the runs in a folder."""
    from ..runs.queue import RunQueue
    from ..runs.worker import UNREADABLE

    if not root.is_dir():
        raise UserError(f"There is no folder '{root}'.")
    listed = RunQueue(root).everybodys()
    if as_json:
        print(_json([dataclasses.asdict(run) for run in listed]))
        return 0
    for run in listed:
        if run.state in UNREADABLE:
            print(f"{run.id}  {run.state:<11}  cannot be read: `pip-studio resume {root / run.id}` says why")
            continue
        kept = "" if run.kept is None else f", {percent(run.kept, 0)} kept above chance"
        removed = 1 - run.parameters / run.dense_parameters if run.dense_parameters else 0.0
        print(f"{run.id}  {run.state:<11}  {run.name}: {percent(removed)} removed{kept}")
    return 0


def inspect(
    model: Annotated[str, typer.Option(help="model reference: a name, a folder or a Hub id")],
    target: Annotated[float, typer.Option(help="share of all parameters to remove")] = 0.2,
    as_json: Json = False,
) -> int:
    """Say what can be pruned from a model, from its config alone."""
    from ..planning.inspect_model import inspect_reference, report

    inspection = inspect_reference(model, target)
    print(_json(dataclasses.asdict(inspection)) if as_json else report(inspection))
    return 0


def compare(
    out: Annotated[Path, typer.Option(help="folder of the comparison; continued if it exists")],
    given: Settings,
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="methods, each with the settings of its publication")
    ] = "",
    plan: Annotated[
        Path | None,
        typer.Option(help='instead: a JSON list of {"label": ..., any setting of a recipe: ...}'),
    ] = None,
    targets: Annotated[
        str, typer.Option(metavar="A,B,...", help="several targets; draws a curve for each method")
    ] = "",
    twice: Annotated[
        bool,
        typer.Option(
            "--before-and-after",
            help="each method before and after what could be done later too, such as recovery",
            show_default=False,
        ),
    ] = False,
    export: Export = True,
) -> int:
    """Prune a model by several methods, and compare what they keep."""
    from ..comparing.compare import check_either, entries_for
    from ..comparing.results import collect, markdown, write
    from ..comparing.sweep import read_plan, run_sweep
    from .display import Display

    check_either(methods, plan)
    try:
        shares = [float(target) for target in names(targets)]
    except ValueError:
        raise UserError(f"Targets are shares between 0 and 1, not '{targets}'.") from None
    entries = entries_for(names(methods), read_plan(plan) if plan else (), shares, given, twice)
    label, last = "", None
    _stop_on_signals(lambda: out / label if label else None)
    with Display() as display:
        for name, last in run_sweep(out, entries, export):
            if name != label:
                display.line(f"== {name}")
                label = name
            display.show(last)
    results = collect(out, entries)
    write(out, results)
    print("\n" + markdown(results), end="")
    return 1 if isinstance(last, ev.Stopped | ev.Paused) else 2 if results.missing else 0


def evaluate(
    model: Annotated[str, typer.Option(help="model reference, or the folder of a run")],
    tasks: Annotated[
        str, typer.Option(metavar="A,B,...", help="names, NAME=PATH or paths of files", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option(help="items per task; 0 means all")] = 0,
    heldout: Annotated[
        str, typer.Option(help="text for perplexity: a name or a file", show_default=False)
    ] = "",
    perplexity_windows: Annotated[
        int, typer.Option(min=0, help="windows of the held-out text; 0 means all")
    ] = 0,
    perplexity_tokens: Annotated[int, typer.Option(min=8, help="tokens per window")] = 256,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> int:
    """Measure a model: perplexity, and accuracy on tasks."""
    from ..core.recipe import Recipe
    from ..engine.evaluate import evaluate
    from ..reporting.messages import sentence
    from .display import Display

    if limit < 0:
        raise UserError("The limit of items cannot be negative; leave it out to measure all.")
    settings = {"model": model, "dtype": dtype, "items": limit}
    settings |= {"perplexity_windows": perplexity_windows, "perplexity_tokens": perplexity_tokens}
    settings |= _measured_with(model)
    settings |= {"tasks": names(tasks)} if tasks else {}
    settings |= {"heldout": heldout} if heldout else {}
    result = None
    with Display(sys.stderr, passing_only=True) as display:
        for event in evaluate(Recipe(**settings)):
            display.show(event)
            if isinstance(event, ev.Skipped):
                display.line(sentence(event))
            elif isinstance(event, ev.Evaluated):
                result = event
    assert result, "the stream ends with Evaluated"
    print(_json(dataclasses.asdict(result)) if as_json else _table(model, result))
    return 0


def latency(
    model: Annotated[str, typer.Option(help="the pruned model: a reference, or the folder of a run")],
    against: Annotated[str, typer.Option(help="the dense model")] = "smollm2-135m",
    prompt_tokens: Annotated[int, typer.Option(min=1, help="length of the prompt, in tokens")] = 256,
    new_tokens: Annotated[int, typer.Option(min=1, help="tokens to generate")] = 64,
    rounds: Annotated[int, typer.Option(min=2, help="times that both are measured in turn")] = 7,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> int:
    """Compare speed and memory of two models, measured in turn."""
    from ..checkpoints.load import load
    from ..core.progress import drain
    from ..inspection.latency import compare_latency, table

    dense, pruned = (drain(load(name, dtype)) for name in (against, model))
    found = drain(compare_latency(dense, pruned, prompt_tokens, new_tokens, rounds))
    print(_json(dataclasses.asdict(found)) if as_json else table(found))
    return 0


def bench(
    model: Annotated[str, typer.Option(help="model reference")] = "smollm2-135m",
    windows: Annotated[int, typer.Option(min=1, help="calibration windows of 128 tokens")] = 16,
) -> int:
    """Measure time and memory of scoring, against the formula computed naively."""
    from ..engine.scoring_benchmark import report

    print(report(model, windows))
    return 0


def app() -> int:
    """Start the page in the browser; `python app.py --help` lists the environment variables that it takes."""
    sys.argv[1:] = []  # those of this command
    runpy.run_path(str(PAGE), run_name="__main__")
    return 0


# In the order of `--help`.
COMMANDS: tuple[Command, ...] = (
    prune,
    resume,
    export,
    undo,
    extend,
    *(command_of_stage(name, words) for name, words in COMMAND_OF_STAGE.items()),
    fork,
    push,
    gguf,
    tokens,
    runs,
    inspect,
    compare,
    evaluate,
    latency,
    bench,
    app,
)


def work(
    folder: Path,
    prune_on: bool,
    launched: bool = False,
    export: bool = True,
    lent: bool = False,
    on: str = "",
) -> int:
    """Work on a run in this process, and print its events."""
    from ..core.network import working_for
    from ..runs.jobs import hardware_of, on_hub
    from ..runs.run_directory import work
    from ..runs.worker import lent_token
    from .display import Display

    _stop_on_signals(lambda: folder)
    last = None
    token = lent_token() if lent else ""
    engine = on_hub(hardware_of(on), token) if on else None
    with working_for(token), Display() as display:
        for last in work(folder, prune_on, launched, export, engine=engine):
            display.show(last)
    if isinstance(last, ev.Failed):
        return 2
    return 0 if isinstance(last, ev.Finished) else 1


def _stop_on_signals(folder: Callable[[], Path | None]) -> None:
    """Let Ctrl-C and SIGTERM stop a run as the Stop button does, so that what was decided is kept.

    Args:
        folder: the run that is under way now, if any.
    """
    from ..runs.run_directory import request_stop

    def stop(*_: object) -> None:
        if place := folder():
            request_stop(place)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _measured_with(model: str) -> dict:
    """Tasks and held-out text that a run, or a model exported by one, was measured with."""
    from ..checkpoints import export
    from ..runs import files

    for name in (files.RECIPE, export.RECIPE):
        if (path := Path(model) / name).is_file():
            recipe = read_recipe(path)
            return {"tasks": recipe.tasks, "heldout": recipe.heldout}
    return {}


def _json(value: object) -> str:
    """JSON that every reader accepts; recipes in it become objects of settings."""
    from ..core.finite import to_json

    return to_json(value, indent=1, default=lambda recipe: recipe.to_dict())


def _table(model: str, result: ev.Evaluated) -> str:
    from ..reporting.messages import describe_perplexity, describe_task, plus_minus

    lines = [
        f"{model}: {result.parameters / 1e6:.1f}M parameters, {result.blocks} blocks",
        f"perplexity {describe_perplexity(result)} "
        f"({result.windows} windows of {result.window_tokens} tokens, stride {result.window_tokens})",
    ]
    lines += [
        f"{text.name}: word perplexity {text.word_perplexity:,.2f}, byte perplexity "
        f"{text.byte_perplexity:,.4f}, {text.bits_per_byte:.3f} bits per byte ({text.documents} documents, "
        f"windows of {text.window} tokens, stride {text.window})"
        for text in result.texts
    ]
    lines += [
        f"{w.name}: {plus_minus(w.repeated, w.se)} repeated ({w.texts} texts, {w.tokens} tokens each)"
        for w in result.writing
    ]
    lines += [
        f"{task.name:<14} {plus_minus(task.accuracy, task.se):>16}  ({describe_task(task)})"
        for task in result.tasks
    ]
    return "\n".join([*lines, f"{'mean':<14} {plus_minus(result.accuracy, result.accuracy_se):>16}"])
