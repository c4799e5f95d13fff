"""What can go wrong with a push, a sentence each."""

from __future__ import annotations

import json

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from ..core.device import user_message
from ..core.errors import UserError, shortened
from ..core.limits import can_sign_in, local_files, on_space
from ..core.network import is_unreachable

TOKENS_PAGE = "huggingface.co/settings/tokens"


def new_token() -> str:
    """How whoever pushes comes to a token that may write."""
    if can_sign_in():
        return "Sign out, sign in again, and allow this Space to make repositories for you."
    if on_space():
        return "This Space lets nobody sign in: download the model and push it yourself."
    made = f"Make one that may write at {TOKENS_PAGE}"
    if local_files():
        return f"{made}, and log in with 'hf auth login'."
    return (
        f"{made}, and give it with the push: others reach this page, so that its machine's own is not used."
    )


def push_failure(error: BaseException, repo: str) -> UserError | None:
    """What went wrong with a push, in one sentence; None where it is a fault of this program.

    The Hub's client wraps what happened to a single file in errors of its own, so causes are looked at too.
    """
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None:
        chain.append(at)
        at = at.__cause__
    for cause in chain:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, HfHubHTTPError):
            return UserError(_refusal(cause.response.status_code, repo, cause))
        if isinstance(cause, KeyboardInterrupt):
            return UserError("The push was stopped.")
        if isinstance(cause, OfflineModeIsEnabled):
            return UserError(
                "The Hub's client is told to stay offline: unset HF_HUB_OFFLINE, then push again."
            )
        if is_unreachable(cause):
            return UserError(
                f"The connection to the Hub broke ({type(cause).__name__}). Check the network and push "
                "again; what was uploaded is not sent twice."
            )
        if isinstance(cause, json.JSONDecodeError):
            return UserError("The Hub's answer cannot be read. Push again later.")
        if isinstance(cause, ValueError) and "Invalid metadata" in str(cause):
            reason = shortened(str(cause).partition("\n")[2])
            return UserError(f"The Hub does not take the model card's fields: {reason}.")
        if isinstance(cause, Exception) and (message := user_message(cause)):
            return UserError(message)
    return None


def _refusal(status: int, repo: str, error: HfHubHTTPError) -> str:
    if status == 401:
        return f"The Hub does not know your token (401): it has expired or was revoked. {new_token()}"
    if status == 403:
        return f"Your token may not write to '{repo}' (403). {new_token()}"
    if status == 404:
        return f"'{repo}' is not on the Hub any more, or your token does not show it. Push again to make it."
    if status in (409, 412):
        return f"'{repo}' was made or changed by somebody else in the meantime. Look at it, then push again."
    if status == 429:
        return "The Hub got too many requests from you (429). Push again in some minutes."
    if status >= 500:
        return f"The Hub has a fault of its own (HTTP status {status}). Push again later."
    return f"The Hub refused the push (HTTP status {status}): {shortened(str(error))}."
