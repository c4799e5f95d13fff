"""Events on a terminal, and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from pip_core.cli.display import Display
from pip_core.core import events as ev

from ..runs.test_run_directory import wait_for

STEP = ev.Progress("measuring", 1, 30, 120, 10.0, 95.0)
DONE = ev.Stopped(2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def test_plain_lines_where_there_is_no_terminal(capsys):
    with Display() as display:
        for event in (STEP, DONE, ev.Failed("Out of luck.")):
            display.show(event)
    out, errors = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert "30 of 120" in lines[0]
    assert lines[1].startswith("Stopped")
    assert errors == "error: Out of luck.\n"


def test_a_terminal_shows_how_far_it_is_and_the_time_left(terminal, capsys):
    with Display(terminal) as display:
        display.show(ev.Loading("downloading it", 5, 10))
        display.show(STEP)
        wait_for(lambda: " 25 %" in terminal.getvalue())  # drawn ten times a second
        display.show(DONE)
        display.show(ev.Failed("Out [of] luck."))
    shown = terminal.getvalue()
    assert "Measuring, iteration 1" in shown
    assert " 25 %" in shown
    assert "about 1:35 left" in shown
    assert "30 of 120" not in shown
    assert "Stopped" in shown
    assert capsys.readouterr().err == "error: Out [of] luck.\n"


def test_lines_are_not_taken_for_markup_and_not_broken(terminal):
    text = "[red]" + "word " * 60
    with Display(terminal) as display:
        display.line(text)
    assert text in terminal.getvalue()


def test_a_command_that_prints_its_result_shows_progress_alone(terminal, capsys):
    with Display(terminal, passing_only=True) as display:
        display.show(STEP)
        wait_for(lambda: "Measuring" in terminal.getvalue())
        display.show(DONE)
    assert "Measuring" in terminal.getvalue()
    assert "Stopped" not in terminal.getvalue()
    with Display(sys.stderr, passing_only=True) as display:
        display.show(STEP)
    assert capsys.readouterr().err == ""


def test_a_dumb_terminal_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Display(terminal) as display:
        display.show(STEP)
    assert "30 of 120" in terminal.getvalue()
    assert "\033" not in terminal.getvalue()
