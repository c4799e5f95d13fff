"""How a handler answers: with changes of components, and to what a person can put right with a message."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Sequence

from ..core.errors import UserError
from ..core.network import asked_with
from .fields import Changes
from .html import problem


def show_errors(handler: Callable[..., Changes]) -> Callable[..., Changes]:
    """A handler whose errors for the user are shown on the page."""

    @functools.wraps(handler)
    def safe(*arguments, **named) -> Changes:
        try:
            return handler(*arguments, **named)
        except UserError as error:
            return {"notice": {"value": problem(error, str(time.monotonic()))}}

    return safe


def changing(
    handler: Callable[..., Changes], outputs: Sequence[str], update: Callable, skip: Callable
) -> Callable:
    """A handler as one of gradio's: components that its changes do not name are left alone. It may answer
    step by step.

    Args:
        outputs: names of the components that it may change.
        update, skip: gradio's.
    """

    def updates(changes: Changes):
        made = [update(**changes[name]) if name in changes else skip() for name in outputs]
        return made if len(made) > 1 else made[0]

    def handle(*values):
        return updates(handler(*values))

    def handle_steps(*values) -> Iterator:
        for changes in handler(*values):
            yield updates(changes)

    return handle_steps if inspect.isgeneratorfunction(handler) else handle


def for_signed_in(handler: Callable, profile_kind: object, token_kind: object) -> Callable:
    """A handler that is told the token of a visitor who signed in, see `core.network.asked_with`. Of one that
    answers step by step only the first step is.

    Gradio takes a token from the visitor's session, where the Hub gave it, or where there is none from the
    request, where anybody can write anything. A profile it takes from the session alone, so that a token
    without one is no sign-in.

    Args:
        profile_kind, token_kind: gradio's types of a profile and a token, or none; by them gradio knows what
            to give.
    """

    def handle(profile, token, *values):
        with asked_with(token.token if profile and token else ""):
            return handler(*values)

    def handle_steps(profile, token, *values) -> Iterator:
        with asked_with(token.token if profile and token else ""):
            steps = handler(*values)
            first = next(steps, None)
        if first is not None:
            yield first
            yield from steps

    made = handle_steps if inspect.isgeneratorfunction(handler) else handle
    made.__annotations__ = {"profile": profile_kind, "token": token_kind}
    return made
