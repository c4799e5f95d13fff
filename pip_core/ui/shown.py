"""The run that the page shows to a visitor. No gradio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.cached import cached_property
from ..core.errors import UserError
from ..core.recipe import Recipe
from ..planning.estimate import anatomy_for
from ..reporting.run_summary import RunSummary
from ..runs.files import write
from ..runs.gallery import examples
from ..runs.queue import RunQueue
from ..structure.anatomy import Anatomy

LIVE = ("waiting", "starting", "running", "stopping")
RESUMABLE = ("stopped", "paused", "interrupted", "failed")
# What is shown before there is a run.
NOTHING = RunSummary()


@dataclass(frozen=True)
class Shown:
    """A run, as far as it is, for one visitor.

    Attributes:
        owner: the secret token of the visitor's browser.
        state: see `RunQueue.summary`.
        read_anatomy: from a model reference to its anatomy, see `planning.estimate.anatomy_for`.
    """

    queue: RunQueue
    run_id: str
    owner: str
    summary: RunSummary
    state: str
    read_anatomy: Callable[[str], Anatomy] = anatomy_for

    @cached_property
    def folder(self) -> Path | None:
        """Where the run is."""
        return self.queue.folder(self.run_id)

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe of the run; None where it cannot be read."""
        return recipe_of(self.queue, self.run_id)

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the run's dense model.

        Raises:
            UserError: the recipe or the model's config cannot be read.
        """
        if isinstance(self._anatomy, UserError):
            raise self._anatomy
        return self._anatomy

    @cached_property
    def _anatomy(self) -> Anatomy | UserError:  # looked for once, also in vain
        try:
            return self.read_anatomy(self.queue.recipe(self.run_id).model)
        except UserError as error:
            return error

    @property
    def known_anatomy(self) -> Anatomy | None:
        """The same; None before the run has begun, and where it cannot be read: the model has gone since."""
        found = self._anatomy if self.summary.started else None
        return None if isinstance(found, UserError) else found

    @cached_property
    def may_change(self) -> bool:
        """Whether the visitor may steer the run."""
        return self.queue.may_change(self.run_id, self.owner)

    @cached_property
    def owns(self) -> bool:
        """Whether the visitor may rename and delete the run."""
        return self.queue.owns(self.run_id, self.owner)

    @cached_property
    def changeable(self) -> bool:
        """Whether this version can change the run at all."""
        return self.queue.is_changeable(self.run_id)

    @property
    def example(self) -> bool:
        """Whether it is one of the gallery, whose model is not shipped."""
        return self.run_id in examples()

    @property
    def steerable(self) -> bool:
        """Whether the visitor may undo, export or repeat something of it."""
        return self.may_change and self.changeable and bool(self.summary.removals)


def recipe_of(queue: RunQueue, run_id: str) -> Recipe | None:
    """The recipe of a run; None where it cannot be read."""
    try:
        return queue.recipe(run_id)
    except UserError:
        return None


def as_file(folder: Path, text: str, name: str) -> dict:
    """What a button gets that offers `text` as a file, in a folder that is there and is deleted together
    with what it is about. Where it cannot be written nothing is offered, and the page goes on."""
    path = folder / name
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write(path, text)
    except (OSError, UserError):
        return {"visible": False}
    return {"value": str(path), "visible": True}
