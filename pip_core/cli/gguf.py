"""The command that makes a GGUF file of a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import UserError


def gguf(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of the run", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="the file to write; without it pruned-f16.gguf in the run's folder")
    ] = Path(),
) -> int:
    """Make a GGUF file of the model of a run with llama.cpp's converter, in float16, and check it."""
    from ..checkpoints.gguf_export import teller_of, write_gguf
    from ..checkpoints.reference import local_folder
    from ..runs.files import GGUF
    from ..runs.run_directory import recipe_of
    from .display import Display

    dense = recipe_of(run).model
    folder = local_folder(str(run))
    if folder is None:
        raise UserError(f"There is no folder '{run}'.")
    target = run / GGUF if out == Path() else out
    with Display() as display:
        made = display.drained(write_gguf(folder, target, teller_of(folder, dense)))
    print(
        f"{made.file}: {made.bytes / 1e6:.0f} MB, in float16. Loaded back, it splits texts as the model "
        "does, and its logits are those of the rounded weights (they differ by at most "
        f"{made.largest_difference:.1e})."
    )
    return 0
