"""How long the Hub is waited for, which errors mean that it cannot be reached, and for whom it is asked.

On a machine of one's own that is whoever is logged in there. On a page that is open to others it is nobody,
or a visitor who signed in: what only their token opens is asked for with it, and kept apart from what all
share.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import psutil
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from .errors import UserError
from .limits import Limits, can_sign_in, limits, local_files, on_space

# Seconds.
HUB_TIMEOUT = 5.0
# Begins the names of folders for what only a visitor may read.
PRIVATE = "pip-studio-private-"
# The HTTP library of the Hub's client: httpx in its release 1, httpx2 in its release 2.
HTTP = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
# No connection, a broken one, a time-out, offline mode, and what the Hub's client raises when the
# network failed and the local cache lacks the file. Other kinds of OSError (no permission, a full
# disk) have nothing to do with the network and are not among them.
UNREACHABLE_TYPES = (
    HTTP.TransportError,
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


@dataclass(frozen=True)
class Visitor:
    """Somebody who signed in, and for whom this process works.

    Attributes:
        cache: folder for what only they may read. The Hub's cache is shared by all visitors.
        own: repositories that nobody may read without a token, as far as that is known.
    """

    token: str = field(repr=False)
    cache: Path
    own: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        """Tells visitors apart, and tells nothing of their tokens."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:16]


# One process at a time works for one visitor, in whatever threads.
_visitor: Visitor | None = None
_asking: ContextVar[str | None] = ContextVar("asking", default=None)


def hub_token() -> bool | None:
    """The `token` of every request to the Hub that is not for a `Visitor`: None takes that of the person
    whose machine this is. Where strangers reach the page none is sent, since it opens what is not theirs."""
    return False if on_space() or not local_files() else None


def visitor() -> Visitor | None:
    """For whom this process works; None where that is nobody who signed in."""
    return _visitor


@contextmanager
def working_for(token: str) -> Iterator[None]:
    """This process works for a visitor with this token; for nobody where it is empty. What only they may
    read is deleted at the end. It is not kept in the run's folder, which the page serves to whoever has the
    run's link."""
    global _visitor
    if not token:
        yield
        return
    _drop_leftovers()
    with TemporaryDirectory(prefix=f"{PRIVATE}{os.getpid()}-") as cache:
        _visitor = Visitor(token, Path(cache))
        try:
            yield
        finally:
            _visitor = None


def _drop_leftovers() -> None:
    """Delete what processes that were killed had fetched for a visitor."""
    for folder in Path(gettempdir()).glob(f"{PRIVATE}*-*"):
        number = folder.name.removeprefix(PRIVATE).partition("-")[0]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def asked_with(token: str | None) -> Iterator[None]:
    """This thread answers a visitor of a page where one can sign in.

    Args:
        token: theirs; empty where they have not signed in. None answers nobody of the page, see `asking`.
    """
    kept = _asking.set(token)
    try:
        yield
    finally:
        _asking.reset(kept)


def asking() -> str | None:
    """The token of the visitor that this thread answers, empty where they could sign in and have not. None
    where it answers nobody who could: a program, or a page without a sign-in."""
    return _asking.get()


def asking_token() -> str:
    """The token of the visitor that this thread answers; empty where there is none."""
    return asking() or ""


def visitors_limits() -> Limits:
    """The limits of whom this thread answers.

    Raises:
        UserError: as `limits`.
    """
    return limits(signed_in=bool(asking_token()))


def or_sign_in(most: str, helps: bool = True) -> str:
    """What signing in gives to whom this thread answers, as the last of several things that they may do;
    nothing where they cannot, have done so, or it does not help.

    Args:
        most: how much they would have.
    """
    return f", or sign in on this page: up to {most} then" if helps and asking() == "" else ""


def own_login() -> str:
    """How whoever asks comes to a token of their own, as the end of a sentence."""
    if hub_token() is None:
        return "log in with 'hf auth login'"
    return "use PIP Studio on your own machine and log in there with 'hf auth login'"


def sign_in() -> str:
    """As `own_login`, for what a visitor's token is used for. A program reads it too, which has no page."""
    return "sign in on PIP Studio's page" if can_sign_in() else own_login()


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
