"""How long the Hub is waited for, which errors mean that it cannot be reached, and who may download."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from .errors import UserError
from .limits import on_space

# Seconds.
HUB_TIMEOUT = 5.0
# The HTTP library of the Hub's client: httpx in its release 1, httpx2 in its release 2.
_HTTP = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
# No connection, a broken one, a time-out, offline mode, and what the Hub's client raises when the
# network failed and the local cache lacks the file. Other kinds of OSError (no permission, a full
# disk) have nothing to do with the network and are not among them.
UNREACHABLE_TYPES = (
    _HTTP.TransportError,
    OfflineModeIsEnabled,
    LocalEntryNotFoundError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
# Request time-out and too many requests; so do all from 500 on.
UNREACHABLE_STATUS = (408, 429)


_may_download: ContextVar[bool] = ContextVar("may_download", default=True)


class NotDownloaded(UserError):
    """Data that is not on this machine yet, where nothing may be downloaded."""


def hub_token() -> bool | None:
    """The `token` of every request to the Hub: None takes that of the person whose machine this is. On a
    Space none is sent: whoever asks there is a stranger, and its own token opens what is not theirs."""
    return False if on_space() else None


@contextmanager
def without_downloads() -> Iterator[None]:
    """This thread takes data of the Hub from the cache only. What is not there raises `NotDownloaded`."""
    token = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(token)


def check_download(what: str) -> None:
    """Check that data may be downloaded now.

    Raises:
        NotDownloaded: it may not.
    """
    if not _may_download.get():
        raise NotDownloaded(f"{what} is not on this machine yet. It is downloaded when a run begins.")


def is_unreachable(error: BaseException) -> bool:
    """Whether `error` means that the Hub cannot be reached now, so that a local copy may stand in."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status >= 500 or status in UNREACHABLE_STATUS
    return isinstance(error, UNREACHABLE_TYPES)
