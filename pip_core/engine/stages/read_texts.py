"""Read texts: what is calibrated on, and what is said where it overlaps with what is measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field, field_validator

from ...core.errors import UserError
from ...core.events import Event, Warned
from ...core.recipe import DEMO, MIXED, STORIES
from ...core.settings import AUTO, Names, Settings, setting, text, whole
from ...data.calibration import Calibration, CalibrationText
from ...data.contamination import overlap
from ...data.corpora import title
from ...data.perturbation import PERTURBATION_KINDS
from ...data.windows import check_holds
from ...evaluation.tasks import Pages, Task
from ...evaluation.writing import Beginnings, WritingTask
from ...scoring import get_scorer
from ..context import Context
from ..identity import digest
from ..stage import Stage
from ..state import RunState


class TextSettings(Settings):
    """The calibration text and its perturbed view."""

    hands_over = frozenset({"calibration", "seed"})

    calibration: str = text(
        AUTO,
        "text to score on: a name, a dataset on the Hub or a file, see docs/evaluation.md",
        "Calibration text",
        "Auto picks one; or a file, or hub:OWNER/NAME",
    )
    windows: int = whole(
        16,
        1,
        100_000,
        "calibration windows (pairs of views) per iteration",
        "Windows",
        "Pairs of text passages read per iteration",
    )
    window_tokens: int = whole(
        128,
        8,
        8192,
        "length of a window's clean view, in tokens",
        "Window length, tokens",
        "Of the clean passage",
    )
    kinds: Names = setting(
        PERTURBATION_KINDS,
        f"character edits of the perturbed view: {', '.join(PERTURBATION_KINDS)}",
        f"a list of names, one or more of {', '.join(PERTURBATION_KINDS)}",
        "Misspellings",
        "How words of the second version are changed",
    )
    rate: Annotated[float, Field(gt=0, le=1)] = setting(
        0.6,
        "share of the words that are edited, 0 < rate <= 1",
        "a number above 0 and at most 1",
        "Words misspelt",
        "How different the second version is",
    )
    seed: int = whole(
        0, 0, 2**32 - 1, "seed of every random draw", "Seed", "The same recipe always removes the same parts"
    )

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [k for k in kinds if k not in PERTURBATION_KINDS]
        if unknown or not kinds:
            wrong = f", not {', '.join(unknown)}" if unknown else ""
            raise ValueError(f"Misspellings: enter one or more of {', '.join(PERTURBATION_KINDS)}{wrong}.")
        return kinds

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        return {"calibration": STORIES if model == DEMO else MIXED}


class ReadTexts(Stage):
    """Read the calibration text, and warn where the figures will say less than they seem to."""

    name = "texts"
    title = "Texts"
    Settings = TextSettings
    invalidated_by = ()

    @property
    def idle(self) -> Collection[str]:
        return () if get_scorer(self.recipe.method).perturbs else ("kinds", "rate")

    def check(self, context: Context) -> None:
        recipe, domains = self.recipe, context.calibration_text.domains
        if len(domains) == 1:
            name = title(domains[0].name)
            check_holds(domains[0].documents, name, recipe.windows, recipe.window_tokens)
        refuse_measured(context, context.calibration_text, f"calibration text '{title(recipe.calibration)}'")

    def contents(self, context: Context) -> Mapping[str, str]:
        return {"calibration": contents_of(context.calibration_text)}

    def prepare(self, state: RunState) -> None:
        loaded = state.loaded
        state.calibration = Calibration(
            state.calibration_text,
            self.recipe,
            loaded.tokenizer,
            loaded.context,
            loaded.model.device,
            state.scorer.perturbs,
        )
        # What is wrong with the text is said before anything is measured.
        state.calibration.check()

    def run(self, state: RunState) -> Iterator[Event]:
        yield from warn(state, (*_warnings(state), *map(Warned, state.calibration.warnings())))


def contents_of(text: CalibrationText) -> str:
    """`identity.digest` of a text."""
    return digest((d for domain in text.domains for d in domain.documents), text.characters)


def refuse_measured(context: Context, text: CalibrationText, what: str) -> None:
    """Refuse a text that holds documents that perplexity is measured on.

    Raises:
        UserError: it does.
    """
    if {d for domain in text.domains for d in domain.documents} & set(context.heldout):
        raise UserError(
            f"The {what} holds documents of the held-out text '{title(context.recipe.heldout)}', and a "
            "model must not be measured on what it was made with. Choose another text for one of the two."
        )


def warn(state: RunState, warnings: Iterable[Warned]) -> Iterator[Event]:
    """Pass warnings on, those of an earlier attempt only to the card."""
    for warning in warnings:
        state.warnings.append(warning.message)
        if warning not in state.history:
            yield warning


def _warnings(context: Context) -> Iterator[Warned]:
    """Texts and items that are there twice, and calibration text in what is measured."""
    yield from map(Warned, context.calibration_text.warnings())
    for task in context.tasks:
        if isinstance(task, Task | WritingTask) and task.duplicates:
            yield Warned(
                f"{task.duplicates} of the {len(task.items)} items of {task.name} are the same as an earlier "
                "one; each counts."
            )
    yield from overlaps(context, context.calibration_text, "calibration text")


def overlaps(context: Context, text: CalibrationText, name: str) -> Iterator[Warned]:
    """A warning for everything that is measured and overlaps with a text; `name` says which text."""
    measured = {f"documents of the held-out text '{title(context.recipe.heldout)}'": context.heldout}
    for task in context.tasks:
        if isinstance(task, Pages):
            measured[f"documents of {task.name}"] = list(task.pages)
        elif isinstance(task, Beginnings):
            measured[f"documents of {task.name}"] = list(task.texts)
        else:
            measured[f"items of {task.name}"] = [item.solved for item in task.items]
    for what, found in measured.items():
        shared = overlap((d for domain in text.domains for d in domain.documents), found)
        if sentence := shared.sentence(what, name):
            yield Warned(sentence)
