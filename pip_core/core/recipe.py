"""The recipe: everything that decides a run's outcome, in one frozen value.

A recipe is flat: every stage of a run adds its own settings (`core.settings`), under names that no other
stage uses. A recipe touches no model and no file; it checks what can be checked without. Names of methods,
texts and tasks are resolved by the modules that own them. `auto` is a choice by model and method, which the
stage that owns the setting makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import UserError
from .registry import recipe_parts
from .settings import AUTO, SettingInfo, Settings, describe_settings, read_settings
from .units import BLOCKS, WIDTH

# A recipe's own mark in JSON; recipes without it were written by version 0.1 and have the same settings.
FORMAT = 2
DEMO, STORIES, STORIES_HELDOUT = "demo", "stories", "stories-heldout"
OURS = "pip-gate"
MIXED, HELDOUT = "mixed", "heldout"
EQUAL, GLOBAL = "equal", "global"
# Kinds of units that a measured division weighs: those that the recipe names, or every one there is.
NAMED_KINDS, EVERY_KIND = "named", "all"
EVERY, END = "every", "end"
# Where the model's weights are while it is computed with.
RESIDENT, DISPATCHED, STREAMED = "resident", "dispatched", "streamed"


class Recipe:
    """What to prune, how, and how to measure it. The same recipe removes the same units, always.

    Settings are attributes: `Recipe(target=0.3).target`. `Recipe.describe()` lists them.

    Raises:
        UserError: a setting no recipe has, or a value of the wrong type or out of range.
    """

    __slots__ = ("_parts", "_values")

    def __init__(self, **values: object) -> None:
        parts = recipe_parts()
        owner = {name: part for part in parts for name in part.settings.model_fields}
        if unknown := sorted(set(values) - set(owner)):
            raise UserError(f"No recipe has the setting {', '.join(unknown)}. Known are: {', '.join(owner)}.")
        read = {
            part.stage: read_settings(part.settings, {n: v for n, v in values.items() if owner[n] is part})
            for part in parts
        }
        found = {n: getattr(read[part.stage], n) for n, part in owner.items()}
        model, method = str(found.get("model", "")), str(found.get("method", ""))
        for name, value in _usual(parts, model, method, _names_blocks(found)).items():
            chosen = _resolved(found[name], value)
            if chosen != found[name]:
                found[name] = chosen
                read[owner[name].stage] = read[owner[name].stage].model_copy(update={name: chosen})
        object.__setattr__(self, "_values", found)
        object.__setattr__(self, "_parts", read)

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_values")[name]
        except KeyError:
            raise AttributeError(f"no recipe has the setting {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a recipe cannot be changed; make another with replace()")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __reduce__(self):
        return _rebuilt, (self._values,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Recipe({', '.join(f'{k}={v!r}' for k, v in self._values.items())})"

    def of(self, stage: str) -> Settings:
        """The settings that a stage owns, by its name."""
        return self._parts[stage]

    @property
    def mixed(self) -> bool:
        """Whether whole blocks are removed, and heads or channels too."""
        return BLOCKS in self.units and any(kind in WIDTH for kind in self.units)

    def replace(self, **changes: object) -> Recipe:
        """This recipe with other values for some settings.

        Raises:
            UserError: as for a new recipe.
        """
        return Recipe(**{**self._values, **changes})

    def but(self, **changes: object) -> Recipe:
        """As `replace`; settings that were only the usual ones of model, method and other settings become
        those of the new ones.

        Raises:
            UserError: as for a new recipe.
        """
        changes = self.automatic() | changes
        if changes.get("model", self.model) != self.model:
            parts = [part.settings for part in recipe_parts()]
            own = {n: part.model_fields[n].default for part in parts for n in part.of_model}
            changes = own | changes
        return self.replace(**changes)

    def automatic(self) -> dict[str, object]:
        """The settings that are only the usual ones of model, method and other settings, as `auto`; of a list
        that adds to the usual ones, `auto` and what it adds."""
        usual = self._usual()
        return usual | self._worked_out(usual)

    def _usual(self) -> dict[str, object]:
        """The settings that are the usual ones of model and method, as `automatic`."""
        parts = recipe_parts()
        beside_auto = frozenset().union(*(part.settings.beside_auto for part in parts))
        found: dict[str, object] = {}
        usual: Mapping[str, Any] = _usual(parts, self.model, self.method, _names_blocks(self._values))
        for name, value in usual.items():
            own: Any = self._values[name]
            if own == value:
                found[name] = (AUTO,) if isinstance(value, tuple) else AUTO
            elif name in beside_auto and own[: len(value)] == value:
                found[name] = (AUTO, *own[len(value) :])
        return found

    def _worked_out(self, usual: Mapping[str, object]) -> dict[str, object]:
        """The settings that a stage works out from its others, such as which kinds compete from whether any
        is named, as `auto`.

        Args:
            usual: the settings that are usual, as `auto`.
        """
        found: dict[str, object] = {}
        for part in recipe_parts():
            for name, field in part.settings.model_fields.items():
                if field.default == AUTO and name not in usual and self._values[name] != AUTO:
                    again = Recipe(**{**self._values, **usual, name: AUTO})
                    found |= {name: AUTO} if again._values[name] == self._values[name] else {}
        return found

    def differences(self, other: Recipe) -> tuple[str, ...]:
        """Names of the settings in which two recipes differ."""
        return tuple(n for n, v in self._values.items() if v != other._values[n])

    @staticmethod
    def settings() -> list[SettingInfo]:
        """Every setting there is, in the order of the stages."""
        return [
            info
            for part in recipe_parts()
            for info in describe_settings(part.settings, part.stage, part.title)
        ]

    @staticmethod
    def describe() -> dict[str, str]:
        """Setting -> what it means, with its unit."""
        return {info.name: info.doc for info in Recipe.settings()}

    @staticmethod
    def schema() -> dict:
        """The JSON schema of a recipe."""
        properties = {"format": {"const": FORMAT, "description": "version of this form of recipe"}}
        for part in recipe_parts():
            properties |= part.settings.model_json_schema()["properties"]
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "PIP Studio recipe",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }

    def to_dict(self) -> dict:
        return dict(self._values)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **self._values}, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read a recipe back, of this version or of an earlier one.

        Raises:
            UserError: not JSON, written by a newer version, a setting that no recipe has, or a value out of
                range.
        """
        try:
            values = json.loads(text.removeprefix("\ufeff"))  # which some editors put there
        except RecursionError:
            raise UserError("The recipe is not valid JSON: it is nested too deeply.") from None
        except ValueError as error:
            raise UserError(f"The recipe is not valid JSON: {error}.") from None
        if not isinstance(values, dict):
            raise UserError("The recipe must be a JSON object of settings.")
        version = values.pop("format", 1)
        if type(version) is not int or version > FORMAT:
            raise UserError(
                f"This recipe was written by a newer version of PIP Studio (format {version!r}, and this "
                f"version "
                f"knows up to {FORMAT}). Upgrade PIP Studio to use it."
            )
        return Recipe(**{str(k): v for k, v in values.items()})


def _rebuilt(values: Mapping[str, object]) -> Recipe:
    return Recipe(**values)


def _resolved(value: object, usual: object) -> object:
    """A setting with `auto` replaced by what is usual; a list may name others beside it."""
    if not isinstance(value, tuple) or not isinstance(usual, tuple):
        return usual if value == AUTO else value
    names = (name for one in value for name in (usual if one == AUTO else (one,)))
    return tuple(dict.fromkeys(names)) if AUTO in value else value


def _names_blocks(values: Mapping[str, object]) -> bool:
    return bool(values.get("keep") or values.get("drop"))


def _usual(parts: Iterable, model: str, method: str, names_blocks: bool) -> dict[str, object]:
    found: dict[str, object] = {}
    for part in parts:
        found |= part.settings.usual(model, method, names_blocks)
    return found


def measuring_settings() -> frozenset[str]:
    """Settings that decide with what a model is measured: a change of any makes another measurement."""
    return frozenset().union(*(part.settings.measures for part in recipe_parts()))


def handing_settings() -> frozenset[str]:
    """Settings that what a removed block hands over depends on."""
    return frozenset().union(*(part.settings.hands_over for part in recipe_parts()))
