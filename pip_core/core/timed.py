"""The speed and memory of a finished model beside the dense one's, as its run measured them.

Whoever shows a run finds them without knowing the stage that measured.
"""

from __future__ import annotations

from collections.abc import Iterable

from .events import Event, StageResult, event


@event
class Timed(StageResult):
    """Speed and memory of the exported model and of the dense one, in turn on this machine.

    `reading` and `writing` are (median, lower and upper quartile) of the exported model's speed over the
    dense one's; `dense_bytes` and `pruned_bytes` of weights in memory. `skipped` says why nothing was
    measured.
    """

    reading: tuple[float, float, float] = (0.0, 0.0, 0.0)
    writing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    dense_bytes: int = 0
    pruned_bytes: int = 0
    rounds: int = 0
    device: str = ""
    threads: int = 0
    skipped: str = ""

    def sentence(self) -> str:
        if self.skipped:
            return f"Speed was not measured: {self.skipped}"
        return (
            f"Speed beside the whole model, in turn on this machine ({self.device}): it writes "
            f"{in_words(self.writing)} as fast and reads {in_words(self.reading)} as fast, and its weights "
            f"take {self.pruned_bytes / 1e6:.0f} instead of {self.dense_bytes / 1e6:.0f} MB of memory."
        )


def in_words(ratio: tuple[float, float, float]) -> str:
    """A ratio of speeds, with its quartiles."""
    return f"{ratio[0]:.2f} times ({ratio[1]:.2f} to {ratio[2]:.2f})"


def timed_in(events: Iterable[Event]) -> Timed | None:
    """The last measurement of speed among events; None where there is none."""
    return next((e for e in reversed(list(events)) if isinstance(e, Timed)), None)
