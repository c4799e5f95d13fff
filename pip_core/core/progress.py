"""Generators that report on their way and return a result at the end: what to do with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Step = TypeVar("Step")
Other = TypeVar("Other")
Result = TypeVar("Result")

# Name of the threads of `in_background`.
BACKGROUND = "in background"


def drain(work: Generator[Step, None, Result]) -> Result:
    """Run `work` to its end and return its result; what it reports is not looked at."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def map_progress(
    work: Generator[Step, None, Result], change: Callable[[Step], Other]
) -> Generator[Other, None, Result]:
    """`work` with every report changed; the result is the same."""
    try:
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                return end.value
            yield change(step)
    finally:
        work.close()  # at once: it may hold a process or a file


def once_a_second(work: Generator[float, None, Result]) -> Generator[float, None, Result]:
    """`work`, which reports the seconds since it began, with one report for each second begun."""
    said = -1
    try:
        while True:
            try:
                seconds = next(work)
            except StopIteration as end:
                return end.value
            if int(seconds) > said:
                said = int(seconds)
                yield seconds
    finally:
        work.close()


def in_background(
    work: Callable[[], Result], report: Callable[[], Step], seconds: float = 0.5
) -> Generator[Step, None, Result]:
    """`work` in a thread, whose result or error is passed on. Yields what `report` says every so many
    seconds. Whoever stops iterating leaves the thread to itself."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name=BACKGROUND, daemon=True)
    thread.start()
    while thread.is_alive():
        yield report()
        thread.join(seconds)
    if failed:
        raise failed[0]
    return found[0]


class Halted(Exception):
    """The user asked to stop."""


def stoppable(
    work: Iterator[Step], stop: Callable[[], bool], ending: Callable[[], Step]
) -> Generator[Step, None, None]:
    """Pass reports on, asking after each whether to stop. A generator's result is dropped.

    Raises:
        Halted: it was asked to; `ending()` was the last report.
    """
    try:
        for step in work:
            yield step
            if stop():
                yield ending()
                raise Halted
    finally:
        if isinstance(work, Generator):
            work.close()  # at once: it may hold a process or a file
