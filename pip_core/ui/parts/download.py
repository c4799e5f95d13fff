"""What there is to take home: the verified model, its card, recipe, events and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.limits import local_files
from ...core.public_text import public
from ...runs.files import EVENTS, MODEL, PUBLIC, RECIPE
from ...runs.worker import UNREADABLE
from .. import comparison, download, labels
from ..fields import Changes
from ..html import empty
from ..layout import Drawing, Node, Part, Services, button, column, html, row
from ..shown import NOTHING, Shown, as_file
from . import gguf, push
from .chat import NOT_SHIPPED

# Tables of what a run has come to.
TABLES = ("csv", "scores_csv")
# Beside the packed model, whose button also depends on how far it is packed; see `refresh`.
FILES = tuple(name for name, _ in labels.FILES if name not in TABLES)
OFFERED = ("verdict", "load", "command", *FILES)


def layout(page: Services) -> Sequence[Node]:
    return [
        column(
            html("verdict", download.verdict(NOTHING)),
            button("zip", "Download", "DownloadButton", visible=False, variant="primary"),
            row(
                *(button(name, text, "DownloadButton", visible=False) for name, text in labels.FILES),
                elem_id="files",
            ),
            *gguf.PART.layout(page),
            html("load"),
            html("command"),
            elem_classes="card",
        ),
        *push.PART.layout(page),
    ]


def offer(shown: Shown) -> Changes:
    summary, folder, recipe = shown.summary, shown.folder, shown.recipe
    changes: Changes = {name: {"visible": False} for name in FILES}
    changes |= {"load": {"value": ""}, "command": {"value": ""}}
    changes["verdict"] = {"value": download.verdict(summary)}
    if folder is None:
        return changes
    for name, file in (("recipe", RECIPE), ("events", EVENTS)):
        if (folder / file).is_file():
            changes[name] = _offered(folder, file)
    if recipe is None:
        return changes
    if shown.example:
        changes["verdict"] = {"value": empty(NOT_SHIPPED)}
    else:
        changes["verdict"] = {"value": download.verdict(summary, recipe)}
        changes["load"] = {"value": download.snippet(summary)}
    command = download.code("The same run on the command line", public(download.command_line(recipe)))
    if summary.exported is not None and local_files() and not shown.example:
        # Elsewhere the folder is none of a visitor's.
        command += download.code("Its model to the Hugging Face Hub", download.push_line(folder))
    changes["command"] = {"value": command}
    card = folder / MODEL / "README.md"
    if shown.state == "finished" and card.is_file():
        changes["card"] = {"value": str(card), "visible": True}
    return changes


def _measurements(shown: Shown) -> Changes:
    """Every measurement as a table, written into the folder of the run."""
    summary, folder, recipe = shown.summary, shown.folder, shown.recipe
    if summary.dense is None or folder is None or recipe is None or shown.state in UNREADABLE:
        return {"csv": {"visible": False}}
    run = comparison.Compared(shown.run_id, recipe, summary, shown.state)
    return {"csv": as_file(folder, comparison.as_csv([run]), "measurements.csv")}


def _scores(shown: Shown) -> Changes:
    """Every score, the same way."""
    if not shown.summary.scored or shown.folder is None or shown.state in UNREADABLE:
        return {"scores_csv": {"visible": False}}
    return {"scores_csv": as_file(shown.folder, comparison.scores_csv(shown.summary), "scores.csv")}


def _offered(folder: Path, file: str) -> dict:
    """A file of the run; on a page that is open to others, without the folders of this machine."""
    if local_files():
        return {"value": str(folder / file), "visible": True}
    try:
        text = (folder / file).read_text(encoding="utf-8")
        (folder / PUBLIC).mkdir(exist_ok=True)
    except (OSError, UnicodeDecodeError):  # damaged, as its status says, or read-only
        return {"visible": False}
    return as_file(folder / PUBLIC, public(text), file)


DRAWINGS = (
    Drawing(("csv",), ("started", "evaluated", "finals", "removals"), _measurements),
    Drawing(("scores_csv",), ("scored",), _scores),
)
PART = Part("download", layout, drawings=DRAWINGS, offered=OFFERED, offer=offer)
