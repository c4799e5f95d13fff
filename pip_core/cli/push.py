"""The command that pushes a run's model to the Hub."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import UserError


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of the run", show_default=False)],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="repository on the Hub")],
    public: Annotated[
        bool, typer.Option("--public", help="make it public once it is verified; otherwise it is private")
    ] = False,
    revision: Annotated[str, typer.Option(help="branch; made where it is not there")] = "main",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace what the branch holds; its history keeps that")
    ] = False,
) -> int:
    """Push the model of a run to the Hugging Face Hub, load it back from there and verify it."""
    from ..checkpoints.publish import push
    from ..checkpoints.reference import local_folder
    from .display import Display

    # Ended like Ctrl-C, so that nothing half made is left on the Hub.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = local_folder(str(run)) if run.exists() else None
    if folder is None:
        raise UserError(f"There is no folder '{run}'.")
    with Display() as display:
        pushed = display.drained(push(folder, repo, public=public, revision=revision, overwrite=overwrite))
    print(
        f"'{pushed.repo}' holds the model as commit {pushed.commit}: {pushed.bytes / 1e6:.0f} MB, "
        f"{'private' if pushed.private else 'public'}. Loaded back from there in a fresh process, it answers "
        f"as the model here does (logits differ by at most {pushed.largest_difference:.1e})."
    )
    print(pushed.url)
    return 0
