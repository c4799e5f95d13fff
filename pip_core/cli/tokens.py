"""The command that looks through the tokens that a run removed, and measures a text without them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import UserError

if TYPE_CHECKING:
    from ..inspection.removed_tokens import TokenPage


def tokens(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of the run", show_default=False)],
    search: Annotated[
        str,
        typer.Option(
            help="list those that contain this text, or script:NAME for a script", show_default=False
        ),
    ] = "",
    page: Annotated[int, typer.Option(min=1, help="page of the list")] = 1,
    text: Annotated[
        str, typer.Option(help="measure how much longer this text is now", show_default=False)
    ] = "",
    file: Annotated[Path | None, typer.Option(help="the same for the text in a file")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON value, for programs", show_default=False)
    ] = False,
) -> int:
    """List the tokens that a run removed, or measure how much longer a text has become without them."""
    from ..core.events import effective_events
    from ..core.finite import to_json
    from ..core.token_removal import removal_in
    from ..data.files import own_file, read_text
    from ..inspection.removed_tokens import removed_tokens
    from ..runs.files import MODEL
    from ..runs.recorded import read_events
    from ..runs.run_directory import recipe_of

    if text and file:
        raise UserError("Give a text or a file, not both.")
    # Bytes that are no text on this machine.
    search, text = (given.encode("utf-8", "replace").decode("utf-8") for given in (search, text))
    model, removal = recipe_of(run).model, removal_in(effective_events(read_events(run)))
    found = removed_tokens(model, removal, run / MODEL)
    if file is not None:
        text = read_text(own_file(str(file)), f"file '{file}'")
    if text or file is not None:
        lengths = found.lengths(text)
        print(to_json(dataclasses.asdict(lengths)) if as_json else lengths.sentence())
        return 0
    shown = found.page(search, page)
    print(to_json(dataclasses.asdict(shown)) if as_json else _listed(shown))
    return 0


def _listed(page: TokenPage) -> str:
    lines = [page.sentence()]
    width = max((len(repr(token.text)) for token in page.tokens), default=0)
    lines += [f"{token.text!r:<{width}}  {' + '.join(map(repr, token.pieces))}" for token in page.tokens]
    return "\n".join(lines)
