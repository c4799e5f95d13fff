"""Generate the pages of the documentation that list what the code declares: run `python docs/generate.py`.

`recipe.md` comes from the recipe's own settings and JSON schema, `cli.md` from the command line's own options.
`tests/docs` generates them anew and compares.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
# Stages of other packages are documented elsewhere.
os.environ.pop("PIP_STUDIO_STAGES", None)

from pip_core.cli.commands import COMMANDS  # noqa: E402
from pip_core.cli.main import build  # noqa: E402
from pip_core.core.recipe import DEMO, OURS, Recipe  # noqa: E402
from pip_core.core.settings import AUTO, SettingInfo  # noqa: E402
from pip_core.engine import stages  # noqa: E402, F401  (they own the settings)

NOTE = "<!-- Made by `python docs/generate.py`; do not edit. -->\n"
ANY_MODEL, ANY_METHOD = "OWNER/NAME", "flap"


def recipe_page() -> str:
    """`recipe.md`: every setting, what `auto` stands for, and an example."""
    lines = [
        "# Recipe",
        "",
        NOTE,
        "A recipe is everything that decides a run's outcome: the same recipe removes the same units. It is a flat JSON",
        "object; each stage of a run owns some of its settings. `python -m pip_core prune --recipe FILE --out RUN` takes one,",
        "every setting is also an option of the [command line](cli.md), and the [API](page-and-api.md#api) takes the",
        "settings that are not the usual ones. A run writes its own to `recipe.json`, an export to `pip_recipe.json`.",
        "",
        "A setting that no recipe has, a value of the wrong type or out of range is refused with a sentence that names the",
        "setting and what it takes. `format` is the version of this form; a recipe without it was written by version 0.1.",
        "The same as a JSON schema: [recipe.schema.json](recipe.schema.json).",
        "",
    ]
    for title, settings in groupby(Recipe.settings(), lambda s: s.stage_title):
        lines += [f"## {title}", "", "| setting | default | takes | meaning |", "|---|---|---|---|"]
        lines += [_setting_row(setting) for setting in settings]
        lines += [""]
    return "\n".join([*lines, *_auto_part(), *_example()]) + "\n"


def _setting_row(setting: SettingInfo) -> str:
    cells = (f"`{setting.name}`", _value(setting.default), setting.takes, setting.doc)
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _auto_part() -> list[str]:
    """What `auto` stands for, by model and method."""
    cases = {
        f"`{DEMO}`, `{OURS}`": Recipe(model=DEMO, method=OURS),
        f"`{DEMO}`, another method": Recipe(model=DEMO, method=ANY_METHOD),
        f"another model, `{OURS}`": Recipe(model=ANY_MODEL, method=OURS),
        "another model, another method": Recipe(model=ANY_MODEL, method=ANY_METHOD),
    }
    names = [s.name for s in Recipe.settings() if s.default in (AUTO, (AUTO,)) and s.name != "dtype"]
    lines = [
        "## What `auto` stands for",
        "",
        f"| setting | {' | '.join(cases)} |",
        "|---|" + "---|" * len(cases),
    ]
    lines += [f"| `{n}` | {' | '.join(_value(getattr(r, n)) for r in cases.values())} |" for n in names]
    return [
        *lines,
        "",
        "`units` then gives way to blocks where `keep` or `drop` names some, where a method or a model cannot lose what the",
        "table names, and to channels where a method is not defined for blocks. `dtype` `auto` is `bfloat16` for a bfloat16",
        "checkpoint where this machine computes that fast, and `float32` otherwise; the run writes its choice down.",
        "",
    ]


def _example() -> list[str]:
    example = {"format": Recipe.schema()["properties"]["format"]["const"], "model": "smollm2-135m"}
    example |= {"method": OURS, "target": 0.2, "seed": 1}
    return ["## Example", "", "```json", json.dumps(example, indent=2), "```"]


def schema_file() -> str:
    """`recipe.schema.json`."""
    return json.dumps(Recipe.schema(), indent=1) + "\n"


def cli_page() -> str:
    """`cli.md`: every command with its arguments and options; those of a recipe once, at the end."""
    lines, settings = ["# Command line", "", NOTE, *EXAMPLES], {}
    for function in COMMANDS:
        name = function.__name__
        group, _ = build([name])
        command = group.commands[name]
        shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        own = [p for p in shown if not getattr(p, "rich_help_panel", None)]
        lines += [f"## {name}", "", _paragraph(command.help), ""]
        if own:
            lines += _parameters(own)
        if rest := [p for p in shown if p not in own]:
            lines += ["And the [settings of a recipe](#settings-of-a-recipe).", ""]
            settings = {title: list(found) for title, found in groupby(rest, lambda p: p.rich_help_panel)}
    lines += ["## Settings of a recipe", "", "Options of `prune`, `fork` and `compare`, by stage.", ""]
    for title, found in settings.items():
        lines += [f"### {title}", "", *_parameters(found)]
    return "\n".join(lines).rstrip() + "\n"


def _parameters(parameters: list) -> list[str]:
    return ["| name | default | meaning |", "|---|---|---|", *map(_parameter_row, parameters), ""]


def _parameter_row(parameter) -> str:
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
    default = "required" if parameter.required else _value(parameter.default)
    # Help of a setting ends with its default, its brackets escaped for rich.
    text, found, after = _paragraph(parameter.help).replace("\\[", "[").partition(" (default: ")
    if found and default == "":
        default = f"`{after.removesuffix(')')}`"
    elif found:
        text += found + after
    cells = (", ".join(f"`{n}`" for n in names), default, text)
    return f"| {' | '.join(map(_cell, cells))} |"


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _value(value: object) -> str:
    if value is None or value == "" or value == ():
        return ""
    if hasattr(value, "as_posix"):
        value = value.as_posix()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(f"`{v}`" for v in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


EXAMPLES = """\
`python -m pip_core COMMAND`, or `pip-studio COMMAND` where the project is installed with `pip install .`.

```bash
python -m pip_core prune --out first       # the demo model, all settings as usual
python -m pip_core prune --model smollm2-135m --method pip-gate --target 0.2 --out my-run   # channels and tokens
python -m pip_core inspect --model smollm2-135m   # what can be pruned, and does it fit: from the config alone
python -m pip_core prune --model smollm2-135m --units blocks --out shallow             # whole blocks and tokens
python -m pip_core prune --model smollm2-135m --units attention,mlp --no-plain --out halves
python -m pip_core prune --model smollm2-135m --units blocks,channels --depth-share 0.5 --out mix   # half of the units' share in blocks
python -m pip_core prune --model smollm2-135m --units blocks,channels --allocation global --no-plain --out ranked
python -m pip_core prune --model smollm2-135m --units blocks --no-refit --vocabulary 0 --out blocks   # no tokens, no refit
python -m pip_core resume my-run           # after a stop, a crash or a kill
python -m pip_core export my-run           # a stopped run, as pruned so far
python -m pip_core undo my-run             # undo the last removal; what it removed is kept from then on
python -m pip_core extend my-run --target 0.3      # the same run to a deeper target
python -m pip_core fork my-run --out other --upto 2 --method pip   # its first two removals, then another method
python -m pip_core compare --methods pip-gate,sleb,flap --target 0.2 --out side-by-side   # resumable
python -m pip_core runs runs               # the runs of a folder
python -m pip_core evaluate --model my-run --json
python -m pip_core latency --model my-run  # speed and memory, pruned and dense in turn
python -m pip_core bench                   # time and memory of scoring, against the formula as written
```

A command prints one line per event; errors go to standard error as `error: ...`. The exit code is 0 when the work is done and the export was
verified, 1 for a fault of this program or a stopped run, 2 for something you can put right.

A switch is `--refit` or `--no-refit`; `--refit true`, `false` and `auto` are understood too. Lists are separated by commas. What the texts and
tasks are called is in [evaluation.md](evaluation.md), what `--model` takes in [models.md](models.md).

""".splitlines()

PAGES = {"recipe.md": recipe_page, "recipe.schema.json": schema_file, "cli.md": cli_page}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
