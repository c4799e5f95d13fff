"""Which errors mean that the Hub cannot be reached, and which have nothing to do with it."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from pip_core.core import network
from pip_core.core.device import user_message
from pip_core.core.network import is_unreachable


def answer(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    "error",
    [
        network.HTTP.ConnectError("refused"),
        network.HTTP.ReadTimeout("slow"),
        ConnectionResetError(),
        TimeoutError(),
        socket.gaierror("no such name"),
        OfflineModeIsEnabled("offline"),
        LocalEntryNotFoundError("not cached"),
        answer(429),
        answer(500),
        answer(503),
    ],
    ids=repr,
)
def test_no_answer_from_the_hub(error):
    assert is_unreachable(error)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/cache"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(),
        MemoryError(),
        ValueError(),
        answer(400),
        answer(401),
        answer(403),
        answer(404),
    ],
    ids=repr,
)
def test_other_errors(error):
    assert not is_unreachable(error)


def test_a_missing_permission_names_the_path():
    message = user_message(PermissionError(errno.EACCES, "Permission denied", "/cache/models"))
    assert "permission" in message
    assert "/cache/models" in message
