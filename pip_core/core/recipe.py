"""The recipe: everything that decides a run's outcome, in one frozen value.

A recipe touches no model and no file; it checks what can be checked without (types, ranges). Names of
methods, texts and tasks are resolved by the modules that own them. `auto` is a choice by the model's
name: the demo model knows nothing but its own stories.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from .errors import UserError
from .units import BLOCKS, CHANNELS, DEPTH, KINDS, WIDTH

PERTURBATION_KINDS = ("swap", "replace", "insert")
TASKS = ("endings", "causes", "household", "facts", "sense")
DEMO, STORIES, STORIES_HELDOUT = "demo", "stories", "stories-heldout"
STORY_TASKS = tuple(f"{STORIES}-{kind}" for kind in ("who", "possession", "places", "counting", "causes"))
OURS = "pip-gate"
MIXED, HELDOUT = "mixed", "heldout"
AUTO = "auto"
DTYPES = ("auto", "float32", "bfloat16")
EQUAL, GLOBAL = "equal", "global"
ALLOCATIONS = (EQUAL, GLOBAL)
EVERY, END = "every", "end"


def usual(model: str, method: str, named: bool = False) -> dict[str, str | tuple[str, ...] | float | bool]:
    """What `auto` stands for: a model's calibration, held-back text and tasks, what a method removes and
    what it does at the end. Ours does what was measured to keep most (`benchmarks/quality`), others what
    was published.

    Args:
        named: whether blocks are named that stay or go, so that blocks are what goes.
    """
    if model == DEMO:
        # Its few words are all in use, and it is small enough to do without.
        texts = {"calibration": STORIES, "heldout": STORIES_HELDOUT, "tasks": STORY_TASKS}
        return {**texts, "units": (BLOCKS,), "vocabulary": 0.0, "refit": False}
    ours = method == OURS
    texts = {"calibration": MIXED, "heldout": HELDOUT, "tasks": TASKS}
    units = (CHANNELS,) if ours and not named else (BLOCKS,)
    return {**texts, "units": units, "vocabulary": 0.25 if ours else 0.0, "refit": ours}


def _setting(default, doc: str):
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Recipe:
    """What to prune, how, and how to measure it. Same recipe, same removals, always.

    Every field's meaning and unit stands in its metadata (`Recipe.describe()` lists them).

    Raises:
        UserError: a value is of the wrong type or out of range.
    """

    model: str = _setting(DEMO, "model reference: demo, smollm2-135m, a local folder or a Hub id")
    method: str = _setting(OURS, "scoring method, see pip_core.scoring.METHODS")
    target: float = _setting(0.2, "share of all parameters to remove, between 0 and 1")
    units: tuple[str, ...] = _setting((AUTO,), f"what is removed: {', '.join(KINDS)}")
    allocation: str = _setting(
        EQUAL,
        "heads and channels: 'equal' takes as many from every block, after whole blocks where these go too; "
        "'global' takes the least of all, whole blocks among them",
    )
    per_parameter: bool = _setting(True, "rank units of unequal size by score per parameter")
    step: float = _setting(
        0.0,
        "removal per iteration: a whole number of units (of every block where equal), a share of all "
        "parameters below 1, or 0 for the usual: one block or half, or 5 % of the parameters",
    )
    depth_share: float = _setting(
        0.5,
        "of what units make up of the target, where blocks go and then as many heads or channels from every "
        "other: the share that blocks make up",
    )
    vocabulary: float = _setting(
        AUTO,
        "of the target, the share that rows of the vocabulary make up, at the end; 0 keeps every token",
    )
    keep: tuple[int, ...] = _setting((), "blocks that lose nothing, by their number from 0")
    drop: tuple[int, ...] = _setting((), "blocks that go first, in this order, before anything is scored")
    plain: bool = _setting(True, "refuse shapes that an ordinary checkpoint cannot have")
    calibration: str = _setting(AUTO, "text to score on: a name, a dataset on the Hub or a file, see README")
    windows: int = _setting(16, "calibration windows (pairs of views) per iteration")
    window_tokens: int = _setting(128, "length of a window's clean view, in tokens")
    kinds: tuple[str, ...] = _setting(PERTURBATION_KINDS, "character edits of the perturbed view")
    rate: float = _setting(0.6, "share of the words that are edited, 0 < rate <= 1")
    refit: bool = _setting(
        AUTO,
        "solve the projections of what is left anew, by least squares towards the dense model, at the end; "
        "pip-gate then scores blocks by what that cannot give back",
    )
    refit_tokens: int = _setting(
        0, "calibration tokens the refit reads; 0 is the usual: 32 for each input of the widest projection"
    )
    seed: int = _setting(0, "seed of every random draw")
    measure: str = _setting(EVERY, "when to measure: after 'every' iteration, or what comes out at the 'end'")
    tasks: tuple[str, ...] = _setting(
        (AUTO,), "tasks: shipped or standard names, NAME=PATH, or paths of files"
    )
    items: int = _setting(60, "items measured per task; 0 means all of them")
    heldout: str = _setting(AUTO, "text for perplexity, as for calibration")
    perplexity_windows: int = _setting(8, "windows for perplexity; 0 means the whole text")
    perplexity_tokens: int = _setting(256, "length of a perplexity window, in tokens")
    dtype: str = _setting("auto", "number format to compute in: auto, float32 or bfloat16")

    def __post_init__(self) -> None:
        for name in ("kinds", "tasks", "units"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise UserError(f"Recipe field '{name}' must be a list of names, not {value!r}.")
            object.__setattr__(self, name, tuple(value))
        for name in ("keep", "drop"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(type(v) is int and v >= 0 for v in value):
                raise UserError(
                    f"Recipe field '{name}' must be a list of block numbers from 0, not {value!r}."
                )
            if len(set(value)) != len(value):
                raise UserError(f"Recipe field '{name}' names a block twice: {', '.join(map(str, value))}.")
            object.__setattr__(self, name, tuple(value))
        for name in ("model", "method", "calibration", "measure", "heldout", "dtype"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise UserError(f"Recipe field '{name}' must be a non-empty text.")
        for name, value in self._usual().items():
            if getattr(self, name) in (AUTO, (AUTO,)):
                object.__setattr__(self, name, value)
        for name, low, high in (
            ("windows", 1, 100_000),
            ("window_tokens", 8, 8192),
            ("refit_tokens", 0, 100_000_000),
            ("items", 0, 1_000_000),
            ("perplexity_windows", 0, 1_000_000),
            ("perplexity_tokens", 8, 8192),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(
                    f"Recipe field '{name}' must be a whole number from {low} to {high}, not {value!r}."
                )
        for name in ("per_parameter", "plain", "refit"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"Recipe field '{name}' must be true or false.")
        for name in ("target", "rate", "step", "depth_share", "vocabulary"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"Recipe field '{name}' must be a number, not {value!r}.")
        if not 0 < self.target < 1:
            raise UserError(
                f"A target of {self.target * 100:g} % cannot be pruned: choose a share of the "
                "parameters above 0 % and below 100 %, for example 20 % (0.2)."
            )
        if not 0 < self.rate <= 1:
            raise UserError("The perturbation rate is a share of the words: above 0 and at most 1.")
        unknown = [k for k in self.kinds if k not in PERTURBATION_KINDS]
        if unknown or not self.kinds:
            raise UserError(
                f"Unknown perturbation {', '.join(unknown) or '(none chosen)'}: choose one or more "
                f"of {', '.join(PERTURBATION_KINDS)}."
            )
        if not 0 < self.depth_share < 1:
            raise UserError("The blocks' share of the target (depth_share) is above 0 and below 1.")
        if not 0 <= self.vocabulary < 1:
            raise UserError("The vocabulary's share of the target is at least 0 and below 1.")
        self._check_units()
        if not self.tasks:
            raise UserError(f"Choose at least one task, for example {TASKS[0]}.")
        if self.measure not in (EVERY, END):
            raise UserError(f"Unknown time to measure '{self.measure}': choose {EVERY} or {END}.")
        if self.dtype not in DTYPES:
            raise UserError(f"Unknown number format '{self.dtype}': choose {', '.join(DTYPES)}.")

    def _check_units(self) -> None:
        unknown = [k for k in self.units if k not in KINDS]
        if unknown or not self.units or len(set(self.units)) != len(self.units):
            raise UserError(
                f"Units to remove are one or more of {', '.join(KINDS)}, each once; not "
                f"{', '.join(self.units) or '(none)'}."
            )
        depth, width = set(self.units) & set(DEPTH), set(self.units) & set(WIDTH)
        halves = depth - {BLOCKS}
        if halves and (width or BLOCKS in depth):
            raise UserError(
                f"{', '.join(self.units)} cannot be removed in one run: choose blocks, or halves (attention, "
                "mlp), or heads and channels, or blocks and then these."
            )
        if depth and width and self.step >= 1:
            raise UserError(
                "Where blocks and heads or channels go, the step per iteration is a share of the "
                "parameters below 1, or 0 for the usual."
            )
        object.__setattr__(self, "units", (*(u for u in self.units if u in DEPTH), *self._width()))
        if self.allocation not in ALLOCATIONS:
            raise UserError(f"Unknown allocation '{self.allocation}': choose {' or '.join(ALLOCATIONS)}.")
        if self.step < 0 or (self.step > 1 and self.step != int(self.step)):
            raise UserError(
                "The step per iteration is a whole number of units, or a share of the parameters between 0 "
                "and 1."
            )

    def _width(self) -> tuple[str, ...]:
        return tuple(u for u in self.units if u in WIDTH)

    @property
    def mixed(self) -> bool:
        """Whether whole blocks go, and heads or channels too."""
        return BLOCKS in self.units and bool(self._width())

    def but(self, **changes) -> Recipe:
        """This recipe with some settings changed. With another model or method, settings that were only
        the old one's usual ones become the new one's.

        Raises:
            UserError: as for a new recipe; or a setting no recipe has.
        """
        unknown = sorted(set(changes) - set(Recipe.describe()))
        if unknown:
            raise UserError(f"No recipe has the setting {', '.join(unknown)}.")
        if any(
            changes.get(name, old) != old for name, old in (("model", self.model), ("method", self.method))
        ):
            changes = self.automatic() | changes
        return dataclasses.replace(self, **changes)

    def automatic(self) -> dict[str, str | tuple[str, ...]]:
        """The settings that are only the model's and method's usual ones, as `auto`."""
        return {
            name: (AUTO,) if isinstance(value, tuple) else AUTO
            for name, value in self._usual().items()
            if getattr(self, name) == value
        }

    def _usual(self) -> dict[str, str | tuple[str, ...] | float | bool]:
        return usual(self.model, self.method, bool(self.keep or self.drop))

    @staticmethod
    def describe() -> dict[str, str]:
        """Field name -> what it means, with its unit."""
        return {f.name: f.metadata["doc"] for f in dataclasses.fields(Recipe)}

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read a recipe back.

        Raises:
            UserError: not JSON, or a field that no recipe has, or a value out of range.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"The recipe is not valid JSON: {error}.") from None
        if not isinstance(values, dict):
            raise UserError("The recipe must be a JSON object of settings.")
        known = Recipe.describe()
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UserError(
                f"The recipe has settings this version does not know: {', '.join(unknown)}. "
                f"Known are: {', '.join(known)}."
            )
        return Recipe(**values)
