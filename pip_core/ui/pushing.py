"""Pushing the shown run's model to the Hub: what is pressed, and how far it is in words. No gradio."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape

from ..core.errors import UserError
from ..core.figures import percent
from ..core.limits import can_sign_in, local_files, on_space
from ..core.network import asking_token
from ..reporting.messages import describe_agreement
from ..runs.pushing import PushState
from ..runs.queue import RunQueue
from .html import problem
from .shown import Shown

LOOK_SECONDS = 0.5
NOT_PUSHED = "<p class='line'>Nothing is being pushed.</p>"


def can_push(shown: Shown) -> bool:
    """Whether there is a model to push, and somebody who could."""
    there = shown.state == "finished" and shown.summary.exported is not None and not shown.example
    return there and (can_sign_in() or not on_space())


def push(
    queue: RunQueue,
    memory: dict,
    run_id: str,
    repo: str,
    token: str = "",
    public: bool = False,
    overwrite: bool = False,
) -> Iterator[tuple[str, str]]:
    """Push, or follow the push that is under way: how far it is, and the token's field, which is emptied."""
    key = (run_id, memory.get("owner", ""))
    try:
        if (state := queue.pushes.state(key)) is None or not state.busy:
            queue.push(
                *key,
                repo=repo.strip(),
                public=public,
                overwrite=overwrite,
                token=_token(token.strip()),
            )
    except UserError as error:
        yield problem(error, str(time.monotonic())), ""
        return
    said = ""
    while (state := queue.pushes.state(key)) is not None:
        if (line := words(state)) != said:
            said = line
            yield line, ""
        if not state.busy:
            return
        time.sleep(LOOK_SECONDS)


def stop(queue: RunQueue, memory: dict, run_id: str) -> dict:
    """Stop the push; what it made is taken back."""
    key = (run_id, memory.get("owner", ""))
    state = queue.pushes.state(key)
    if state is None or not state.busy:
        return {"push_state": {"value": words(state)}}
    queue.pushes.stop(key)
    return {}


def _token(typed: str) -> str:
    """The token to push with: of the visitor who signed in, or typed; empty for that of this machine's owner.

    Raises:
        UserError: there is none.
    """
    if token := asking_token() or typed:
        return token
    if can_sign_in():
        raise UserError("Sign in first: the button is at the top of this page. Then push again.")
    if on_space():
        raise UserError("This Space lets nobody sign in. Download the model and push it yourself.")
    if not local_files():
        raise UserError("Enter a token of yours that may write: huggingface.co/settings/tokens makes one.")
    return ""


def words(state: PushState | None) -> str:
    """How far a push is."""
    if state is None:
        return NOT_PUSHED
    if state.error:
        return problem(state.error)
    if state.pushed is None:
        line = f"{state.what[:1].upper()}{state.what[1:]}"
        if state.total:
            line += f": {percent(state.done / state.total, 0)} of {state.total / 1e6:.0f} MB"
        return f"<p class='line' role='status'>{escape(line)} …</p>"
    done = state.pushed
    seen = "only you see it" if done.private else "everybody sees it"
    return (
        f"<div class='verified'><b>✓ On the Hub, loaded back and verified.</b> "
        f"<a href='{escape(done.url, quote=True)}' target='_blank' rel='noopener'>{escape(done.repo)}</a>, "
        f"{done.bytes / 1e6:.0f} MB, {seen}. Compared with the model here, "
        f"{describe_agreement(done.largest_difference)}.</div>"
    )
