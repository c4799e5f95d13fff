"""Processes forked from one that has its libraries loaded are ordinary processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from pip_core.core.fork_server import AVAILABLE, Forked, ForkServer, serve

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system forks no workers")
# What is run: it says what it finds, and ends as it is told to.
MODULE = """
import os, subprocess, sys, time
print(os.getcwd(), os.environ.get("COLOUR"), os.environ.get("HOME"), sys.argv[1:], flush=True)
print(subprocess.run(["false"]).returncode, sys.stdin.read(), "colorsys" in sys.modules, flush=True)
print(os.getsid(0) == os.getpid())
if sys.argv[1] == "sleep":
    print("asleep", flush=True)
    time.sleep(600)
sys.exit(sys.argv[1] if sys.argv[1] == "in words" else int(sys.argv[1]))
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "told.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ForkServer(["colorsys"])
    assert server.warm_up().wait(60)
    return server


def start(server: ForkServer, folder: Path, *arguments: str, **environment: str):
    with (folder / "out").open("w") as out, (folder / "err").open("w") as errors:
        return server.start("told", arguments, environment, subprocess.DEVNULL, out, errors)


def asleep(folder: Path) -> None:
    while not (folder / "out").read_text().endswith("asleep\n"):
        pass


def test_it_is_a_process_with_everything_of_its_own(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = start(server, tmp_path, "3", COLOUR="blue", PATH=os.environ["PATH"])
    assert isinstance(process, Forked)
    assert process.wait(60) == process.poll() == process.returncode == 3
    assert (tmp_path / "out").read_text() == f"{tmp_path} blue None ['3']\n1  True\nTrue\n"
    assert start(server, tmp_path, "in words", PATH=os.environ["PATH"]).wait(60) == 1
    assert (tmp_path / "err").read_text() == "in words\n"


def test_a_signal_ends_it_and_one_that_ended_takes_none(server, tmp_path):
    process = start(server, tmp_path, "sleep", PATH=os.environ["PATH"])
    asleep(tmp_path)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    process.kill()
    assert not psutil.pid_exists(process.pid)


def test_what_it_forked_lives_on_when_the_server_is_killed_and_others_start(server, tmp_path):
    process = start(server, tmp_path, "sleep", PATH=os.environ["PATH"])
    asleep(tmp_path)
    psutil.Process(psutil.Process(process.pid).ppid()).kill()
    other = start(server, tmp_path, "0", PATH=os.environ["PATH"], PYTHONPATH=str(tmp_path))
    assert other.wait(60) == 0
    assert process.poll() is None
    process.kill()
    assert process.wait(60) < 0
    assert server.warm_up().wait(60)
    assert isinstance(start(server, tmp_path, "0", PATH=os.environ["PATH"]), Forked)


def test_a_module_that_is_not_there_is_told_on_its_errors(server, tmp_path):
    with (tmp_path / "err").open("w") as errors:
        process = server.start("nowhere", [], {}, subprocess.DEVNULL, subprocess.DEVNULL, errors)
    assert process.wait(60) == 1
    assert "nowhere" in (tmp_path / "err").read_text()


def test_who_asked_may_end_without_having_read_every_report():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.send(b"a report")
        ours.close()
        assert serve(theirs) is None
