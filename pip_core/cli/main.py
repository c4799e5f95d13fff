"""The command line: `pip-studio prune`, `resume`, `evaluate`, ... or `python -m pip_core prune`, ...

Exit codes: 0 the work is done (and the export verified), 1 a fault of this program or a stopped run, 2
something that the user can put right, said in one sentence on the standard error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from typer.core import TyperGroup

from ..core.environment import prepare_environment, quiet_libraries, several_launched
from ..core.errors import UserError
from ..core.settings import SettingInfo, option_of
from ..engine.repeatable import COMMAND_OF_STAGE
from .commands import COMMANDS
from .options import GIVEN, Command, split_switches, takes_settings, with_settings

HELP = "Make a language model smaller, and see what it costs."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, given its words (those of this process by default); returns the exit code."""
    prepare_environment()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _together(words) if several_launched() else _run(words)
    except UserError as error:
        option = f" The option is {option_of(error.setting)}." if error.setting else ""
        return _mistake(str(error) + option)
    except typer.TyperException as error:  # a mistake in the command line itself
        return _mistake(error.format_message().rstrip(".") + "." + _hint(error))
    except BrokenPipeError:
        # Nobody reads any more. Nothing must be written when the interpreter ends either.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from ..core.device import user_message

        if (message := user_message(error)) is None:
            raise
        return _mistake(message)


def _run(words: Sequence[str]) -> int:
    group, words = build(words)
    return group.main(words, prog_name=_program(), standalone_mode=False) or 0


def _together(words: Sequence[str]) -> int:
    """Run a command in the first of several processes; the others join in the runs that it begins."""
    from ..core.process_group import joined
    from ..engine.run import run
    from ..engine.together import dismiss, follow

    with joined() as processes:
        if not processes.first:
            quiet_libraries()
            follow(processes, run)
            return 0
        try:
            return _run(words)
        finally:
            dismiss(processes)


def given_settings(words: Sequence[str]) -> dict[str, object]:
    """The settings of a recipe that the words of a command give, by name; the command is not run.

    Raises:
        UserError: as `build`; `typer.TyperException` for other mistakes in the words.
    """
    given: dict[str, object] = {}

    def collected(function: Command) -> Command:
        @functools.wraps(function)
        def command(**values: object) -> int:
            given.update(values.get(GIVEN, {}))  # type: ignore[call-overload]
            return 0

        return command

    group, words = build(words, collected)
    group.main(words, standalone_mode=False)
    return given


def build(
    words: Sequence[str], prepared: Callable[[Command], Command] | None = None
) -> tuple[TyperGroup, list[str]]:
    """The commands, and the words without values of switches that are written out.

    Only the command that the words name has an option for each setting of a recipe: the stages own the
    settings and import torch, which takes seconds, and no other command's `--help` should wait for it.

    Args:
        prepared: makes of each command's function what is called; by default it silences the libraries first.

    Raises:
        UserError: a switch has a value that it does not take.
    """
    prepared = prepared or _quiet
    words = list(words)
    spelled_out: dict[str, object] = {}
    chosen = next((word for word in words if not word.startswith("-")), "")
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        help=HELP,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_nothing)
    for function in COMMANDS:
        settings: list[SettingInfo] = []
        if function.__name__ == chosen and takes_settings(function):
            settings = _settings(chosen if chosen in COMMAND_OF_STAGE else "")
            words, spelled_out = split_switches(words, settings)
        command = prepared(function)
        if takes_settings(function):
            command = with_settings(command, settings, spelled_out)
        app.command(function.__name__)(command)
    return typer.main.get_command(app), words  # type: ignore[return-value]


def _nothing() -> None:
    """What all commands share: nothing so far."""


def _settings(stage: str) -> list[SettingInfo]:
    """The settings of a stage; of all where none is named."""
    from ..core.recipe import Recipe
    from ..engine import stages  # noqa: F401 (they own the settings)

    return [info for info in Recipe.settings() if stage in ("", info.stage)]


def _quiet(function: Command) -> Command:
    """`function`, with the libraries silenced before it runs."""

    @functools.wraps(function)
    def command(**values: object) -> int:
        quiet_libraries()
        return function(**values)

    return command


def _program() -> str:
    """The words that started this program, for usage lines."""
    name = Path(sys.argv[0]).stem
    return name if name == "pip-studio" else "python -m pip_core"


def _hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" See '{context.command_path} --help'." if context else ""


def _mistake(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
