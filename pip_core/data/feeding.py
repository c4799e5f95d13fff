"""Pairs of views handed to whatever adds something up over them: their batches, their device, and the
processes that share them."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Sequence
from functools import reduce
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from ..core import portions
from ..core.accelerator import at_once
from ..core.device import is_out_of_memory
from ..core.process_group import added, current
from .perturbation import Pair

Found = TypeVar("Found", covariant=True)


class ScoringPass(Protocol[Found]):
    """A scoring method at work on one model: takes in batches of pairs, then says its scores.

    Attributes:
        sums: names of the attributes that pairs are added up in. Where several processes share the pairs,
            these are added up over the processes, see `added`.
    """

    sums: ClassVar[tuple[str, ...]]

    def add(self, batch: Sequence[Pair]) -> Iterable[None] | None:
        """Take in a batch, on the model's device. A method that needs long for one returns a generator
        that yields between its steps, where a run can be stopped; no gradient mode is held there."""

    def scores(self) -> Found:
        """What was found, once every batch is in."""


def feed(work: ScoringPass[Any], pairs: Sequence[Pair], device: torch.device) -> Generator[int, None, Any]:
    """Hand pairs to a scoring method.

    A processor is given one at a time: pairs of unequal length side by side would change the last digits of
    its scores, and gain nothing. An accelerator is given several; where memory runs out, fewer.

    Yields:
        How many pairs are done, after each step; a step may be less than a batch.

    Returns:
        What the method found.
    """
    group, done = current(), 0
    own = group.share(pairs)
    while done < len(own):
        batch = own[done : done + portions.size(at_once(1, device))]
        before = {n: copy.deepcopy(getattr(work, n)) for n in work.sums} if len(batch) > 1 else {}
        try:
            for _ in work.add([pair.to(device) for pair in batch]) or ():
                yield done * group.size
        except Exception as error:
            if not before or not is_out_of_memory(error):
                raise
        else:
            done += len(batch)
            yield min(done * group.size, len(pairs))
            continue
        # No exception is under way here, so that what the attempt held is let go.
        _set(work, before)
        portions.halve(len(batch))
    if group.size > 1:
        _set(work, reduce(added, group.gather({name: getattr(work, name) for name in work.sums})))
    return work.scores()


def _set(work: ScoringPass[Any], sums: dict[str, Any]) -> None:
    for name, value in sums.items():
        setattr(work, name, value)
