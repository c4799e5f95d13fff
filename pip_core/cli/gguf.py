"""The command that makes a GGUF file of a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import UserError


def gguf(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of the run", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="the file to write; without it pruned-FORMAT.gguf in the run's folder")
    ] = Path(),
    format: Annotated[
        str, typer.Option(help="f16 for float16, or q8_0 for 8 bits in blocks of 32 with a scale each")
    ] = "f16",
) -> int:
    """Make a GGUF file of the model of a run with llama.cpp's converter, and check it."""
    from ..checkpoints.gguf_export import FORMATS, teller_of, write_gguf
    from ..checkpoints.reference import local_folder
    from ..runs.files import gguf_file
    from ..runs.run_directory import recipe_of
    from .display import Display

    if format not in FORMATS:
        raise UserError(f"--format is {' or '.join(FORMATS)}, not '{format}'.")
    dense = recipe_of(run).model
    folder = local_folder(str(run))
    if folder is None:
        raise UserError(f"There is no folder '{run}'.")
    target = run / gguf_file(format) if out == Path() else out
    with Display() as display:
        made = display.drained(write_gguf(folder, target, teller_of(folder, dense), format))
    print(f"{made.file}: {made.sentence()}")
    return 0
