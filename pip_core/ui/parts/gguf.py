"""The shown run's model as a GGUF file, where llama.cpp's converter is there to make one."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path

from ...checkpoints.gguf_export import FORMATS, converter, teller_here, write_gguf
from ...core.errors import UserError
from ...core.events import Loading
from ...core.figures import percent
from ...core.recipe import Recipe
from ...runs.files import MODEL, gguf_file
from ...runs.queue import RunQueue
from ..fields import Changes
from ..html import problem
from ..layout import Node, Part, Services, Wire, button, html, row
from ..looking import Looks
from ..shown import Shown

BUSY = "Another GGUF file is being made. Try again in a minute."
# One at a time: each needs the memory of two models.
_making = threading.Lock()


def layout(_: Services) -> Sequence[Node]:
    return [
        row(
            *(
                button(f"gguf_make_{form}", f"Make a GGUF file ({words})", visible=False)
                for form, words in FORMATS.items()
            ),
            *(
                button(f"gguf_{form}", f"Download the GGUF file ({words})", "DownloadButton", visible=False)
                for form, words in FORMATS.items()
            ),
            elem_id="gguf_row",
        ),
        html("gguf_state"),
    ]


def make(form: str, queue: RunQueue, looks: Looks, run_id: str) -> Iterator[Changes]:
    """Make the file in a format, and say how far it is."""
    folder = queue.folder(run_id)
    if folder is None or not (folder / MODEL).is_dir():
        yield {"gguf_state": {"value": problem("There is no exported model yet.")}}
        return
    if not _making.acquire(blocking=False):
        yield {"gguf_state": {"value": problem(BUSY)}}
        return
    try:
        teller = _teller(looks, folder / MODEL, queue.recipe(run_id))
        steps = write_gguf(folder / MODEL, folder / gguf_file(form), teller, form)
        try:
            while True:
                step = next(steps)
                share = f": {percent(step.done / step.total, 0)}" if step.total else ""
                line = f"{step.what[:1].upper()}{step.what[1:]}{share} …"
                yield {"gguf_state": {"value": f"<p class='line' role='status'>{escape(line)}</p>"}}
        except StopIteration as end:
            made = end.value
        finally:
            steps.close()
        yield {
            "gguf_state": {"value": f"<p class='line'>{escape(made.sentence())}</p>"},
            f"gguf_make_{form}": {"visible": False},
            f"gguf_{form}": {"visible": True, "value": str(made.file)},
        }
    except UserError as error:
        yield {"gguf_state": {"value": problem(error)}}
    finally:
        _making.release()


def _teller(looks: Looks, model: Path, recipe: Recipe) -> Generator[Loading, None, Path | None]:
    """The dense model is somebody's: it is looked at in another process, and not downloaded."""
    yield Loading("looking at the whole model")
    return looks.at(recipe)(teller_here, model, recipe.model)


def wires(page: Services) -> Sequence[Wire]:
    return [
        Wire(
            (f"gguf_make_{form}.click",),
            partial(make, form, page.queue, page.handlers.looks),
            ("run",),
            ("gguf_state", f"gguf_make_{form}", f"gguf_{form}"),
        )
        for form in FORMATS
    ]


def offer(shown: Shown) -> Changes:
    """For each format the file that is there, or else the button that makes it; or why there is none."""
    finished = shown.state == "finished" and shown.summary.exported is not None and not shown.example
    why = ""
    try:
        converter()
    except UserError as error:
        why = f"<p class='line'>{escape(str(error))}</p>"
    changes: Changes = {"gguf_state": {"value": why if finished else ""}}
    for form in FORMATS:
        file = shown.folder / gguf_file(form) if shown.folder and finished else None
        there = file is not None and _is_of_the_model(file)
        changes[f"gguf_make_{form}"] = {"visible": finished and not why and not there}
        changes[f"gguf_{form}"] = {"visible": there, "value": str(file) if there else None}
    return changes


def _is_of_the_model(file: Path) -> bool:
    """Whether a file that is there was made of the model that is there now."""
    model = file.parent / MODEL
    return file.is_file() and model.is_dir() and file.stat().st_mtime >= model.stat().st_mtime


NAMES = tuple(f"gguf_{made}{form}" for form in FORMATS for made in ("make_", ""))
PART = Part("gguf", layout, wires, offered=(*NAMES, "gguf_state"), offer=offer)
