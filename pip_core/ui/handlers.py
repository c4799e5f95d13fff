"""What the page does when something is pressed: plain values in, plain changes out. No gradio.

A change is a component's name to the properties it gets, such as `{"stop": {"visible": True}}`.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import UserError
from ..core.recipe import GLOBAL, Recipe
from ..core.settings import AUTO
from ..core.units import ATTENTION, BLOCKS, MLP, WIDTH
from ..data.corpora import PASTED
from ..engine.run import check
from ..planning.estimate import anatomy_for, make_plan, resolve_auto_units
from ..reporting.run_summary import RunSummary
from ..runs import run_directory
from ..runs.queue import UPLOADS, RunQueue
from ..ui import form
from .heatmap import ranking
from .html import empty, problem
from .refresh import LIVE, Changes, menu, show_errors

FIELDS = (
    *("model", "calibration", "pasted", "method", "units", "target", "keep", "drop", "kinds", "rate"),
    *("asked", "questions", "windows", "window_tokens", "items", "seed"),
    *("allocation", "depth_share", "step", "vocabulary", "refit", "dtype"),
)
# Told in percent.
SHARES = ("target", "rate", "depth_share")
# A switch that has a third place, `auto`.
YES, NO = "yes", "no"


def from_form(*values) -> Recipe:
    """The recipe that the form says.

    Raises:
        UserError: a value is missing or out of range.
    """
    given = dict(zip(FIELDS, values, strict=True))
    given["model"] = (given["model"] or "").strip()
    pasted = (given.pop("pasted") or "").strip()
    given["calibration"] = PASTED + pasted if pasted else given["calibration"]
    questions = (given.pop("questions") or "").strip()
    given["tasks"] = (*(given.pop("asked") or ()), *([PASTED + questions] if questions else ()))
    for name in SHARES:
        given[name] = given[name] / 100
    given["refit"] = {YES: True, NO: False}.get(given["refit"], AUTO)
    given["vocabulary"] = _percent(given["vocabulary"])
    given["units"] = tuple((given["units"] or "").split(","))
    for name in ("keep", "drop"):
        given[name] = tuple(int(block) for block in given[name] or ())
    for name in ("windows", "window_tokens", "items", "seed"):
        number = given[name]
        given[name] = int(number) if number is not None and number == int(number) else number
    recipe = Recipe(**given)
    # What cannot be an ordinary checkpoint is said beside the choice, and again in the plan.
    uneven = {ATTENTION, MLP} & set(recipe.units)
    uneven |= set(WIDTH) & set(recipe.units) if recipe.allocation == GLOBAL else set()
    return recipe.replace(plain=not uneven)


def _percent(text: str | None) -> float | str:
    """A share in percent, or `auto`.

    Raises:
        UserError: it is no number.
    """
    text = (text or "").strip().removesuffix("%")
    try:
        return AUTO if text in ("", AUTO) else float(text) / 100
    except ValueError:
        raise UserError(f"The tokens' part of the target is a number or {AUTO}, not '{text}'.") from None


def to_form(recipe: Recipe) -> Changes:
    """The form that says a recipe."""
    # What goes with the model is `auto`, so that another model in the form brings its own.
    values = {**recipe.to_dict(), **recipe.automatic(), "pasted": ""}
    values |= {name: values[name] * 100 for name in SHARES}
    values["refit"] = {True: YES, False: NO}.get(values["refit"], AUTO)
    if values["vocabulary"] != AUTO:
        values["vocabulary"] = f"{values['vocabulary'] * 100:g}"
    values["kinds"], values["units"] = list(recipe.kinds), ",".join(values["units"])
    values["keep"], values["drop"] = list(map(str, recipe.keep)), list(map(str, recipe.drop))
    if recipe.calibration.startswith(PASTED):
        values["pasted"], values["calibration"] = recipe.calibration.removeprefix(PASTED), AUTO
    values["asked"] = [t for t in values["tasks"] if not t.startswith(PASTED)]
    values["questions"] = "\n".join(t.removeprefix(PASTED) for t in recipe.tasks if t.startswith(PASTED))
    return {name: {"value": values[name]} for name in FIELDS}


class PageHandlers:
    """The page's mind: it reads and steers the runs of a studio."""

    def __init__(self, studio: RunQueue) -> None:
        self.studio = studio

    # The form

    def meaning(self, run_id: str, *values) -> Changes:
        """What the form says, in words and pictures; `run_id` is the run that is looked at."""
        changes: Changes = {"notice": {"value": ""}}
        try:
            recipe, given = from_form(*values), dict(zip(FIELDS, values, strict=True))
        except UserError as error:
            return {"plan": {"value": problem(str(error))}}
        changes["method_note"] = {"value": form.method_note(recipe.method)}
        shown = form.checked(form.two_views, recipe)
        changes["views"] = changes["views_small"] = {"value": shown}
        try:
            changes["model_line"] = {"value": form.model_line(recipe)}
            recipe = resolve_auto_units(recipe)
            changes["map"] = {"value": form.model_card_part(recipe)}
            choices = form.unit_choices(recipe)
            changes["units"] = {"choices": choices}
            # Where a method or model cannot do what was chosen, the first that it can is chosen.
            if choices and given["units"] not in {value for _, value in choices}:
                changes["units"]["value"] = AUTO
            blocks = [(str(n), str(n)) for n in range(len(anatomy_for(recipe.model).blocks))]
            changes["keep"] = changes["drop"] = {"choices": blocks}
            changes["locks"] = {"value": form.locks_line(recipe, self._ranks(run_id, recipe))}
        except UserError as error:
            changes["model_line"] = {"value": problem(str(error))}
            changes["plan"] = {"value": "<div class='plan'>&nbsp;</div>"}
            changes["map"] = {"value": empty("The model is drawn here as soon as it is found.")}
            return changes
        try:
            changes["plan"] = {"value": form.plan_line(make_plan(recipe), recipe)}
        except UserError as error:
            changes["plan"] = {"value": problem(str(error))}
        return changes

    def _ranks(self, run_id: str, recipe: Recipe) -> dict[int, int] | None:
        """How the blocks ranked at first in a run, where it is one of this model and method."""
        folder = self.studio.folder(run_id or "")
        try:
            if folder is None:
                return None
            other = run_directory.recipe_of(folder)
            if (other.model, other.method) != (recipe.model, recipe.method):
                return None
            return ranking(self.studio.story(run_id)[0]).get((1, BLOCKS))
        except UserError:  # of another version
            return None

    def upload(self, path: str) -> Changes:
        """Read an uploaded text, which stays where a run can read it again later."""
        return {"calibration": {"value": self._kept(path)}, "pasted": {"value": ""}}

    def upload_task(self, path: str, asked: list[str]) -> Changes:
        """Ask an uploaded task, too; instead of the usual ones, where only these were asked."""
        return {"asked": {"value": [*(name for name in asked or () if name != AUTO), self._kept(path)]}}

    def _kept(self, path: str) -> str:
        folder = self.studio.root / UPLOADS / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return str(shutil.copy(path, folder / Path(path).name))

    # Runs

    def opened(self, memory: dict, asked: str | None) -> Changes:
        """On opening the page: the run in the address, else the browser's last one, with its settings."""
        memory = dict(memory or {})
        memory.setdefault("owner", secrets.token_hex(16))
        ready = {"go": {"interactive": True}}
        for run_id in (asked, memory.get("run")):
            if self.studio.folder(run_id or ""):
                return {**ready, "memory": {"value": {**memory, "run": run_id}}, **self._shown(run_id)}
        return {**ready, "memory": {"value": {**memory, "run": ""}}, "run": {"value": ""}}

    def choose(self, memory: dict, run_id: str) -> Changes:
        """Look at a run; an empty id is a new one."""
        found = self._shown(run_id) if self.studio.folder(run_id or "") else {"run": {"value": ""}}
        return {
            "memory": {"value": {**memory, "run": found["run"]["value"]}},
            "notice": {"value": ""},
            **found,
        }

    def _shown(self, run_id: str) -> Changes:
        try:
            fields = to_form(run_directory.recipe_of(self.studio.folder(run_id)))
        except UserError:  # of another version; `look` says so
            fields = {}
        return {"run": {"value": run_id}, **fields}

    @show_errors
    def start(self, memory: dict, *values) -> Changes:
        """Prune: make a run, and look at it."""
        recipe = resolve_auto_units(from_form(*values))
        check(recipe)
        run_id = self.studio.start(recipe, memory["owner"])
        return self._going(memory, run_id)

    def _going(self, memory: dict, run_id: str) -> Changes:
        return {
            "run": {"value": run_id},
            "memory": {"value": {**memory, "run": run_id}},
            "notice": {"value": ""},
            "tabs": {"selected": "live"},
        }

    def _steered(self, memory: dict, run_id: str) -> None:
        """Raises:
        UserError: the run is somebody else's, or gone.
        """
        if self.studio.folder(run_id) is None:
            raise UserError("There is no such run. It may have been deleted.")
        if not self.studio.steers(run_id, memory.get("owner", "")):
            raise UserError(
                "Only the browser that started a run can change it. Fork it, to go on with a run of your own."
            )

    @show_errors
    def act(self, action: str, memory: dict, run_id: str) -> Changes:
        """Stop, pause, resume, undo, export_now. A run that goes on is paused before it is exported."""
        self._steered(memory, run_id)
        if action == "undo":
            going = self.studio.story(run_id)[1] in LIVE
            self.studio.undo(run_id)
            if going:
                self.studio.resume(run_id)
        elif action == "export_now" and self.studio.story(run_id)[1] in LIVE:
            self.studio.pause(run_id)
            self.studio.export_now(run_id)
        else:
            getattr(self.studio, action)(run_id)
        return {"notice": {"value": ""}}

    @show_errors
    def extend(self, memory: dict, run_id: str, target: float) -> Changes:
        """Go on with the run to the form's target."""
        self._steered(memory, run_id)
        self.studio.extend(run_id, target / 100)
        return {"notice": {"value": ""}}

    @show_errors
    def fork(self, memory: dict, run_id: str, upto: float | None, *values) -> Changes:
        """A new run from this one's first removals, with the form's settings."""
        if self.studio.folder(run_id) is None:
            raise UserError("There is no run to go on from.")
        recipe = resolve_auto_units(from_form(*values)).to_dict()
        made = self.studio.fork(run_id, recipe, None if upto is None else int(upto), memory["owner"])
        return self._going(memory, made)

    @show_errors
    def sweep(self, memory: dict, methods: list[str], *values) -> Changes:
        """A run for every method, all else as the form says; they wait in line, and are compared."""
        if not methods:
            raise UserError("Choose the methods to compare first.")
        recipe = resolve_auto_units(from_form(*values))
        recipes = [resolve_auto_units(recipe.but(method=name)) for name in methods]
        for made in recipes:
            check(made)
        ids = [self.studio.start(made, memory["owner"]) for made in recipes]
        listed = self.studio.listed(memory["owner"])
        return {
            **self._going(memory, ids[0]),
            "tabs": {"selected": "compare"},
            "chosen": {"choices": menu(self.studio, listed, ids[0]), "value": ids},
            "picked": {"value": ids},
        }

    @show_errors
    def rename(self, memory: dict, run_id: str, name: str) -> Changes:
        """Call the run something else."""
        self._steered(memory, run_id)
        self.studio.rename(run_id, name)
        return {"seen": {"value": []}, "notice": {"value": ""}}

    @show_errors
    def delete(self, memory: dict, run_id: str) -> Changes:
        """Throw the run away."""
        if not self.studio.owns(run_id, memory.get("owner", "")):
            raise UserError("Only the browser that started a run can delete it.")
        self.studio.delete(run_id)
        return {**self.choose(memory, ""), "seen": {"value": []}}

    # For programs

    def launch(self, settings: dict, name: str = "") -> str:
        """Make a run from the settings of a recipe; returns its id.

        Raises:
            UserError: see `Recipe` and `engine.check`.
        """
        recipe = Recipe.from_json(json.dumps(settings))
        check(recipe)
        return self.studio.start(recipe, name=name)

    def follow(self, run_id: str) -> Iterator[dict]:
        """A run's state once a second, and whenever it changes, until it ends."""
        if self.studio.folder(run_id) is None:
            raise UserError("There is no such run. It may have been deleted.")
        last = None
        while True:
            story, state = self.studio.story(run_id)
            now = _facts(run_id, story, state)
            if now != last:
                yield now
                last = now
            if state not in LIVE:
                return
            time.sleep(0.5)


def _facts(run_id: str, story: RunSummary, state: str) -> dict:
    """A run for a program: plain JSON values."""
    latest, progress = story.latest, story.progress
    return {
        "run": run_id,
        "state": state,
        "iterations": len(story.removals),
        "planned": story.planned,
        "stage": getattr(progress, "stage", "loading") if progress else "",
        "parameters": story.removals[-1].parameters
        if story.removals
        else getattr(story.started, "parameters", 0),
        "accuracy": latest.accuracy if latest else None,
        "perplexity": latest.perplexity if latest else None,
        "message": getattr(story.ending, "message", ""),
        "verified": story.exported is not None,
    }
