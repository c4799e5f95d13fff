"""Generate the pages that list what the code declares: run `python docs/generate.py`.

`recipe.md` and its schema come from the recipe's settings, `cli.md` from the options of the command line, the
variables and limits in `page-and-api.md` from `core.variables` and `core.limits`; the text around them is in
`docs/templates`. `tests/docs` generates the pages anew and compares.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
# Stages of other packages are documented elsewhere.
os.environ.pop("PIP_STUDIO_STAGES", None)

from pip_core.cli.commands import COMMANDS  # noqa: E402
from pip_core.cli.main import build  # noqa: E402
from pip_core.core import limits  # noqa: E402
from pip_core.core.recipe import DEMO, FORMAT, OURS, Recipe  # noqa: E402
from pip_core.core.settings import AUTO, SettingInfo  # noqa: E402
from pip_core.core.variables import VARIABLES  # noqa: E402
from pip_core.engine import stages  # noqa: E402, F401  (they own the settings)
from pip_core.engine.repeatable import COMMAND_OF_STAGE  # noqa: E402

NOTE = "<!-- Made by `python docs/generate.py`; do not edit. -->"
SETTING_HEAD = ("setting", "default", "takes", "meaning")
OPTION_HEAD = ("name", "default", "meaning")
LIMIT_HEAD = ("variable", "meaning", "default", "on a Space")
ANY_MODEL, ANY_METHOD = "OWNER/NAME", "sleb"


def recipe_page() -> str:
    """`recipe.md`: every setting, what `auto` stands for, and an example."""
    settings = groupby(Recipe.settings(), lambda info: info.stage_title)
    example = {"format": FORMAT, "model": "smollm2-135m", "method": OURS, "target": 0.2, "seed": 1}
    return _page(
        "recipe.md.j2",
        stages=[(title, _table(SETTING_HEAD, map(_setting_row, infos))) for title, infos in settings],
        auto=_auto_table(),
        example=json.dumps(example, indent=2),
    )


def schema_file() -> str:
    """`recipe.schema.json`."""
    return json.dumps(Recipe.schema(), indent=1) + "\n"


def cli_page() -> str:
    """`cli.md`: every command with its arguments and options; those of a recipe once, at the end."""
    commands, settings = [], []
    for function in COMMANDS:
        name = function.__name__
        command = build([name])[0].commands[name]
        shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        own = [p for p in shown if not getattr(p, "rich_help_panel", None)]
        rest = [p for p in shown if p not in own]
        if name in COMMAND_OF_STAGE:
            own, rest = [*own, *rest], []
        table = _table(OPTION_HEAD, map(_parameter_row, own)) if own else ""
        commands.append(
            {"name": name, "help": _line(command.help), "table": table, "takes_settings": bool(rest)}
        )
        settings = settings or rest
    by_stage = groupby(settings, lambda p: p.rich_help_panel)
    return _page(
        "cli.md.j2",
        commands=commands,
        with_settings=", ".join(f"`{c['name']}`" for c in commands if c["takes_settings"]),
        settings=[(title, _table(OPTION_HEAD, map(_parameter_row, found))) for title, found in by_stage],
    )


def page_page() -> str:
    """`page-and-api.md`: the page, its limits and its API."""
    rows = ((f"`{name}`", *row) for name, *row in limits.rows())
    others = ((f"`{name}`", *row) for name, *row in VARIABLES)
    return _page(
        "page-and-api.md.j2", variables=_table(LIMIT_HEAD[:3], others), limits=_table(LIMIT_HEAD, rows)
    )


def _page(template: str, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(note=NOTE, **values).rstrip() + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _setting_row(info: SettingInfo) -> tuple[str, ...]:
    return (f"`{info.name}`", _value(info.default), info.takes, info.doc)


def _auto_table() -> str:
    """What `auto` stands for, by model and method."""
    cases = {
        f"`{DEMO}`, `{OURS}`": Recipe(model=DEMO, method=OURS),
        f"`{DEMO}`, another method": Recipe(model=DEMO, method=ANY_METHOD),
        f"another model, `{OURS}`": Recipe(model=ANY_MODEL, method=OURS),
        "another model, another method": Recipe(model=ANY_MODEL, method=ANY_METHOD),
    }
    resolved = [i.name for i in Recipe.settings() if AUTO in (i.default, *_parts(i.default))]
    names = [n for n in resolved if any(AUTO not in (getattr(r, n),) for r in cases.values())]
    rows = [(f"`{n}`", *(_value(getattr(r, n)) for r in cases.values())) for n in names]
    return _table(("setting", *cases), rows)


def _parts(value: object) -> tuple:
    return value if isinstance(value, tuple) else ()


def _parameter_row(parameter) -> tuple[str, ...]:
    """A parameter of typer's."""
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
    default = "required" if parameter.required else _value(parameter.default)
    # The help of a setting ends with its default; its brackets are escaped for rich.
    text, found, after = _line(parameter.help).replace("\\[", "[").partition(" (default: ")
    if found and not default:
        default = f"`{after.removesuffix(')')}`"
    elif found:
        text += found + after
    return (", ".join(f"`{name}`" for name in names), default, text)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _value(value: object) -> str:
    """A value as it would be entered."""
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return ", ".join(f"`{part}`" for part in value)
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


PAGES = {
    "recipe.md": recipe_page,
    "recipe.schema.json": schema_file,
    "cli.md": cli_page,
    "page-and-api.md": page_page,
}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
