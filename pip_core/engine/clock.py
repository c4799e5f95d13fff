"""How long a run still takes: measured speeds, applied to the work that is planned.

Work is counted in forward-pass tokens of one block ("token-blocks"), so that a pass over a smaller
model counts for less. Every kind of work ("scoring", "measuring", what stages say) has a speed of its own;
until it has been measured, the mean speed of the others stands in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Elapsed and remaining seconds of a run.

    Attributes:
        planned: kind of work -> token-blocks still to be done.
        fixed: seconds of work that has no tokens (export and verification), still to be done.
    """

    planned: dict[str, float]
    fixed: float = 0.0
    now: Callable[[], float] = time.monotonic
    _done: dict[str, float] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = self._last = self.now()

    @property
    def elapsed(self) -> float:
        return self.now() - self._started

    def skip(self) -> None:
        """Time since the last step belongs to no kind of work (loading, writing events)."""
        self._last = self.now()

    def step(self, kind: str, work: float) -> None:
        """`work` token-blocks of this kind were done since the last step."""
        now = self.now()
        self._done[kind] = self._done.get(kind, 0.0) + work
        self._seconds[kind] = self._seconds.get(kind, 0.0) + now - self._last
        self.planned[kind] = max(0.0, self.planned.get(kind, 0.0) - work)
        self._last = now

    @property
    def speeds(self) -> dict[str, float]:
        """Seconds for a token-block of each kind of work that was done."""
        return {kind: self._seconds[kind] / done for kind, done in self._done.items() if done}

    def remaining(self) -> float:
        """Estimated seconds until the end, from the speeds measured so far."""
        total_work = sum(self._done.values())
        if not total_work:
            return self.fixed
        overall, speeds = sum(self._seconds.values()) / total_work, self.speeds
        return self.fixed + sum(work * speeds.get(kind, overall) for kind, work in self.planned.items())
