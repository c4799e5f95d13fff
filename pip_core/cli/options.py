"""One option for every setting of a recipe, made from the settings that the stages declare.

Nothing here names a stage or a setting: a stage that a plugin adds has its options by itself. A switch is
`--name/--no-name`; the forms `--name true`, `--name false` and `--name auto` are read too. Values are only
brought into their type here. Whether they are allowed is for the recipe to say, in its own sentence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..core.errors import UserError
from ..core.settings import AUTO, SettingInfo

Command = Callable[..., int]
# The parameter of a command that takes the settings given on its command line, name -> value.
GIVEN = "given"
SWITCH_VALUES: Mapping[str, bool | str] = {"true": True, "false": False, AUTO: AUTO}
METAVARS = {"whole": "<int>", "number": "<number>", "text": "<str>", "names": "A,B,...", "numbers": "1,2,..."}


def takes_settings(function: Command) -> bool:
    """Whether a command has the options of a recipe."""
    return GIVEN in inspect.signature(function).parameters


def with_settings(
    function: Command, settings: Sequence[SettingInfo], spelled_out: Mapping[str, object]
) -> Command:
    """A command with an option for each of `settings` in place of its parameter `given`.

    Args:
        spelled_out: values of switches that were written out, see `split_switches`.
    """
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != GIVEN]
    parameters = [*own, *(_parameter(info) for info in settings)]

    def command(**values: Any) -> int:
        texts = {info: values.pop(info.name) for info in settings}
        given = {info.name: read(info, text) for info, text in texts.items() if text is not None}
        return function(**values, given={**given, **spelled_out})

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def read(info: SettingInfo, value: bool | str) -> object:
    """What was given for a setting, in the setting's type; the text itself where it is not of that type."""
    if isinstance(value, bool):
        return value
    try:
        match info.kind:
            case "whole":
                return int(value)
            case "number" if info.share and value.endswith("%"):
                return round(float(value.removesuffix("%")) / 100, 10)
            case "number":
                return float(value)
            case "names":
                return names(value)
            case "numbers":
                return tuple(int(part) for part in names(value))
    except ValueError:
        pass
    return value


def names(text: str) -> tuple[str, ...]:
    """The parts of a list separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def split_switches(
    arguments: Sequence[str], settings: Sequence[SettingInfo]
) -> tuple[list[str], dict[str, object]]:
    """Take `--name true`, `--name=false` and the like out of a command line, for the settings that are
    switches.

    Returns:
        The other arguments, and the values by name of setting. Of several mentions of a switch the last
        counts, as for every option.

    Raises:
        UserError: another value after `--name=`.
    """
    switches = {info.option: info for info in settings if info.kind == "switch"}
    rest: list[str] = []
    values: dict[str, object] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            rest += [argument, *waiting]
            break
        option, equals, text = argument.partition("=")
        info = switches.get(option) or switches.get(option.replace("--no-", "--", 1))
        if info is None:
            rest.append(argument)
            continue
        mentions = (info.option, _negative(info))
        if not equals and option == info.option and waiting and waiting[0].lower() in SWITCH_VALUES:
            equals, text = "=", waiting.pop(0)
        rest = [other for other in rest if other not in mentions]
        values.pop(info.name, None)
        if not equals:
            rest.append(argument)
        elif option == info.option and text.lower() in SWITCH_VALUES:
            values[info.name] = SWITCH_VALUES[text.lower()]
        else:
            raise UserError(f"{info.label}: enter {info.takes}, not {text!r}.", info.name)
    return rest, values


def _negative(info: SettingInfo) -> str:
    return "--no-" + info.option.removeprefix("--")


def _shown(default: object) -> str:
    """A default as it would be entered."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _parameter(info: SettingInfo) -> inspect.Parameter:
    """A setting as the parameter of a function, in typer's terms."""
    default = _shown(info.default)
    annotation: Any
    known: dict[str, Any] = {"show_default": False, "rich_help_panel": escape(info.stage_title)}
    known["help"] = escape(f"{info.doc} (default: {default})" if default else info.doc)
    if info.kind == "switch":
        flags = f"{info.option}/{_negative(info)}"
        annotation = Annotated[bool | None, typer.Option(flags, **known)]
    else:
        known["metavar"] = "|".join(info.options) or METAVARS[info.kind]
        annotation = Annotated[str | None, typer.Option(info.option, **known)]
    return inspect.Parameter(info.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
