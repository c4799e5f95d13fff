"""The tokens that the shown run removed: a page of the list at a time, and a visitor's text without them.

What they are read with, the dense model's tokenizer, is opened where models are looked at, and is not
downloaded. No gradio.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TypeVar

from ..core.errors import UserError
from ..core.network import NotDownloaded, without_downloads
from ..core.token_removal import TokensRemoved, removal_in
from ..inspection.removed_tokens import RemovedTokens, TokenPage, removed_tokens
from ..runs.files import MODEL
from ..runs.queue import RunQueue
from .fields import Changes
from .html import problem, table
from .looking import Looks

Value = TypeVar("Value")


def list_tokens(queue: RunQueue, looks: Looks, run_id: str, wanted: str, number: float | None) -> Changes:
    """A page of the removed tokens that contain what is wanted."""
    try:
        page = _asked(queue, looks, run_id, RemovedTokens.page, wanted, 1 if number is None else number)
    except UserError as error:
        return {"token_list": {"value": problem(error)}}
    return {"token_list": {"value": listed(page)}, "token_page": {"value": page.number}}


def measure_text(queue: RunQueue, looks: Looks, run_id: str, text: str) -> Changes:
    """How much longer a text has become."""
    try:
        found = _asked(queue, looks, run_id, RemovedTokens.lengths, text)
    except UserError as error:
        return {"longer": {"value": problem(error, field="lengthened" if error.setting == "text" else "")}}
    return {"longer": {"value": f"<p class='line' role='status'>{escape(found.sentence())}</p>"}}


def listed(page: TokenPage) -> str:
    """A page of the list, as a table."""
    line = f"<p class='line' role='status'>{escape(page.sentence())}</p>"
    if not page.tokens:
        return line
    rows = [
        (
            _shown(token.text),
            " + ".join(map(_shown, token.pieces)),
            escape(token.script or "-"),
            f"{token.id:,}",
        )
        for token in page.tokens
    ]
    return line + table(("token", "written now as", "script", "number"), rows, "Removed tokens")


def _shown(text: str) -> str:
    """A token's text, with what cannot be seen of it made visible."""
    marks = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    seen = "".join(
        marks.get(letter, letter if letter.isprintable() else f"\\x{ord(letter):02x}") for letter in text
    )
    return f"<code dir='auto'>{escape(seen)}</code>"


def _asked(queue: RunQueue, looks: Looks, run_id: str, ask: Callable[..., Value], *given: object) -> Value:
    """What the removed tokens of a run answer.

    Raises:
        UserError: the run removed none or cannot be read, or its dense model is not on this machine.
    """
    folder, recipe = queue.folder(run_id or ""), queue.recipe(run_id or "")
    removal = removal_in(queue.summary(run_id)[0].results.values())
    return looks.at(recipe)(_look, recipe.model, removal, folder / MODEL, ask, *given)


def _look(
    model: str, removal: TokensRemoved, export: Path, ask: Callable[..., Value], *given: object
) -> Value:
    try:
        with without_downloads():
            found = removed_tokens(model, removal, export)
    except NotDownloaded:
        raise UserError(
            f"The removed tokens are read with the tokenizer of '{model}', which is not on this machine. "
            "Prune it yourself, or use 'pip-studio tokens RUN' where the model can be had."
        ) from None
    return ask(found, *given)
