"""Reading what a run has recorded: its events, a line each."""

from __future__ import annotations

import math
import stat
from pathlib import Path

from ..core import events as ev
from ..core.errors import UserError
from ..core.json_text import parse_json
from .files import EVENTS, UnreadableRun, damaged, newer_version

# What a run that goes on does not do anew.
DECIDED = (ev.Removed, ev.Evaluated, ev.Exported, ev.StageResult)


def read_events(folder: Path) -> list[ev.Event]:
    """Every event recorded so far, without a line that is still being written.

    Raises:
        UnreadableRun: a line is damaged, or of a newer version.
    """
    tail = Tail(folder)
    events = [event for event, _ in tail.poll()]
    if tail.fault is not None:
        raise tail.fault
    return events


def decided(folder: Path) -> int:
    """How many events of a run need not come about again.

    Raises:
        UnreadableRun: as `read_events`.
    """
    return sum(isinstance(event, DECIDED) for event in read_events(folder))


class Tail:
    """Reads a growing `events.jsonl`, each line once.

    Attributes:
        offset: bytes read so far.
        fault: what is wrong with the first line that cannot be read; such lines are left out.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS
        self.offset = 0
        self.fault: UnreadableRun | None = None
        self._lines = 0

    def poll(self) -> list[tuple[ev.Event, float]]:
        """Events recorded since the last call, with their times in seconds since 1970.

        Raises:
            OSError: the file is not there, or cannot be read.
        """
        if not stat.S_ISREG(self.path.stat().st_mode):  # nobody may ever write to a pipe
            raise OSError("it is not a file")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        found = []
        for line in whole.splitlines():
            self._lines += 1
            try:
                found.append(_read_line(line, self.path, self._lines))
            except UnreadableRun as error:
                self.fault = self.fault or error
        return found


def _read_line(line: bytes, path: Path, number: int) -> tuple[ev.Event, float]:
    """An event and its time.

    Raises:
        UnreadableRun: the line is damaged, or its event is unknown to this version.
    """
    try:
        event, at = ev.from_line(line.decode("utf-8"))
        if math.isfinite(at):
            return event, at
    except (UserError, UnicodeDecodeError, RecursionError):
        pass
    try:
        values = parse_json(line)
    except ValueError:
        raise damaged(path, f"line {number} is not an event") from None
    if not isinstance(values, dict) or not isinstance(values.get("event"), str) or "at" not in values:
        raise damaged(path, f"line {number} is not an event")
    raise newer_version(f"its event '{values['event'][:40]}' cannot be read here")


def drop_torn_line(path: Path) -> None:
    """A killed worker may have left half a line."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
