"""What the page does when something is pressed: plain values in, plain changes out. No gradio.

A change is a component's name to the properties it gets, such as `{"stop": {"visible": True}}`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

from ..checkpoints.hub_search import local_models
from ..core.errors import UserError
from ..core.limits import local_files
from ..core.recipe import Recipe
from ..core.settings import AUTO
from ..core.units import BLOCKS
from ..runs.queue import RunQueue
from ..runs.store import UPLOADS
from . import labels
from .answers import show_errors
from .fields import Changes, from_form, to_form
from .heatmap import ranking
from .looking import Looks
from .runs_table import menu
from .shown import LIVE

# Components that a preview of the form changes, and those that a new run does.
PREVIEW = (
    *("model_line", "method_note", "units", "keep", "drop", "locks", "plan"),
    *("views", "views_small", "map"),
)
NEW_RUN = ("run", "memory", "notice", "tabs")
# Those that several new runs change, and those that a renamed or deleted one does.
SWEPT = (*NEW_RUN, "chosen", "picked")
DELETED = ("memory", "run", "seen", "notice")
NO_RUN = "There is no such run. It may have been deleted."


class PageHandlers:
    """Reads and changes the runs of a queue on behalf of the page's visitors.

    `memory` is what a visitor's browser keeps: "owner", its secret token, and "run", the id of its last run.
    """

    def __init__(self, queue: RunQueue, looks: Looks | None = None) -> None:
        self.queue, self.looks = queue, looks or Looks(lambda: queue.server)
        # Owns what programs start without a key: they share one visitor's part of the machine.
        self._programs = secrets.token_hex(16)

    # The form

    def preview_form(self, run_id: str, *values) -> Changes:
        """What the form's values mean, in words and pictures; `run_id` is the run that is shown."""
        return self.looks.preview(values, self._ranks(run_id))

    def importance(self, run_id: str, *values) -> Changes:
        """What the form says of blocks to keep and to drop, once the run that is shown has found more out."""
        return self.looks.importance(values, self._ranks(run_id))

    def _ranks(self, run_id: str) -> dict[tuple[str, str], dict[int, int] | None]:
        """(model, method) of a run -> the blocks' ranks in its first iteration."""
        try:
            shown = self.queue.recipe(run_id or "")
        except UserError:  # no run is shown, or one that cannot be read
            return {}
        return {(shown.model, shown.method): ranking(self.queue.summary(run_id)[0]).get((1, BLOCKS))}

    def upload(self, path: str) -> Changes:
        """Use an uploaded text, which is kept where a run can read it again later."""
        return {"calibration": {"value": self._stored(path)}, "pasted": {"value": ""}}

    def upload_task(self, path: str, chosen: list[str]) -> Changes:
        """Measure an uploaded task, too; instead of the usual ones, where only these were chosen."""
        kept = [name for name in chosen or () if name != AUTO]
        return {"measured_tasks": {"value": [*kept, self._stored(path)]}}

    def _stored(self, path: str) -> str:
        if not path:
            raise UserError("Choose a file first.")
        folder = self.queue.root / UPLOADS / secrets.token_hex(8)
        folder.mkdir(parents=True)
        kept = folder / Path(path).name
        try:
            os.link(path, kept)  # so that it is not kept twice
        except OSError:  # on another disk, or on one without links
            shutil.copy(path, kept)
        return str(kept)

    # Runs

    def open_page(self, memory: dict, run_in_address: str | None) -> Changes:
        """On opening the page: the run in the address, or the browser's last one, with its settings."""
        memory = dict(memory or {})
        memory.setdefault("owner", secrets.token_hex(16))
        ready: Changes = {"go": {"interactive": True}, "model": {"choices": self._models(memory["owner"])}}
        for run_id in (run_in_address, memory.get("run")):
            if self.queue.folder(run_id or ""):
                found = self._shown(run_id)
                found["model"] = {**ready["model"], **found.get("model", {})}
                return {**ready, "memory": {"value": {**memory, "run": run_id}}, **found}
        return {**ready, "memory": {"value": {**memory, "run": ""}}, "run": {"value": ""}}

    def _models(self, owner: str) -> list[tuple[str, str]]:
        """What is offered to prune: what is shipped, a visitor's recent models, and those on this machine."""
        recent = [info.recipe.model for info in self.queue.listed(owner) if info.recipe]
        return [(found.repo, found.repo) for found in local_models("", recent)]

    def choose(self, memory: dict, run_id: str) -> Changes:
        """Show a run; an empty id is a new one."""
        found = self._shown(run_id) if self.queue.folder(run_id or "") else {"run": {"value": ""}}
        return {
            "memory": {"value": {**memory, "run": found["run"]["value"]}},
            "notice": {"value": ""},
            **found,
        }

    def _shown(self, run_id: str) -> Changes:
        try:
            values = to_form(self.queue.recipe(run_id))
        except UserError:  # it cannot be read, as its status says
            values = {}
        return {"run": {"value": run_id}, **values}

    @show_errors
    def start(self, memory: dict, *values) -> Changes:
        """Make a run of the form's settings, and show it."""
        recipe = self.looks.admitted(from_form(*values))
        return self._show_new(memory, self.queue.start(recipe, _owner(memory)))

    def _show_new(self, memory: dict, run_id: str) -> Changes:
        return {
            "run": {"value": run_id},
            "memory": {"value": {**memory, "run": run_id}},
            "notice": {"value": ""},
            "tabs": {"selected": "live"},
        }

    def _check_may_change(self, memory: dict, run_id: str) -> None:
        """Check that a visitor may change a run.

        Raises:
            UserError: it is somebody else's, or deleted.
        """
        if self.queue.folder(run_id) is None:
            raise UserError(NO_RUN)
        if not self.queue.may_change(run_id, memory.get("owner", "")):
            raise UserError(
                "Only the browser that started a run can change it. Branch from it to get a run of your own."
            )

    @show_errors
    def act(self, action: str, memory: dict, run_id: str) -> Changes:
        """Stop, pause, resume, undo or export_now. A running run is paused before it is exported."""
        self._check_may_change(memory, run_id)
        if action == "undo":
            running = self.queue.summary(run_id)[1] in LIVE
            self.queue.undo(run_id)
            if running:
                self.queue.resume(run_id)
        elif action == "export_now" and self.queue.summary(run_id)[1] in LIVE:
            self.queue.pause(run_id)
            self.queue.export_now(run_id)
        else:
            getattr(self.queue, action)(run_id)
        return {"notice": {"value": ""}}

    @show_errors
    def extend(self, memory: dict, run_id: str, target: float) -> Changes:
        """Continue the run to the form's target."""
        self._check_may_change(memory, run_id)
        look = self.looks.at(self.queue.recipe(run_id))
        self.queue.extend(run_id, target / 100, look)
        return {"notice": {"value": ""}}

    @show_errors
    def repeat(self, stage: str, memory: dict, run_id: str, *values) -> Changes:
        """Let a stage do its work anew, with the form's settings of it."""
        self._check_may_change(memory, run_id)
        asked = from_form(*values)
        changes = {info.name: getattr(asked, info.name) for info in Recipe.settings() if info.stage == stage}
        self.queue.repeat(run_id, stage, changes, self.looks.at(self.queue.recipe(run_id), asked))
        return {"notice": {"value": ""}}

    @show_errors
    def fork(self, memory: dict, run_id: str, upto: float | None, *values) -> Changes:
        """A new run that keeps this one's first removals, with the form's settings."""
        if self.queue.folder(run_id) is None:
            raise UserError("There is no run to branch from.")
        if upto is not None and upto != int(upto):
            raise UserError(f"{labels.CONTROLS['upto'][0]}: enter a whole number, not {upto:g}.", "upto")
        recipe = self.looks.admitted(from_form(*values))
        look = self.looks.at(self.queue.recipe(run_id), recipe)
        kept = None if upto is None else int(upto)
        made = self.queue.fork(run_id, recipe.to_dict(), kept, _owner(memory), look=look)
        # What it goes on with may have been decided by the run it branches from.
        return {**self._show_new(memory, made), **to_form(self.queue.recipe(made))}

    @show_errors
    def sweep(self, memory: dict, methods: list[str], *values) -> Changes:
        """A run for every method, otherwise with the form's settings; they are queued and compared."""
        if not methods:
            raise UserError("Choose the methods to compare first.")
        recipe, owner = from_form(*values), _owner(memory)
        recipes = [self.looks.admitted(recipe.but(method=name)) for name in dict.fromkeys(methods)]
        self.queue.check_room(owner, len(recipes))
        ids = [self.queue.start(made, owner) for made in recipes]
        listed = self.queue.listed(owner)
        return {
            **self._show_new(memory, ids[0]),
            "tabs": {"selected": "compare"},
            "chosen": {"choices": menu(self.queue, listed, ids[0]), "value": ids},
            "picked": {"value": ids},
        }

    @show_errors
    def act_on(self, memory: dict, shown: str, asked: dict) -> Changes:
        """Rename, delete or bring back the run of a row of the table.

        Args:
            shown: id of the run that the page shows.
            asked: "act", "run", and for a renamed one "name" and "note".
        """
        run_id, act = asked.get("run", ""), asked.get("act", "")
        if act == "restore":
            self.queue.restore(run_id, memory.get("owner", ""))
        elif not self.queue.owns(run_id, memory.get("owner", "")):
            raise UserError("Only the browser that started a run can rename or delete it.")
        elif act == "edit":
            self.queue.rename(run_id, asked.get("name", ""))
            self.queue.annotate(run_id, asked.get("note", ""))
        elif act == "delete":
            self.queue.delete(run_id)
            if run_id == shown:
                return {**self.choose(memory, ""), "seen": {"value": []}}
        return {"seen": {"value": []}, "notice": {"value": ""}}

    # For programs

    def launch(self, settings: dict, name: str = "", key: str = "") -> str:
        """Make a run from the settings of a recipe; returns its id.

        Whoever has the link of a run sees it. On a page that is open to others only a program that names the
        `key` it was started with can stop it, and nobody where none was named.

        Raises:
            UserError: see `Recipe` and `engine.run.check`.
        """
        recipe = self.looks.admitted(Recipe.from_json(json.dumps(settings)), resolve=False)
        owner = key if key or local_files() else self._programs
        return self.queue.start(recipe, owner, name)

    def halt(self, run_id: str, key: str) -> None:
        """Stop a run that a program started.

        Raises:
            UserError: there is no such run, or the key is another one.
        """
        self._check_may_change({"owner": key}, run_id)
        self.queue.stop(run_id)


def _owner(memory: dict) -> str:
    """The secret token of a visitor's browser.

    Raises:
        UserError: the browser has not sent it.
    """
    if not memory.get("owner"):
        raise UserError("This page is not ready yet: reload it, then try again.")
    return memory["owner"]
