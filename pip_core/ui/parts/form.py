"""The form: model, text, method and units, target; then what few people change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ...core.limits import local_files
from ...core.recipe import Recipe
from ...data.files import PACKED, TABLES
from ...scoring import METHODS
from .. import fields, finding, form, serving
from ..fields import Changes
from ..handlers import NEW_RUN, PREVIEW
from ..layout import LAST, Node, Part, Services, Wire, button, column, control, folding, html, row, words

# What a reset changes beside the fields.
RESET = ("before", "unreset")
TEXT_FILES = [".txt", ".md", *TABLES, PACKED]
# What a model can be where no folder of this machine can be named.
ON_THE_HUB = "From the list, or a Hugging Face id"
SEVERAL = {"trigger_mode": "multiple"}
TASK_FILES = [*TABLES, PACKED]


def layout(page: Services) -> Sequence[Node]:
    typed, several = {"allow_custom_value": True}, {"multiselect": True}
    methods = [(m.title, m.name) for m in METHODS]
    texts = folding(
        "See the two texts, or use your own",
        control("kinds", "CheckboxGroup", choices=form.EDITS),
        control("rate", "Slider", minimum=5, maximum=100, step=5),
        html("views_small"),
        control("pasted", "Textbox", lines=2, max_lines=6),
        _upload("upload", "Upload a text file", TEXT_FILES),
    )
    search = folding(
        "Find a model on the Hub",
        control("search", "Textbox", value="", max_lines=1),
        html("found_note"),
        control("found", "Radio", choices=[], visible=False),
    )
    how = control("method", "Dropdown", choices=methods), control("units", "Dropdown")
    blocks = folding(
        "Keep or drop single blocks",
        control("keep", "Dropdown", **several),
        control("drop", "Dropdown", **several),
        html("locks"),
    )
    measured = folding(
        "What is measured",
        control("measured_tasks", "Dropdown", choices=form.MEASURED_TASKS, **several, **typed),
        control("items", "Number"),
        control("questions", "Textbox", lines=2, max_lines=6),
        _upload("upload_task", "Upload questions", TASK_FILES),
    )
    named = {} if local_files() else {"info": ON_THE_HUB}
    return [
        folding(
            "What to prune, and how",
            _step(
                control("model", "Dropdown", choices=form.MODELS, **typed, **named),
                html("model_line"),
                search,
            ),
            _step(control("calibration", "Dropdown", choices=form.TEXTS, **typed), texts),
            _step(*how, html("method_note")),
            _step(control("target", "Slider", minimum=2, maximum=60, step=1)),
            # Together, so that what will be removed is read where it is pressed, on a low window too.
            column(
                html("plan"),
                # Enabled once the browser has sent its token: a run started before would have no owner.
                Node("Button", "go", (), {"value": "Prune", "variant": "primary", "interactive": False}),
                elem_id="decide",
            ),
            html("kept", **serving.kept(page.queue.root)),
            blocks,
            measured,
            folding("Advanced", *_generated()),
            Node("State", "before", (), {"value": ()}),
            row(
                button("reset", "Reset the form", elem_classes="quiet"),
                button("unreset", "Undo the reset", visible=False, elem_classes="quiet"),
                elem_id="resetting",
            ),
            open=True,
            elem_id="form",
        )
    ]


def _step(*children: Node) -> Node:
    return column(*children, elem_classes="step")


def _upload(name: str, label: str, types: Sequence[str]) -> Node:
    return Node("UploadButton", name, (), {"label": label, "size": "sm", "file_types": list(types)})


def _generated() -> Sequence[Node]:
    """Controls of settings that have none made by hand, stage by stage."""
    found = []
    for group, controls in groupby(fields.controls(), lambda made: made.group):
        found.append(words(f"<h3 class='group'>{group}</h3>"))
        for made in controls:
            found.append(
                Node(made.component, made.name, (), {"label": made.label, "info": made.info, **made.options})
            )
    return found


def wires(page: Services) -> Sequence[Wire]:
    act, names = page.handlers, fields.fields()
    changes = tuple(f"{name}.change" for name in names)
    tasks = ("measured_tasks",)
    finder = finding.Finder(act.looks.fitting)

    def search(memory: dict, text: str) -> Iterator[Changes]:
        infos = page.queue.listed(memory.get("owner", ""))
        recent = [info.recipe.model for info in infos if info.recipe]
        yield from finder.search(memory, text, recent)

    return [
        # All at once, not one after the other: the first ends as soon as the next begins.
        # Not `input`, see `tokens`.
        Wire(("search.change",), search, ("memory", "search"), ("found", "found_note"), options=SEVERAL),
        Wire(("found.input",), _chosen, ("found",), ("model",), options=LAST),
        Wire(changes, act.preview_form, ("run", *names), PREVIEW, options=LAST),
        # The verdict comes when a run ends.
        Wire(("banner.change",), act.importance, ("run", *names), ("locks",), options=LAST),
        Wire(
            *(("go.click", "again.click"), act.start, ("memory", *names), NEW_RUN),
            refreshes=True,
            finally_js="() => pip.fold()",
        ),
        Wire(("reset.click",), _reset, names, (*names, *RESET)),
        Wire(("unreset.click",), _unreset, ("before",), (*names, *RESET)),
        Wire(("upload.upload",), act.upload, ("upload",), ("calibration", "pasted")),
        Wire(("upload_task.upload",), act.upload_task, ("upload_task", *tasks), tasks),
    ]


def _chosen(model: str) -> Changes:
    return {"model": {"value": model}} if model else {}


def _reset(*values) -> Changes:
    """The usual values; those that were entered are kept, to be brought back."""
    usual = fields.to_form(Recipe())
    changed = [usual[name]["value"] for name in fields.fields()] != list(values)
    return {**usual, "before": {"value": values}, "unreset": {"visible": changed}}


def _unreset(before: Sequence) -> Changes:
    entered = {name: {"value": value} for name, value in zip(fields.fields(), before, strict=True)}
    return {**entered, "unreset": {"visible": False}}


PART = Part("form", layout, wires)
