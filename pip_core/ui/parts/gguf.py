"""The shown run's model as a GGUF file, where llama.cpp's converter is there to make one."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path

from ...checkpoints.gguf_export import converter, teller_here, write_gguf
from ...core.errors import UserError
from ...core.events import Loading
from ...core.recipe import Recipe
from ...reporting.messages import percent
from ...runs.files import GGUF, MODEL
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
            button("gguf_make", "Make a GGUF file (float16)", visible=False),
            button("gguf", "Download the GGUF file", "DownloadButton", visible=False),
            elem_id="gguf_row",
        ),
        html("gguf_state"),
    ]


def make(queue: RunQueue, looks: Looks, run_id: str) -> Iterator[Changes]:
    """Make the file, and say how far it is."""
    folder = queue.folder(run_id)
    if folder is None or not (folder / MODEL).is_dir():
        yield {"gguf_state": {"value": problem("There is no exported model yet.")}}
        return
    if not _making.acquire(blocking=False):
        yield {"gguf_state": {"value": problem(BUSY)}}
        return
    try:
        steps = write_gguf(
            folder / MODEL, folder / GGUF, _teller(looks, folder / MODEL, queue.recipe(run_id))
        )
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
        words = (
            f"<p class='line'>{made.bytes / 1e6:.0f} MB. Loaded back, it splits texts as the model does, and "
            "its logits are those of the rounded weights (largest difference "
            f"{made.largest_difference:.0e}).</p>"
        )
        yield {"gguf_state": {"value": words}, "gguf": {"visible": True, "value": str(made.file)}}
    except UserError as error:
        yield {"gguf_state": {"value": problem(str(error))}}
    finally:
        _making.release()


def _teller(looks: Looks, model: Path, recipe: Recipe) -> Generator[Loading, None, Path | None]:
    """The dense model is somebody's: it is looked at in another process, and not downloaded."""
    yield Loading("looking at the dense model")
    return looks.at(recipe)(teller_here, model, recipe.model)


def wires(page: Services) -> Sequence[Wire]:
    outputs = ("gguf_state", "gguf")
    return [Wire(("gguf_make.click",), partial(make, page.queue, page.handlers.looks), ("run",), outputs)]


def offer(shown: Shown) -> Changes:
    """The button; or why there is none."""
    finished = shown.state == "finished" and shown.summary.exported is not None and not shown.example
    why = ""
    try:
        converter()
    except UserError as error:
        why = f"<p class='line'>GGUF: {escape(str(error))}</p>"
    file = shown.folder / GGUF if shown.folder else None
    there = finished and file is not None and _is_of_the_model(shown)
    return {
        "gguf_make": {"visible": finished and not why},
        "gguf": {"visible": there, "value": str(file) if there else None},
        "gguf_state": {"value": why if finished else ""},
    }


def _is_of_the_model(shown: Shown) -> bool:
    """Whether the file that is there was made of the model that is there now."""
    if shown.folder is None:
        return False
    file, model = shown.folder / GGUF, shown.folder / MODEL
    return file.is_file() and model.is_dir() and file.stat().st_mtime >= model.stat().st_mtime


PART = Part("gguf", layout, wires, offered=("gguf_make", "gguf", "gguf_state"), offer=offer)
