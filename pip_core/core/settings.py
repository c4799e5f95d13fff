"""Settings: the parts a recipe is made of, one for each stage of a run.

A part is a pydantic model whose fields are declared with the helpers below, so that each field says what it
means, what it takes and where it matters. Names of fields are unique over all parts: a recipe is flat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import UserError

AUTO = "auto"
Auto = Literal["auto"]
# The value of a setting that a run decides by measuring, see `core.decisions`.
MEASURED = "measured"
Measured = Literal["measured"]


def _as_tuple(value: object) -> object:
    """Lists, as JSON has them, become tuples; anything else is left for the field's own check."""
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_as_tuple)]


class Settings(BaseModel):
    """Settings of one stage. Values are checked strictly: true is no number, and "3" is none either."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Settings that decide with what the model is measured, and so whether a measurement can be taken over.
    measures: ClassVar[frozenset[str]] = frozenset()
    # Settings that belong to one model: another model has its own.
    of_model: ClassVar[frozenset[str]] = frozenset()
    # Lists in which `auto` may stand beside other names: the usual ones, and these.
    beside_auto: ClassVar[frozenset[str]] = frozenset()
    # Settings that what a block hands over to the block before it depends on, see `Prune`.
    hands_over: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        """What `auto` stands for, by setting.

        Args:
            names_blocks: whether the recipe names blocks to keep or to remove.
        """
        return {}


def setting(
    default: Any,
    doc: str,
    takes: str,
    label: str = "",
    hint: str = "",
    share: bool = False,
    called: Mapping[str, str] = MappingProxyType({}),
    opens: bool = False,
    **constraints: Any,
) -> Any:
    """A field.

    Args:
        doc: what the setting means, with its unit.
        takes: what may be entered, to stand after "enter".
        label: what people call it, in the form, in errors and in comparisons; empty for its name in words.
        hint: one short line below its control; empty for `doc`.
        called: value -> what people read for it.
        share: whether it is a share of something, which people may read in percent. A number that is
            constrained to at most 1 is one anyway.
        opens: whether any value but the default leaves something for the run to decide, see `core.decisions`.
    """
    words = {"label": label, "hint": hint, "called": dict(called), "share": share, "opens": opens}
    extra: dict[str, Any] = {"takes": takes, **{key: value for key, value in words.items() if value}}
    return Field(default, description=doc, json_schema_extra=extra, **constraints)


def whole(default: int, low: int, high: int, doc: str, label: str = "", hint: str = "") -> Any:
    """A whole number from `low` to `high`."""
    return setting(default, doc, f"a whole number from {low:,} to {high:,}", label, hint, ge=low, le=high)


def text(default: str, doc: str, label: str = "", hint: str = "") -> Any:
    """A text that is not empty."""
    return setting(default, doc, "a non-empty text", label, hint, pattern=r"\S")


def switch(default: bool | str, doc: str, label: str = "", hint: str = "") -> Any:
    """True or false."""
    return setting(default, doc, "true or false" + (" or auto" if default == AUTO else ""), label, hint)


def choice(
    default: str, options: Sequence[str], doc: str, label: str = "", hint: str = "", **more: Any
) -> Any:
    """One of `options`; the field's type is a `Literal` of the same."""
    names = ", ".join(options)
    return setting(default, f"{doc}: {names}", f"one of {names}", label, hint, **more)


@dataclass(frozen=True)
class SettingInfo:
    """A setting of the recipe, for whoever lists them: the command line, the documentation, the page.

    Attributes:
        stage: name of the stage that owns it; `stage_title` what people read.
        kind: "switch", "whole", "number", "text", "names" or "numbers".
        options: the only values it takes, where these are few.
        title: what people call it, where that is not its name; empty where it is.
        hint: one short line below its control; empty where `doc` stands there.
        called: (value, what people read for it).
        share: whether it is a share of something, which people may read in percent.
        words: values of a number that are no numbers, such as `auto`.
        opens: whether any value but the default leaves something for the run to decide.
    """

    name: str
    stage: str
    stage_title: str
    kind: str
    default: Any
    doc: str
    takes: str
    options: tuple[str, ...] = ()
    title: str = ""
    share: bool = False
    words: tuple[str, ...] = ()
    hint: str = ""
    called: tuple[tuple[str, str], ...] = ()
    opens: bool = False

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return option_of(self.name)

    @property
    def label(self) -> str:
        """What people call it, without a unit."""
        return self.title or _in_words(self.name)


def option_of(name: str) -> str:
    """A setting's option on the command line."""
    return "--" + name.replace("_", "-")


def _in_words(name: str) -> str:
    return name.replace("_", " ").capitalize()


@cache
def describe_settings(part: type[Settings], stage: str, title: str) -> tuple[SettingInfo, ...]:
    """The settings of one part, in their order."""
    schema = part.model_json_schema()["properties"]
    return tuple(
        SettingInfo(
            name,
            stage,
            title,
            _kind(schema[name], field.default),
            field.default,
            field.description or "",
            schema[name].get("takes", ""),
            tuple(schema[name].get("enum", ())),
            schema[name].get("label", ""),
            _is_share(schema[name]),
            _words(schema[name]),
            schema[name].get("hint", ""),
            tuple(schema[name].get("called", {}).items()),
            schema[name].get("opens", False),
        )
        for name, field in part.model_fields.items()
    )


def _words(schema: Mapping) -> tuple[str, ...]:
    """The words that a field takes beside its numbers."""
    parts = schema.get("anyOf", ())
    return tuple(word for part in parts for word in (part.get("const"), *part.get("enum", ())) if word)


def _is_share(schema: Mapping) -> bool:
    """Whether a field is a share: it says so, or takes numbers up to 1."""
    if schema.get("share"):
        return True
    numbers = [part for part in (schema, *schema.get("anyOf", ())) if part.get("type") == "number"]
    return any(1 in (part.get("maximum"), part.get("exclusiveMaximum")) for part in numbers)


def _kind(schema: Mapping, default: object) -> str:
    types = {schema.get("type"), *(part.get("type") for part in schema.get("anyOf", ()))}
    if "array" in types:
        items = schema.get("items", {})
        return "numbers" if items.get("type") == "integer" else "names"
    named = (("boolean", "switch"), ("integer", "whole"), ("number", "number"))
    return next((kind for name, kind in named if name in types), "text")


def read_settings(part: type[Settings], values: Mapping[str, object]) -> Settings:
    """`values` as settings.

    Raises:
        UserError: a value is of the wrong type or out of range; the sentence names the setting and what it
            takes.
    """
    try:
        return part(**values)
    except ValidationError as error:
        raise _told(part, error, values) from None


def _told(part: type[Settings], error: ValidationError, values: Mapping[str, object]) -> UserError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "value_error":  # a check of our own, whose sentence says it all
        return UserError(str(first["ctx"]["error"]), name)
    schema = part.model_json_schema()["properties"].get(name, {})
    called, takes = schema.get("label") or _in_words(name), schema.get("takes", "another value")
    return UserError(f"{called}: enter {takes}, not {values.get(name)!r}.", name)
