"""The fields of the form: which settings they ask for, and translating a recipe into their values and back.

Settings that most people choose have a field made by hand (`MAIN`, `MEASURED`). All others, those of plugins
among them, get a field below "Advanced", generated from `Recipe.settings()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import UserError
from ..core.recipe import GLOBAL, Recipe
from ..core.settings import AUTO, SettingInfo
from ..core.units import ATTENTION, MLP, WIDTH
from ..data.corpora import PASTED

# A component's name to the properties it gets, such as `{"stop": {"visible": True}}`.
Changes = dict[str, dict]

# Fields made by hand: settings, and texts that replace one.
MAIN = ("model", "calibration", "pasted", "method", "units", "target", "keep", "drop", "kinds", "rate")
MEASURED = ("measured_tasks", "items", "questions")
# Settings that the form does not ask: one is computed, the other written down by a run.
UNASKED = ("plain", "weights")
YES, NO = "yes", "no"
# Values offered for a share that may be `auto`, in percent.
SHARES = ("0", "20", "40", "60")


@dataclass(frozen=True)
class Control:
    """A generated field.

    Attributes:
        name: of the component.
        group: title of the stage that owns the setting.
        kind: "radio", "combobox" (choose or type), "number", "whole" or "text".
        choices: (words, value) to choose from.
    """

    name: str
    group: str
    kind: str
    label: str
    info: str
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def component(self) -> str:
        """The name of gradio's component for it."""
        return {"radio": "Radio", "combobox": "Dropdown", "text": "Textbox"}.get(self.kind, "Number")

    @property
    def options(self) -> dict[str, object]:
        """What that component is made with, beside label and value."""
        choices = {"choices": list(self.choices)} if self.choices else {}
        return {**choices, "allow_custom_value": True} if self.kind == "combobox" else choices


def advanced() -> list[SettingInfo]:
    """Settings that have a generated field."""
    by_hand = {*MAIN, *MEASURED, *UNASKED, "tasks"}
    return [info for info in Recipe.settings() if info.name not in by_hand]


def fields() -> tuple[str, ...]:
    """Names of the form's fields, in their order."""
    return (*MAIN, *MEASURED, *map(_component, advanced()))


def controls() -> list[Control]:
    """The generated fields, stage by stage."""
    return [
        Control(
            _component(info), info.stage_title, _kind(info), label_of(info), hint_of(info), _choices(info)
        )
        for info in advanced()
    ]


def from_form(*values) -> Recipe:
    """The recipe that the form's values describe.

    Raises:
        UserError: a value is missing or out of range.
    """
    given = dict(zip(fields(), values, strict=True))
    settings = {info.name: _read(info, given[_component(info)]) for info in advanced()}
    settings["model"] = (given["model"] or "").strip()
    pasted = (given["pasted"] or "").strip()
    settings["calibration"] = PASTED + pasted if pasted else given["calibration"]
    questions = (given["questions"] or "").strip()
    settings["tasks"] = (*(given["measured_tasks"] or ()), *([PASTED + questions] if questions else ()))
    settings["method"] = given["method"]
    settings["units"] = tuple((given["units"] or "").split(","))
    settings["kinds"] = given["kinds"]
    for name in ("keep", "drop"):
        settings[name] = tuple(int(block) for block in given[name] or ())
    known = {info.name: info for info in Recipe.settings()}
    for name in ("target", "rate", "items"):
        settings[name] = _read(known[name], given[name])
    recipe = Recipe(**settings)
    # A shape that no ordinary checkpoint can have is allowed: the choice and the plan say so.
    uneven = {ATTENTION, MLP} & set(recipe.units)
    uneven |= set(WIDTH) & set(recipe.units) if recipe.allocation == GLOBAL else set()
    return recipe.replace(plain=not uneven)


def to_form(recipe: Recipe) -> Changes:
    """The form's values that describe a recipe."""
    # What is only the model's usual value is `auto`, so that another model in the form brings its own.
    settings = {**recipe.to_dict(), **recipe.automatic()}
    known = {info.name: info for info in Recipe.settings()}
    values = {_component(info): _written(info, settings[info.name]) for info in advanced()}
    values |= {name: _written(known[name], settings[name]) for name in ("target", "rate", "items")}
    values |= {name: settings[name] for name in ("model", "calibration", "method")}
    values |= {"kinds": list(recipe.kinds), "units": ",".join(settings["units"]), "pasted": ""}
    values |= {name: list(map(str, settings[name])) for name in ("keep", "drop")}
    if recipe.calibration.startswith(PASTED):
        values["pasted"], values["calibration"] = recipe.calibration.removeprefix(PASTED), AUTO
    values["measured_tasks"] = [t for t in settings["tasks"] if not t.startswith(PASTED)]
    values["questions"] = "\n".join(t.removeprefix(PASTED) for t in recipe.tasks if t.startswith(PASTED))
    return {name: {"value": values[name]} for name in fields()}


def _component(info: SettingInfo) -> str:
    """Name of a setting's component, which is no other component's."""
    return f"setting_{info.name}"


def _kind(info: SettingInfo) -> str:
    if info.kind == "switch" or info.options:
        return "radio"
    if info.kind in ("number", "whole"):
        return "combobox" if info.default == AUTO else "whole" if info.kind == "whole" else "number"
    return "text"


def field_of(setting: str) -> str:
    """The component that asks for a setting, or for what else an error says is to be put right."""
    if setting in {info.name for info in advanced()}:
        return f"setting_{setting}"
    return "measured_tasks" if setting == "tasks" else setting


def label_of(info: SettingInfo) -> str:
    """What the form calls a setting; whatever else names one calls it so too."""
    return info.label + (", %" if info.share else "")


def hint_of(info: SettingInfo) -> str:
    """The line below a setting's control."""
    return info.hint or info.doc[:1].upper() + info.doc[1:]


def _choices(info: SettingInfo) -> tuple[tuple[str, str], ...]:
    if info.kind == "switch":
        names: Sequence[str] = (AUTO, YES, NO) if info.default == AUTO else (YES, NO)
    elif info.options:
        names = info.options
    elif _kind(info) == "combobox":
        names = (AUTO, *(SHARES if info.share else ()))
    else:
        return ()
    called = dict(info.called)
    return tuple((called.get(name, name), name) for name in names)


def _read(info: SettingInfo, value: object) -> object:
    """A field's value as the recipe has it.

    Raises:
        UserError: it is missing, or no number where one is needed.
    """
    if info.kind == "switch":
        return {YES: True, NO: False}.get(str(value), AUTO)
    if info.kind in ("number", "whole"):
        return _number(info, value)
    if info.kind in ("names", "numbers"):
        parts = tuple(part.strip() for part in str(value or "").split(",") if part.strip())
        return tuple(_number(info, part) for part in parts) if info.kind == "numbers" else parts
    text = str(value or "").strip()
    return text or info.default


def _number(info: SettingInfo, value: object) -> float | int | str:
    text = str("" if value is None else value).strip().removesuffix("%").strip()
    if info.default == AUTO and text in ("", AUTO):
        return AUTO
    if text in info.words:
        return text
    takes = " or ".join(("a percentage from 0 to 100", *info.words)) if info.share else info.takes
    shown = f", not '{text}'" if text else ""
    try:
        number = float(text)
        wrong = info.share and not 0 <= number <= 100
    except ValueError:
        wrong = True
    if wrong:
        raise UserError(f"{label_of(info)}: enter {takes}{shown}.", info.name)
    if info.share:
        # 30 % is 0.3, not 0.30000000000000004 or so.
        return round(number / 100, 10)
    return int(number) if info.kind in ("whole", "numbers") and number == int(number) else number


def _written(info: SettingInfo, value: object) -> object:
    """A recipe's value as its field shows it."""
    if info.kind == "switch":
        return {True: YES, False: NO}.get(value, AUTO) if isinstance(value, bool) else AUTO
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool | str):
        return value
    if info.share and isinstance(value, int | float):
        value = round(value * 100, 8)
    if _kind(info) == "combobox" and info.default == AUTO:
        return f"{value:g}"
    return value
