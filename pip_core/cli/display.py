"""Events on a terminal: a progress bar with the time that is left, and a line for everything else.

Where the output is no terminal (a file, a pipe, a log) every event is one plain line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import closing
from types import TracebackType
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from ..core import events as ev
from ..reporting.messages import format_duration, sentence

Result = TypeVar("Result")


class Display:
    """Prints the events of a run.

    Attributes:
        stream: what is printed to, the standard output by default. Failures go to the standard error.
        passing_only: print only what passes (progress), and only on a terminal, because the command prints
            its result itself.
    """

    def __init__(self, stream: TextIO | None = None, passing_only: bool = False) -> None:
        self.stream = stream or sys.stdout
        self.passing_only = passing_only
        self._bar: Progress | None = None
        self._quarter: tuple[object, ...] = ()
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[left]}", markup=False),
                console=Console(file=self.stream),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, visible=False, left="")

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, event: ev.Event) -> None:
        """Print one event."""
        if isinstance(event, ev.Progress | ev.Loading):
            if self._bar:
                self._move(self._bar, event)
            elif not self.passing_only and self._reaches_a_quarter(event):
                self.line(sentence(event))
        elif self.passing_only:
            return
        elif isinstance(event, ev.Failed):
            if self._bar:
                self._bar.stop()
            print(f"error: {event.message}", file=sys.stderr, flush=True)
        else:
            self.line(sentence(event))

    def drained(self, steps: Generator[ev.Event, None, Result]) -> Result:
        """What a generator of events returns; each is shown, and it is closed whatever ends it."""
        with closing(steps):
            while True:
                try:
                    event = next(steps)
                except StopIteration as end:
                    return end.value
                self.show(event)

    def line(self, text: str) -> None:
        """Print a line, above the progress bar where there is one."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    def _reaches_a_quarter(self, event: ev.Progress | ev.Loading) -> bool:
        """Whether progress begins something, or has come a quarter further since it was printed last: a log
        of a long run is for reading."""
        what = (event.stage, event.iteration) if isinstance(event, ev.Progress) else (event.what,)
        quarter = (*what, 4 * event.done // event.total if event.total else 0)
        reaches, self._quarter = quarter != self._quarter, quarter
        return reaches

    def _move(self, bar: Progress, event: ev.Progress | ev.Loading) -> None:
        """Set the bar to a step of a stage, or to the bytes that have arrived."""
        if isinstance(event, ev.Progress):
            what = f"{event.stage.capitalize()}, iteration {event.iteration}"
            left = f"about {format_duration(event.remaining)} left"
        else:
            what, left = event.what[:1].upper() + event.what[1:], ""
        bar.update(
            self._task,
            description=what,
            completed=event.done,
            total=event.total or None,
            visible=True,
            left=left,
        )
