"""Memory that runs out on the way: less is done at a time, it is said, and nothing is lost.

Whatever does several rows at a time hands them to `in_portions`. Where memory runs out it tries again with
half of them, and from then on everything in the run is done in such portions. A single row that does not fit
is an error like any other: the run then reads its weights from disk, where it can (`engine.run`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from . import accelerator, notices
from .device import is_out_of_memory

Item = TypeVar("Item")
Found = TypeVar("Found")

_divisor = 1


def begin() -> None:
    """Whole portions again, as a run begins with."""
    global _divisor
    _divisor = 1


def size(usual: int) -> int:
    """How many are done at a time now, where `usual` are when memory suffices."""
    return max(1, usual // _divisor)


def halve(count: int) -> None:
    """From now on do half of what `count` at a time was too much of, and say so."""
    global _divisor
    _divisor *= 2
    release()
    notices.say(
        f"Memory ran out with {count} rows at a time on {accelerator.name_of(accelerator.device())}: "
        f"from here on {-(-count // 2)} are read at a time, which takes a little longer and changes last "
        "digits."
    )


def release() -> None:
    """Give back what a failed attempt left behind."""
    gc.collect()
    accelerator.empty_cache()


def in_portions(work: Callable[[Sequence[Item]], Found], items: Sequence[Item]) -> Iterator[Found]:
    """What `work` makes of all `items`, of as many at a time as memory allows.

    Args:
        work: leaves nothing behind where it fails; no gradient mode is held between two of its calls.
    """
    left = list(items)
    while left:
        now = left[: size(len(items))]
        found = _attempt(work, now)
        if found is None:
            halve(len(now))
            continue
        yield found[0]
        left = left[len(now) :]


def _attempt(work: Callable[[Sequence[Item]], Found], items: Sequence[Item]) -> tuple[Found] | None:
    """What `work` makes of `items`, or None where memory ran out and fewer can be tried. That no exception is
    under way afterwards lets go of what the attempt held."""
    try:
        return (work(items),)
    except Exception as error:
        if len(items) < 2 or not is_out_of_memory(error):
            raise
    return None
