"""Several processes at one run, as `torchrun` or `accelerate launch` start them, and what they exchange.

All processes go through the same run and make the same decisions; each reads its share of the calibration
pairs, of the questions and of the refit's text, and what they found is added up once (gloo, through the
processor's memory: little is exchanged, so it does not matter how). Only the first one writes a run and says
what happens. Outside a shared run, and without `torchrun`, there is one process and nothing is exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from .errors import UserError

Item = TypeVar("Item")

# A stage that one process does alone, such as verifying a large export, may take long. That a process has
# ended is noticed at once, by its connection.
PATIENCE = timedelta(days=1)
# Parts of what gloo says where another process has gone.
GONE = ("connection closed", "connection reset", "connect timeout", "broken pipe", "timed out waiting")


class OthersEnded(UserError):
    """Another process of a shared run has gone."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that share a run.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What of `items` this process does: a part without gaps, so that the parts of all processes in their
        order are all items in theirs."""
        begin, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(items[begin:end])

    def gather(self, value: Item) -> list[Item]:
        """`value` of every process, in their order; the same list in each.

        Raises:
            OthersEnded: a process has gone.
        """
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        _exchange(lambda: distributed.all_gather_object(found, value))
        return found

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes; the same in each, on the tensor's device.

        Raises:
            OthersEnded: a process has gone.
        """
        if self.size == 1:
            return tensor
        summed = tensor.cpu().clone()
        _exchange(lambda: distributed.all_reduce(summed))
        return summed.to(tensor.device)

    def told_by_first(self, value: Item | None) -> Item:
        """What the first process hands in.

        Raises:
            OthersEnded: a process has gone.
        """
        told: list[Any] = [value]
        _exchange(lambda: distributed.broadcast_object_list(told))
        return told[0]


ALONE = ProcessGroup()
_current = ALONE


def current() -> ProcessGroup:
    """The processes that share what is done now: this one alone, but in a shared run."""
    return _current


def added(one: Any, other: Any) -> Any:
    """What two processes found, added up: numbers, tensors, and lists and dictionaries of them; texts are put
    behind one another, and whatever else has `joined` does it itself."""
    if isinstance(one, dict):
        keys = sorted({*one, *other})
        return {k: added(one[k], other[k]) if k in one and k in other else (one | other)[k] for k in keys}
    if isinstance(one, list) and not (one and isinstance(one[0], str)):
        return [added(a, b) for a, b in zip(one, other, strict=True)]
    return one.joined(other) if hasattr(one, "joined") else one + other


@contextmanager
def joined() -> Iterator[ProcessGroup]:
    """Meet the other processes, and leave them at the end.

    Raises:
        OthersEnded: they do not come.
    """
    _exchange(lambda: distributed.init_process_group("gloo", timeout=PATIENCE))
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        with suppress(Exception):  # where others have gone there is nothing to leave
            distributed.destroy_process_group()


def met() -> ProcessGroup:
    """The processes that were met (see `joined`): this one alone where there are no others."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def shared(group: ProcessGroup) -> Iterator[None]:
    """Share with `group` what is done inside a `with` block."""
    global _current
    before, _current = _current, group
    try:
        yield
    finally:
        _current = before


def _exchange(work: Callable[[], object]) -> None:
    try:
        work()
    except RuntimeError as error:  # torch has a class of its own for this only where it was built with gloo
        if not any(part in str(error).lower() for part in GONE):
            raise
        raise OthersEnded(
            "Another process of this run has ended, so this one cannot go on. Nothing decided is lost: start "
            "all processes again with 'resume' and the run's folder."
        ) from None
